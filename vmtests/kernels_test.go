//go:build more

package vmtests

import (
	"slices"
	"testing"
)

// TestOlderKernels is the main job on kernels that are older than those of Flatcar's LTS releases, or between them: from Ignition to
// enforcing, a second boot with nothing to do, units under their system-call filters, volumes by both ways, trees labelled, denials told.
//
// Proves P4: with kernels 5.10 and 6.1.
// Proves P6: with kernels 5.10 and 6.1.
// Proves V17: with kernels 5.10 and 6.1.
func TestOlderKernels(t *testing.T) {
	t.Parallel()
	for kernel, version := range map[Kernel]string{Bookworm: "6.1", Bullseye: "5.10"} {
		t.Run(version, func(t *testing.T) {
			m := Start(t, Options{Kernel: kernel, Ignition: withDocker(t), Allowed: []Allowed{transitionDenied()}})
			m.expect(t, "the kernel", "uname -r | grep -o '^[0-9]*[.][0-9]*'", version)
			m.goodState(t)
			m.containersLast(t)
			m.denialIsLogged(t)
			m.reboot(t)
			m.unchanged(t)
			m.goodState(t)
			// What this machine's xfsprogs make, the oldest of the kernels cannot mount.
			m.mountAll(t, slices.DeleteFunc(scenarios(), func(s scenario) bool {
				return !slices.Contains([]string{"ext4-auto", "ext4-context", "ext4-relabel", "ext4-relabel-categories", "ext4-alias", "ext4-paths", "ext4-busy-auto",
					"ext4-denied", "vfat-auto", "tmpfs-auto", "overlay-auto", "btrfs-auto", "fuse-auto", "bind", "undeclared"}, s.name)
			}), "")
			m.Must(t, "mkdir -p /srv/tree/a && touch /srv/tree/a/f && /opt/bin/selinux-provision relabel /srv/tree --context default --verify")
			m.expect(t, "the tree's labels", "stat -c %C /srv/tree /srv/tree/a/f", shared+"\n"+shared)
			t.Log(m.Must(t, "/opt/bin/selinux-provision denials --boot; /opt/bin/selinux-provision readiness; true"))
		})
	}
}
