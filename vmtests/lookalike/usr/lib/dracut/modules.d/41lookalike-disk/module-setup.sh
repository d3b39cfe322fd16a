#!/bin/bash
# What the initrd needs to start from one disk as Flatcar's does: /usr on dm-verity, and the config under Flatcar's name.

check() { return 255; }

depends() { echo "lookalike systemd-veritysetup"; }

installkernel() {
    hostonly='' instmods dm_mod dm_verity sha256 virtio_net
}

install() {
    inst_multiple ip sleep
    mkdir -p "$initdir/usr/lib/ignition"
    inst_script "$moddir/flatcar-config" /usr/sbin/flatcar-config
    inst_script "$moddir/flatcar-network" /usr/sbin/flatcar-network
    for unit in flatcar-config.service flatcar-network.service; do
        inst_simple "$moddir/$unit" "$systemdsystemunitdir/$unit"
        mkdir -p "$initdir$systemdsystemunitdir/ignition-complete.target.requires"
        ln -s "../$unit" "$initdir$systemdsystemunitdir/ignition-complete.target.requires/$unit"
    done
}
