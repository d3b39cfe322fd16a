package findings_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/avc/collect"
	"github.com/selinux-provision/selinux-provision/avc/findings"
	"github.com/selinux-provision/selinux-provision/avc/judge"
	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/fusetest"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/mounttest"
	"github.com/selinux-provision/selinux-provision/internal/policytest"
)

// On a host the labels are looked at that files have today, and no file system is waited for that does not answer; a log that is given to be read may be
// another host's.
//
// Proves V19.
func TestLabelsOfToday(t *testing.T) {
	if !mounttest.Alone(t) {
		return
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	tree := flatcartest.New(t, flatcartest.Today)
	policytest.AddTo(t, tree, nil)
	tree.Write("etc/selinux/mcs/contexts/files/file_contexts", "/.*\tsystem_u:object_r:default_t:s0\n/(disk|served)/.*\tsystem_u:object_r:container_file_t:s0\n")
	var log strings.Builder
	for i, name := range []string{"/disk/right", "/disk/wrong", "/served/x"} {
		fmt.Fprintf(&log, `type=AVC msg=audit(1700000000.001:%d): avc:  denied  { read } for  pid=7 comm="cat" path="%s" dev="x" ino=9 `+
			"scontext=system_u:system_r:container_reader_t:s0 tcontext=system_u:object_r:etc_t:s0 tclass=file permissive=1\n", i+5, name)
	}
	tree.Write("var/log/audit/audit.log", log.String())
	image := filepath.Join(t.TempDir(), "image")
	do(os.WriteFile(image, nil, 0o600))
	do(os.Truncate(image, 16<<20))
	for _, dir := range []string{"disk", "served", "proc"} {
		do(os.MkdirAll(filepath.Join(tree.Dir, dir), 0o755))
	}
	for _, argv := range [][]string{{"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, filepath.Join(tree.Dir, "disk")}, {"mount", "-t", "proc", "proc", filepath.Join(tree.Dir, "proc")}} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", argv, err, out)
		}
	}
	for name, label := range map[string]string{"right": "system_u:object_r:container_file_t:s0", "wrong": "system_u:object_r:etc_t:s0"} {
		file := filepath.Join(tree.Dir, "disk", name)
		do(os.WriteFile(file, nil, 0o600))
		do(unix.Setxattr(file, "security.selinux", []byte(label+"\x00"), 0))
	}
	do(unix.Setxattr(filepath.Join(tree.Dir, "disk"), "security.selinux", []byte("system_u:object_r:container_file_t:s0\x00"), 0))
	server := fusetest.Mount(t, filepath.Join(tree.Dir, "served"))
	server.HangAll()
	// From here on the tree is the host.
	outside, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	do(err)
	do(unix.Chroot(tree.Dir))
	do(unix.Chdir("/"))
	t.Cleanup(func() {
		do(unix.Fchdir(outside))
		do(unix.Chroot("."))
		for _, dir := range []string{"disk", "proc"} {
			do(unix.Unmount(filepath.Join(tree.Dir, dir), unix.MNT_DETACH))
		}
	})
	root, err := hostfs.Open("/")
	do(err)
	defer root.Close()
	h := &findings.Host{Host: collect.Host{Root: root}}
	for _, c := range []struct {
		query findings.Query
		want  map[string]judge.Kind
	}{
		{findings.Query{}, map[string]judge.Kind{"/disk/right": judge.Nothing, "/disk/wrong": judge.Relabel, "/served/x": judge.Relabel}},
		{findings.Query{Input: strings.NewReader(log.String()), InputName: "a log"}, map[string]judge.Kind{"/disk/right": judge.Relabel, "/disk/wrong": judge.Relabel, "/served/x": judge.Relabel}},
	} {
		r, err := h.Gather(t.Context(), c.query)
		do(err)
		got := map[string]judge.Kind{}
		for _, f := range r.Findings {
			for _, p := range f.Paths {
				got[p.Path] = f.Fix.Kind
			}
			t.Logf("%s %s: %s", f.ID, f.Fix.Kind, f.Fix.Text)
		}
		for name, want := range c.want {
			if got[name] != want {
				t.Errorf("%s, input %s: %s, want %s", name, c.query.InputName, got[name], want)
			}
		}
	}
	if n := server.Asked(); n > 0 {
		t.Errorf("the server was asked %d times", n)
	}
}
