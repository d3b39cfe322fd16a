package mountwatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/command"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/systemd"
	"github.com/selinux-provision/selinux-provision/mountwatch/declared"
	"github.com/selinux-provision/selinux-provision/mountwatch/judge"
)

// A mount that could not be made with its context at first is not unmounted to be tried once more, until somebody asks. What the watcher was
// about to have mounted when it was killed is forgotten.
//
// Proves V17.
func TestFailedFirst(t *testing.T) {
	h := newHost(t, judge.Rule{Name: "a", Match: judge.Match{Mountpoint: "a"}, Strategy: judge.Context},
		judge.Rule{Name: "b", Match: judge.Match{Mountpoint: "b"}, Strategy: judge.Auto})
	unit := func(name string) string { return systemd.MountUnitName(filepath.Join(h.dir, name)) }
	for name, note := range map[string]firstNote{"a": {Context: shared, Failed: "the kernel says no"}, "b": {Context: shared, Failed: "the kernel says no"}, "cut-off": {Context: shared}} {
		if err := note.write(h.root, unit(name)); err != nil {
			t.Fatal(err)
		}
	}
	h.start()
	a, b := h.mount("a"), h.mount("b")
	v := h.eventually(a, Failed)
	if v.Code != CodeRemountFailed || v.Reason != mountedWithout+"the kernel says no" || v.Remedy == "" {
		t.Errorf("%+v", v)
	}
	if v := h.eventually(b, Labelled); v.How != byFiles { // there is another way
		t.Errorf("%+v", v)
	}
	if kinds := h.kinds(); strings.Contains(kinds, string(Remounted)) {
		t.Errorf("it was tried: %s", kinds)
	}
	for _, name := range []string{"a", "b", "cut-off"} {
		if _, left := readFirst(h.root, unit(name)); left {
			t.Errorf("the note for %s is still there", name)
		}
	}
	// A restart knows it from its record.
	h.halt()
	h.start()
	if v := h.eventually(a, Failed); v.Reason != mountedWithout+"the kernel says no" {
		t.Errorf("%+v", v)
	}
}

// What would be lost is never mounted again; why its first mount has no label is known from who made it.
func TestFailedFirstInMemory(t *testing.T) {
	h := newHost(t, contextRule("a"), contextRule("b"))
	if err := (firstNote{Context: shared, Failed: "the kernel says no"}).write(h.root, systemd.MountUnitName(filepath.Join(h.dir, "a"))); err != nil {
		t.Fatal(err)
	}
	h.remount = func(_ context.Context, v *volume) (bool, error) {
		t.Errorf("%s was to be mounted again", v.Mountpoint)
		return false, nil
	}
	for _, name := range []string{"a", "b"} {
		h.run("mount", "--mkdir", "-t", "tmpfs", "none", filepath.Join(h.dir, name))
	}
	h.start()
	if v := h.eventually(filepath.Join(h.dir, "a"), Failed); v.Code != CodeRemountFailed || v.Reason != mountedWithout+"the kernel says no" {
		t.Errorf("%+v", v)
	}
	if v := h.eventually(filepath.Join(h.dir, "b"), Refused); v.Code != judge.CodeNoRemount || !strings.Contains(v.Remedy, `-o context="`+shared+`"`) {
		t.Errorf("%+v", v)
	}
}

// A mount that came too late for its context is mounted again with it, once.
//
// Proves V17.
func TestLateFirst(t *testing.T) {
	h := newHost(t, judge.Rule{Name: "a", Match: judge.Match{Mountpoint: "a"}, Strategy: judge.Context})
	unit := systemd.MountUnitName(filepath.Join(h.dir, "a"))
	if err := (firstNote{Context: shared, Failed: "nobody answers", Late: true}).write(h.root, unit); err != nil {
		t.Fatal(err)
	}
	tries := make(chan string, 10)
	h.remount = func(_ context.Context, v *volume) (bool, error) {
		tries <- v.Context
		return false, errors.New("the kernel says no")
	}
	h.start()
	a := h.mount("a")
	if v := h.eventually(a, Failed); v.Code != CodeRemountFailed || !strings.Contains(v.Reason, "the kernel says no") {
		t.Errorf("%+v", v)
	}
	if _, left := readFirst(h.root, unit); left || len(tries) != 1 || <-tries != shared {
		t.Errorf("%d tries more; note left: %v", len(tries), left)
	}
}

