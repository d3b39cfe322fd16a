package vmtests

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Paths inside the tree of the operating system.
const (
	shippedEtc   = "usr/share/flatcar/etc" // the lower layer of the /etc overlay
	confexts     = "usr/lib/confexts"      // where systemd-confext looks for what the operating system ships
	shippedImage = "00-flatcar-default"    // the same files as in shippedEtc, as an image
	policyType   = "mcs"
)

// makeImages turns a copy of the Debian root into what a machine boots from. This function is the whole story, top to bottom.
func (b *builder) makeImages(base, policy, out string, guest []byte) error {
	root := filepath.Join(out, "tree")
	steps := []struct {
		what string
		do   func() error
	}{
		{"copy of the packages, and the lookalike's files", func() error { return b.makeTree(base, root) }},
		{"the harness's end", func() error { return writeFile(filepath.Join(root, "usr/lib/vmtest/guest"), guest, 0o755) }},
		{"policy", func() error { return b.installPolicy(policy, root) }},
		{"units", func() error { return b.trimUnits(root) }},
		{"kernel and initrd", func() error { return b.makeKernelAndInitrd(root, out) }},
		{"trim", func() error { return trimFiles(root) }},
		{"labels", func() error { return b.label(root) }},
		{"shape", func() error { return shapeLikeFlatcar(root) }},
		{"boot file system", func() error { return b.makeBootFS(filepath.Join(out, "boot.img"), 8192, nil) }},
	}
	for _, step := range steps {
		done := b.step("%s", step.what)
		if err := step.do(); err != nil {
			return err
		}
		done()
	}
	// Newest layout first: each older one is made from the tree of the one after it.
	for _, layout := range []Layout{Confext, Today, SymlinkEra, LTS2023} {
		done := b.step("file systems of layout %s", layout)
		if err := b.shapeLayout(root, layout); err != nil {
			return fmt.Errorf("cannot shape layout %s: %w", layout, err)
		}
		if err := b.makeFileSystems(root, out, layout); err != nil {
			return err
		}
		done()
	}
	return os.RemoveAll(root)
}

// makeTree copies the Debian root and lays the lookalike's own files over it.
func (b *builder) makeTree(base, root string) error {
	if err := b.run("cp", "-a", "--reflink=auto", base, root); err != nil {
		return err
	}
	return addFiles(lookalikeFiles, "lookalike", root)
}

// addFiles writes what is below a directory of an embedded tree; scripts are executable.
func addFiles(tree embed.FS, below, to string) error {
	return fs.WalkDir(tree, below, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := tree.ReadFile(path)
		if err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if strings.HasPrefix(string(content), "#!") {
			mode = 0o755
		}
		return writeFile(filepath.Join(to, strings.TrimPrefix(path, below+"/")), content, mode)
	})
}

