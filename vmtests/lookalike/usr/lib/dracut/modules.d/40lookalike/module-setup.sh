#!/bin/bash
# The initrd's part of the lookalike: what mounts Flatcar's /etc and ends the first boot.

check() { return 255; }

depends() { echo "systemd systemd-initrd"; }

installkernel() {
    hostonly='' instmods virtio_pci virtio_blk btrfs overlay loop squashfs vfat nls_ascii nls_cp437 nls_utf8 qemu_fw_cfg
}

install() {
    # Newer releases of dracut have put busybox in its place, whose find does not print what setup-root reads.
    [ ! -L "$initdir/usr/bin/find" ] || rm "$initdir/usr/bin/find"
    inst_multiple bash journalctl systemctl cat chroot cmp find getfattr grep mkdir mount rm rmdir sync \
        systemd-tmpfiles umount modprobe ln systemd-confext systemd-sysext
    inst_script "$moddir/setup-root" /usr/sbin/setup-root
    inst_script "$moddir/merge-extensions" /usr/sbin/merge-extensions
    inst_script "$moddir/end-first-boot" /usr/sbin/end-first-boot
    # Flatcar builds Ignition without relabelling. Debian's Ignition insists on a setfiles: give it one that does nothing.
    inst_script "$moddir/setfiles" /usr/sbin/setfiles
    inst_simple "$moddir/setup-root.service" "$systemdsystemunitdir/setup-root.service"
    inst_simple "$moddir/merge-extensions.service" "$systemdsystemunitdir/merge-extensions.service"
    inst_simple "$moddir/end-first-boot.service" "$systemdsystemunitdir/end-first-boot.service"
    inst_simple "$systemdsystemunitdir/systemd-udev-trigger.service.d/10-emulated.conf"
    inst_simple "$moddir/emergency.service" "$systemdsystemunitdir/emergency.service"
    mkdir -p "$initdir$systemdsystemunitdir/initrd.target.wants" "$initdir$systemdsystemunitdir/ignition-complete.target.requires"
    ln -s ../setup-root.service "$initdir$systemdsystemunitdir/initrd.target.wants/setup-root.service"
    ln -s ../merge-extensions.service "$initdir$systemdsystemunitdir/initrd.target.wants/merge-extensions.service"
    ln -s ../end-first-boot.service "$initdir$systemdsystemunitdir/ignition-complete.target.requires/end-first-boot.service"
}