// A refusal is told from a server that is not there yet: by the end of the time, or the words of what mount(8) starts.
func TestLate(t *testing.T) {
	says := func(stderr string) error {
		return fmt.Errorf("cannot mount: %w", &command.ExitError{Tool: "mount", Code: 32, Output: command.Output{Stderr: stderr}})
	}
	for text, want := range map[string]bool{
		"mount.nfs: Connection timed out":                                                        true,
		"mount.nfs: Connection refused for server:/x on /srv/a":                                  true,
		"mount.nfs: No route to host for 10.0.0.1:/x on /srv/a":                                  true,
		"mount.nfs: Network is unreachable":                                                      true,
		"mount.nfs: Failed to resolve server nas: Name or service not known":                     true,
		"mount.nfs: Failed to resolve server nas: Temporary failure in name resolution":          true,
		"mount error(113): could not connect to 10.0.0.1Unable to find suitable address.":        true,
		"mount error(115): Operation now in progress":                                            true,
		"mount error: could not resolve address for nas: Unknown error":                          true,
		"mount: /srv/a: mount(2) system call failed: Operation not permitted.":                   false,
		"mount.nfs: access denied by server while mounting server:/x":                            false,
		"mount error(13): Permission denied":                                                     false,
		"mount: /srv/a: wrong fs type, bad option, bad superblock on /dev/vdb":                   false,
		"mount: /srv/a: special device /dev/disk/by-label/data does not exist.":                  false,
		"mount.nfs: an incorrect mount option was specified for /srv/a: context=u:object_r:t:s0": false,
	} {
		if got := cameLate(says(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	if !cameLate(fmt.Errorf("cannot run mount: %w", command.ErrTimeout)) || cameLate(errNotWanted) || cameLate(nil) {
		t.Error("the end of the time is not told from others")
	}
}

// Before systemd mounts, its own limit counts; what was mounted already is not kept away for longer than a minute and a half.
func TestTryLimit(t *testing.T) {
	for _, c := range []struct {
		unit  time.Duration
		asked bool
		want  time.Duration
	}{
		{90 * time.Second, false, 90 * time.Second}, {10 * time.Second, false, 10 * time.Second}, {10 * time.Minute, false, 10 * time.Minute}, {0, false, withoutEnd},
		{10 * time.Second, true, 10 * time.Second}, {10 * time.Minute, true, firstLimit}, {0, true, firstLimit},
	} {
		if got := tryLimit(systemd.MountUnit{Limit: c.unit}, c.asked); got != c.want {
			t.Errorf("%v, asked for %v: %v, not %v", c.unit, c.asked, got, c.want)
		}
	}
	// The tools take it.
	if _, err := (command.Tools{Limit: withoutEnd}).Run(t.Context(), "true"); err != nil {
		t.Error(err)
	}
	ctx, stop := context.WithCancelCause(t.Context())
	time.AfterFunc(100*time.Millisecond, func() { stop(errNotWanted) })
	if _, err := (command.Tools{Limit: withoutEnd}).Run(ctx, "sleep", "600"); !errors.Is(err, errNotWanted) {
		t.Error(err)
	}
}

// A generator writes a drop-in for each mount unit that is to be labelled, and the unit that they call for; nothing that changes the mount.
func TestGenerate(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"etc/fstab": "LABEL=A /srv/a ext4 noatime 0 2\nLABEL=B /srv/link/b ext4\nLABEL=C /srv/c ext4 defcontext=u:r:t:s0\n//s/d /srv/d\\040e cifs username=CORP\\\\\\\\svc\n",
	} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "srv/real"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(dir, "srv/link")); err != nil {
		t.Fatal(err)
	}
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	config := Config{Rules: []judge.Rule{{Name: "all", Match: judge.Match{Mountpoint: "/srv/*"}, Strategy: judge.Auto}, {Name: "b", Match: judge.Match{Mountpoint: "/srv/real/b"}, Strategy: judge.Auto},
		{Name: "by-link", Match: judge.Match{Mountpoint: "/srv/link/b"}, Strategy: judge.Auto}}}
	host := judge.Host{SELinux: true, DefaultContext: shared}
	written, skipped, err := Generate(root, host, config, policy{}, "/out")
	if err != nil || written != 3 || len(skipped) != 1 || skipped[0].Reason != "it has defcontext=u:r:t:s0 of its own" {
		t.Error(written, skipped, err)
	}
	var made []string
	err = filepath.WalkDir(filepath.Join(dir, "out"), func(name string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			content, _ := os.ReadFile(name)
			if strings.Contains(string(content), "[Mount]") {
				t.Errorf("%s changes the mount:\n%s", name, content)
			}
			made = append(made, strings.TrimPrefix(name, dir+"/out/"))
		}
		return err
	})
	if want := "selinux-provision-mount@.service srv-a.mount.d/" + declared.DropInName + ` srv-d\x20e.mount.d/` + declared.DropInName + " srv-real-b.mount.d/" + declared.DropInName; err != nil || strings.Join(made, " ") != want {
		t.Errorf("%v %s", err, made)
	}
	// A rule that names a mount by way of a link can never be met, and that is said.
	volumes, err := lookAt(t.Context(), root, host, config, mounts.NewTable(nil))
	if err != nil || len(volumes) != 3 || volumes[0].Reason+volumes[1].Reason != "" || !strings.Contains(volumes[2].Reason, "leads through a link to /srv/real/b") || volumes[2].Remedy == "" {
		t.Errorf("%+v %v", volumes, err)
	}
}