func writeFile(path string, content []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, content, mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// Where the policy is, in the tree of the operating system and below the directory of a built policy.
const (
	policyConfig = "etc/selinux"
	policyStore  = "var/lib/selinux"
)

// makePolicy builds Flatcar's policy with the programs of the Debian root, which stays as it is.
func (b *builder) makePolicy(base, out string) error {
	defer b.step("policy from source")()
	sources := filepath.Join(out, "sources")
	if err := addFiles(policyFiles, "policy", sources); err != nil {
		return err
	}
	binds := map[string]string{sources: "/mnt"}
	for _, dir := range []string{policyConfig, policyStore} {
		if err := os.MkdirAll(filepath.Join(out, dir), 0o755); err != nil {
			return err
		}
		binds[filepath.Join(out, dir)] = "/" + dir
	}
	if err := b.inRootWith(binds, base, "/mnt/build"); err != nil {
		return err
	}
	return os.RemoveAll(sources)
}

// installPolicy gives the tree the policy that was built.
func (b *builder) installPolicy(policy, root string) error {
	for _, dir := range []string{policyConfig, policyStore} {
		if err := os.RemoveAll(filepath.Join(root, dir)); err != nil {
			return err
		}
		if err := b.run("cp", "-a", filepath.Join(policy, dir), filepath.Join(root, dir)); err != nil {
			return err
		}
	}
	return nil
}

// trimUnits leaves the units enabled that Flatcar has, without those that only cost time here.
func (b *builder) trimUnits(root string) error {
	units := filepath.Join(root, "usr/lib/systemd/system")
	var needless []string
	if b.suite != Trixie {
		needless = append(needless, filepath.Join(units, "systemd-confext.service.d/10-before-260.conf"))
	}
	for _, pattern := range []string{
		// Debian enables units by links in /etc; here presets and the links in /usr decide, as on Flatcar.
		"../../../../etc/systemd/system/*.wants", "../../../../etc/systemd/system/*.requires", "../../../../etc/systemd/system/*.service",
		"../system-preset/9[05]-*.preset",
		// Debian's relabelling of the whole host: Flatcar has none, only /etc is labelled.
		"*/selinux-autorelabel-mark.service", "../system-generators/selinux-autorelabel-generator.sh",
		// Answers to questions that this machine does not ask: no TPM, no swap, no consoles, no stale caches.
		"*/systemd-firstboot.service", "*/systemd-pcr*", "*/systemd-tpm2*", "*/systemd-hibernate-clear.service", "*/systemd-battery-check.service",
		"*/systemd-hwdb-update.service", "*/systemd-journal-catalog-update.service", "*/ldconfig.service", "*/systemd-update-done.service",
		"*/systemd-sysusers.service", "*/systemd-binfmt.service", "*/proc-sys-fs-binfmt_misc.automount", "*/systemd-ask-password-*",
		"*/getty*", "*/dracut-*", "*/systemd-bsod.service", "*/sys-kernel-debug.mount", "*/sys-kernel-tracing.mount", "*/systemd-logind.service",
		"*/systemd-user-sessions.service", "*/systemd-creds.socket", "*/systemd-hostnamed.socket", "*/systemd-initctl.socket", "*/systemd-sysext.socket",
		"*/initrd-udevadm-cleanup-db.service", "systemd-udev-load-credentials.service", "*/systemd-random-seed.service", "*/sys-kernel-config.mount",
		"*/systemd-tmpfiles-setup-dev-early.service",
		// Debian's own: Flatcar has none.
		"*/run-lock.mount",
		// Locks of NFS before version 4, which none of the tests uses: it wants a portmapper.
		"rpc-statd.service", "rpc-statd-notify.service",
		"../system-generators/systemd-cryptsetup-generator", "../system-generators/systemd-veritysetup-generator", "../system-generators/systemd-integritysetup-generator",
		"../system-generators/systemd-ssh-generator", "../system-generators/systemd-tpm2-generator", "../system-generators/systemd-sysv-generator",
		"../system-generators/systemd-rc-local-generator", "../system-generators/systemd-hibernate-resume-generator",
		"../system-generators/systemd-gpt-auto-generator", "../system-generators/systemd-getty-generator",
		"../system-generators/systemd-system-update-generator", "../system-generators/systemd-factory-reset-generator",
	} {
		found, err := filepath.Glob(filepath.Join(units, pattern))
		if err != nil {
			return err
		}
		needless = append(needless, found...)
	}
	for _, path := range needless {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	for unit, target := range map[string]string{
		"vmtest-shell.service": "sysinit.target",
		"audit-rules.service":  "multi-user.target",
		"boot.automount":       "local-fs.target",
		// Without images, as on the older layouts, their conditions keep them from running.
		"systemd-confext.service": "sysinit.target",
		"systemd-sysext.service":  "sysinit.target",
	} {
		wants := filepath.Join(units, target+".wants")
		if err := os.MkdirAll(wants, 0o755); err != nil {
			return err
		}
		if err := os.Remove(filepath.Join(wants, unit)); err != nil && !os.IsNotExist(err) {
			return err
		}
		if err := os.Symlink("../"+unit, filepath.Join(wants, unit)); err != nil {
			return err
		}
	}
	return nil
}

// makeKernelAndInitrd takes the kernel out of its self-extracting wrapper and builds an initrd with Ignition's own dracut module, and with
// more modules of dracut if they are named.
func (b *builder) makeKernelAndInitrd(root, out string, more ...string) error {
	versions, err := filepath.Glob(filepath.Join(root, "usr/lib/modules/*"))
	if err != nil || len(versions) != 1 {
		return fmt.Errorf("cannot tell the kernel's version: found %q", versions)
	}
	version := filepath.Base(versions[0])
	// Unpacking a module takes the guest longer than reading it unpacked.
	if err := b.run("sh", "-c", `find "$0" -name '*.ko.xz' -print0 | xargs -0 -r -n 64 -P 2 xz -d`, versions[0]); err != nil {
		return err
	}
	if err := b.inRoot(root, "depmod", version); err != nil {
		return err
	}
	if err := b.unwrapKernel(filepath.Join(root, "boot/vmlinuz-"+version), filepath.Join(out, "vmlinux")); err != nil {
		return err
	}

	// No network in the initrd: the config comes from fw_cfg, and what the network modules need would double the initrd.
	setup := filepath.Join(root, "usr/lib/dracut/modules.d/30ignition/module-setup.sh")
	text, err := os.ReadFile(setup)
	if err != nil {
		return err
	}
	trimmed := strings.Replace(string(text), "qemu systemd url-lib network", "systemd", 1)
	if trimmed == string(text) {
		return errors.New("cannot take the network out of Ignition's dracut module: it no longer depends on what it did")
	}
	if err := os.WriteFile(setup, []byte(trimmed), 0o755); err != nil {
		return err
	}
	err = b.inRoot(root, "dracut", "--no-hostonly", "--no-early-microcode", "--no-compress", "--reproducible", "--kver", version,
		"--modules", strings.Join(append([]string{"bash systemd systemd-initrd udev-rules base ignition lookalike"}, more...), " "), "/boot/initrd")
	if err != nil {
		return err
	}
	return b.run("cp", filepath.Join(root, "boot/initrd"), filepath.Join(out, "initrd"))
}

// trimFiles removes what only makes the image larger.
func trimFiles(root string) error {
	for _, pattern := range []string{
		"usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/zoneinfo", "usr/share/bash-completion", "usr/share/perl*",
		"usr/lib/dracut", "usr/lib/initramfs-tools", "usr/share/initramfs-tools", "usr/lib/klibc*", "usr/lib/python3*", "usr/bin/python3*",
		"usr/share/python3", "usr/share/selinux", "usr/src", "usr/bin/make", "usr/bin/m4", "usr/lib/udev/hwdb.*", "usr/bin/docker-proxy", "usr/bin/containerd-shim",
		"usr/bin/containerd-shim-runc-v1", "usr/bin/ignition-validate", "usr/lib/x86_64-linux-gnu/perl*", "usr/bin/perl*", "usr/share/gcc", "usr/lib/apt",
		// It would run at each reload of systemd, in every test.
		"usr/lib/systemd/system-generators/podman-system-generator",
		"usr/lib/modules/*/kernel/drivers/infiniband", "usr/lib/modules/*/kernel/drivers/comedi", "usr/lib/modules/*/kernel/drivers/hid",
		"usr/lib/modules/*/kernel/arch/x86/kvm", "usr/lib/modules/*/kernel/drivers/cpufreq", "usr/lib/modules/*/kernel/drivers/ata",
		"etc/kernel", "etc/initramfs-tools", "etc/apt", "etc/dpkg", "etc/cron*", "etc/init.d", "etc/rc?.d", "etc/alternatives/README", "etc/logrotate.d",
		"etc/hostname", "etc/resolv.conf", "etc/fstab", "etc/python3*", "etc/dracut*", "etc/machine-id",
	} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return err
		}
		for _, path := range found {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// label gives /etc its labels, as Flatcar does. Nothing else has any.
func (b *builder) label(root string) error {
	rules := filepath.Join(root, "etc/audit/rules.d")
	if err := os.RemoveAll(rules); err != nil {
		return err
	}
	if err := b.run("cp", "-r", filepath.Join(root, "usr/share/audit/rules.d"), rules); err != nil {
		return err
	}
	if err := b.run("sh", "-c", `chmod 0750 "$0" && chmod 0640 "$0"/*`, rules); err != nil {
		return err
	}
	return b.inRoot(root, "setfiles", "-F", "/etc/selinux/"+policyType+"/contexts/files/file_contexts", "/etc")
}

// shapeLikeFlatcar moves everything that belongs to the operating system below /usr. What stays outside is not in the image.
func shapeLikeFlatcar(root string) error {
	for _, dir := range []string{"usr/share/flatcar", "usr/lib/selinux"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.Rename(filepath.Join(root, "etc"), filepath.Join(root, shippedEtc)); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(root, "var/lib/selinux"), filepath.Join(root, "usr/lib/selinux/policy")); err != nil {
		return err
	}
	return writeFile(filepath.Join(root, "usr/lib/tmpfiles.d/selinux.conf"),
		[]byte("L /var/lib/selinux/ - - - - ../../usr/lib/selinux/policy\n"), 0o644)
}

// selinuxPaths are the three entries that moved between /etc and /usr over the releases.
func selinuxPaths() []string { return []string{"config", policyType, "semanage.conf"} }

func auditRules() []string { return []string{"00-clear.rules", "80-selinux.rules", "99-default.rules"} }

// shapeLayout changes the tree into the given layout, from the next newer one.
func (b *builder) shapeLayout(root string, layout Layout) error {
	etc, usr := filepath.Join(root, shippedEtc), filepath.Join(root, "usr/lib/selinux")
	switch layout {
	case Confext:
		for _, name := range selinuxPaths() {
			if err := os.Symlink("../../share/flatcar/etc/selinux/"+name, filepath.Join(usr, name)); err != nil {
				return err
			}
		}
		if err := b.makeSysexts(root); err != nil {
			return err
		}
		return b.makeConfext(root)
	case Today:
		if err := b.withoutSysexts(root); err != nil {
			return err
		}
		return os.RemoveAll(filepath.Join(root, confexts))
	case SymlinkEra:
		for _, name := range selinuxPaths() {
			if err := os.Remove(filepath.Join(usr, name)); err != nil {
				return err
			}
			if err := os.Rename(filepath.Join(etc, "selinux", name), filepath.Join(usr, name)); err != nil {
				return err
			}
			if err := os.Symlink("../../usr/lib/selinux/"+name, filepath.Join(etc, "selinux", name)); err != nil {
				return err
			}
		}
		for _, name := range auditRules() {
			if err := os.Remove(filepath.Join(etc, "audit/rules.d", name)); err != nil {
				return err
			}
			if err := os.Symlink("../../../usr/share/audit/rules.d/"+name, filepath.Join(etc, "audit/rules.d", name)); err != nil {
				return err
			}
		}
	case LTS2023:
		var rules strings.Builder
		rules.WriteString("L /var/lib/selinux/ - - - - ../../usr/lib/selinux/policy\n")
		rules.WriteString("d /etc/selinux 0755\nd /etc/audit 0750\nd /etc/audit/rules.d 0750\n")
		for _, name := range selinuxPaths() {
			fmt.Fprintf(&rules, "L /etc/selinux/%s - - - - ../../usr/lib/selinux/%s\n", name, name)
		}
		for _, name := range auditRules() {
			fmt.Fprintf(&rules, "L /etc/audit/rules.d/%s - - - - ../../../usr/share/audit/rules.d/%s\n", name, name)
		}
		return writeFile(filepath.Join(root, "usr/lib/tmpfiles.d/selinux.conf"), []byte(rules.String()), 0o644)
	}
	return nil
}

// shippedSysexts are the system extension images that the operating system ships, with what of the tree is in each.
func shippedSysexts() map[string][]string {
	return map[string][]string{
		"containerd-flatcar": {"bin/containerd*", "bin/ctr", "bin/runc", "sbin/runc", "lib/systemd/system/containerd.service"},
		"docker-flatcar":     {"bin/docker*", "sbin/docker*", "lib/systemd/system/docker.service", "lib/systemd/system/docker.socket"},
	}
}

// extensionTree is where what is in a system extension image stays, beside the tree, for the older layouts.
func extensionTree(root, name string) string { return root + "-" + name }

// makeSysexts moves the container runtimes out of the tree into system extension images, which links in /etc have merged into /usr again: so
// Flatcar ships them.
func (b *builder) makeSysexts(root string) error {
	for name, patterns := range shippedSysexts() {
		tree := extensionTree(root, name)
		for _, pattern := range patterns {
			found, err := filepath.Glob(filepath.Join(root, "usr", pattern))
			if err != nil {
				return err
			}
			for _, from := range found {
				to := tree + strings.TrimPrefix(from, root)
				if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
					return err
				}
				if err := os.Rename(from, to); err != nil {
					return err
				}
			}
		}
		if err := writeFile(filepath.Join(tree, "usr/lib/extension-release.d/extension-release."+name), []byte("ID=_any\n"), 0o644); err != nil {
			return err
		}
		image, link := "usr/share/flatcar/"+name+".raw", filepath.Join(root, shippedEtc, "extensions", name+".raw")
		if err := b.run("mksquashfs", tree, filepath.Join(root, image), "-quiet", "-no-progress", "-noappend", "-comp", "lz4"); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			return err
		}
		if err := os.Symlink("/"+image, link); err != nil {
			return err
		}
	}
	return b.inRoot(root, "setfiles", "-F", "-r", "/"+filepath.Dir(shippedEtc), "/"+filepath.Join(shippedEtc, "selinux", policyType, "contexts/files/file_contexts"), "/"+filepath.Join(shippedEtc, "extensions"))
}

// withoutSysexts undoes makeSysexts: the runtimes are part of /usr.
func (b *builder) withoutSysexts(root string) error {
	for name := range shippedSysexts() {
		tree := extensionTree(root, name)
		if err := os.RemoveAll(filepath.Join(tree, "usr/lib/extension-release.d")); err != nil {
			return err
		}
		if err := b.run("cp", "-a", filepath.Join(tree, "usr"), root); err != nil {
			return err
		}
		for _, path := range []string{tree, filepath.Join(root, "usr/share/flatcar", name+".raw")} {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(filepath.Join(root, shippedEtc, "extensions"))
}

// makeConfext makes the image that /etc comes from. The tree of the shipped /etc stays beside it, as on Flatcar: older links lead there, and
// the clean-up of the upper layer compares with it.
func (b *builder) makeConfext(root string) error {
	dir := filepath.Join(root, confexts)
	tree := filepath.Join(dir, shippedImage)
	if err := os.MkdirAll(tree, 0o755); err != nil {
		return err
	}
	if err := b.run("cp", "-a", filepath.Join(root, shippedEtc), filepath.Join(tree, "etc")); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(tree, "etc/extension-release.d/extension-release."+shippedImage), []byte("ID=_any\n"), 0o644); err != nil {
		return err
	}
	if err := b.run("mksquashfs", tree, tree+".raw", "-quiet", "-no-progress", "-noappend"); err != nil {
		return err
	}
	return os.RemoveAll(tree)
}

// makeFileSystems writes the /usr and ROOT images of one layout.
func (b *builder) makeFileSystems(root, out string, layout Layout) error {
	skeleton := filepath.Join(out, "root-skeleton")
	if err := os.RemoveAll(skeleton); err != nil {
		return err
	}
	for _, dir := range []string{"etc", "usr"} {
		if err := os.MkdirAll(filepath.Join(skeleton, dir), 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+name, filepath.Join(skeleton, name)); err != nil {
			return err
		}
	}
	etc := filepath.Join(root, shippedEtc)
	if layout == LTS2023 {
		// No lower layer: the shipped /etc is on ROOT, and so is not in /usr.
		if err := os.Remove(filepath.Join(skeleton, "etc")); err != nil {
			return err
		}
		if err := os.Rename(etc, filepath.Join(skeleton, "etc")); err != nil {
			return err
		}
	} else if err := copyLabel(etc, filepath.Join(skeleton, "etc")); err != nil {
		// The merged directory's own label is the upper layer's.
		return err
	}

	usr := filepath.Join(out, "usr-"+string(layout)+".img")
	if err := b.run("mkfs.btrfs", "-q", "--label", "USR", "--shrink", "--rootdir", filepath.Join(root, "usr"), usr); err != nil {
		return err
	}
	image := filepath.Join(out, "root-"+string(layout)+".img")
	if err := b.run("truncate", "-s", "6G", image); err != nil {
		return err
	}
	if err := b.run("mkfs.ext4", "-q", "-L", "ROOT", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-d", skeleton, image); err != nil {
		return err
	}
	return os.RemoveAll(skeleton)
}

func copyLabel(from, to string) error {
	label := make([]byte, 256)
	n, err := syscall.Getxattr(from, "security.selinux", label)
	if err != nil {
		return fmt.Errorf("cannot read the label of %s: %w", from, err)
	}
	if err := syscall.Setxattr(to, "security.selinux", label[:n], 0); err != nil {
		return fmt.Errorf("cannot label %s: %w", to, err)
	}
	return nil
}

// makeBootFS makes the file system that a boot loader reads, of sizeKB KiB: the first-boot flag, and files by their names below flatcar.
func (b *builder) makeBootFS(image string, sizeKB int, files map[string]string, options ...string) error {
	if err := b.run("mkfs.vfat", append(options, "-C", "-n", "EFI-SYSTEM", image, strconv.Itoa(sizeKB))...); err != nil {
		return err
	}
	if err := b.run("mmd", "-i", image, "::/flatcar"); err != nil {
		return err
	}
	for name, file := range files {
		if err := b.run("mcopy", "-i", image, file, "::/flatcar/"+name); err != nil {
			return err
		}
	}
	return b.run("mcopy", "-i", image, os.DevNull, "::/flatcar/first_boot")
}
