package vmtests

import "testing"

// etcMount is what the kernel says of /etc, without what is another number at each boot.
const etcMount = `findmnt -no SOURCE,FSTYPE,VFS-OPTIONS /etc; findmnt -no FS-OPTIONS /etc | tr , '\n' | grep upperdir; findmnt -no SOURCE,VFS-OPTIONS /etc/.systemd-confext`

// confextOf is the same for an /etc that systemd-confext merged with this upper layer.
func confextOf(upper string) string {
	return "confext overlay rw,nosuid,nodev,noexec,noatime\nupperdir=" + upper + "\nconfext[/.systemd-confext] ro,nosuid,nodev,noexec,noatime"
}

// TestConfext takes a machine whose /etc comes from systemd-confext through its first boot and the next: it is enforcing before the
// containers start, and from the start.
//
// Proves V7: a confext.
func TestConfext(t *testing.T) {
	t.Parallel()
	m := Start(t, Options{Suite: Forky, Layout: Confext, Ignition: withDocker(t)})
	t.Log(m.journal(t))
	m.expect(t, "/etc", etcMount, confextOf("/sysroot/etc"))
	m.goodState(t)
	m.containersLast(t)

	m.reboot(t)
	m.expect(t, "/etc after a reboot", etcMount, confextOf("/sysroot/etc"))
	m.unchanged(t)
	m.goodState(t)
	m.containersLast(t)
}