// What systemd shows of a mount is taken as it is, but for bytes that it does not show.
func TestMountOf(t *testing.T) {
	unit := systemd.MountUnit{Name: "srv-a.mount", Exists: true, What: `/dev/disk/by-label/my\x20data`, Type: "ext4", Options: `a=CORP\svc,noauto,b=50%`, Files: []string{"/run/x"}}
	m, err := mountOf("/srv/a", unit)
	if err != nil || declared.Options(&m, shared) != `a=CORP\svc,b=50%,context="`+shared+`"` || m.What != unit.What || m.Source != "/run/x" {
		t.Errorf("%+v %v", m, err)
	}
	for name, change := range map[string]func(*systemd.MountUnit){
		"no such unit": func(u *systemd.MountUnit) { u.Exists = false }, "nothing": func(u *systemd.MountUnit) { u.What = "" }, "bytes": func(u *systemd.MountUnit) { u.Options = `a=\xff` },
	} {
		other := unit
		change(&other)
		if _, err := mountOf("/srv/a", other); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A mount is made in systemd's words: without -w, a volume on a write-protected device would be mounted read-only although its unit forbids that.
func TestMountCommand(t *testing.T) {
	m := declared.Mount{What: "/dev/vdb", Type: "ext4"}
	for _, c := range []struct {
		unit systemd.MountUnit
		kind string
		want string
	}{
		{systemd.MountUnit{}, "ext4", "mount /dev/vdb /srv/a -t ext4 -o ro"},
		{systemd.MountUnit{}, "", "mount /dev/vdb /srv/a -o ro"},
		{systemd.MountUnit{ReadWriteOnly: true}, "ext4", "mount /dev/vdb /srv/a -w -t ext4 -o ro"},
		{systemd.MountUnit{SloppyOptions: true, ReadWriteOnly: true}, "ext4", "mount /dev/vdb /srv/a -s -w -t ext4 -o ro"},
	} {
		m.Type = c.kind
		if got := strings.Join(mountCommand(m, c.unit, "/srv/a", "ro"), " "); got != c.want {
			t.Errorf("%+v:\ngot  %s\nwant %s", c.unit, got, c.want)
		}
	}
}

// What mount(8) makes of it on a write-protected device.
func TestReadWriteOnly(t *testing.T) {
	h := newHost(t)
	image, point := filepath.Join(t.TempDir(), "image"), filepath.Join(h.dir, "a")
	h.run("mkdir", point)
	h.run("truncate", "-s", "8M", image)
	h.run("mkfs.ext4", "-q", image)
	m := declared.Mount{What: h.output("losetup", "--find", "--show", "--read-only", image), Type: "ext4"}
	defer h.run("losetup", "--detach", m.What)
	for _, only := range []bool{true, false} {
		argv := mountCommand(m, systemd.MountUnit{ReadWriteOnly: only}, point, "noatime")
		if said, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); (err != nil) != only {
			t.Errorf("ReadWriteOnly %v: %v: %s", only, err, said)
		}
	}
	h.run("umount", point)
}
