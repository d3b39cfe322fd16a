package policystore

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/filecontexts"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
	"github.com/selinux-provision/selinux-provision/relabel"
)

// What is relabelled when a file context is declared, changes, goes, or the vendor's policy changes: what it stands for, and never what
// somebody else labels or what is the system's as a whole.
func TestRelabelPaths(t *testing.T) {
	fc := func(name, context string) FileContext { return FileContext{Path: name, Type: "any", Context: context} }
	const files, other = "system_u:object_r:container_file_t:s0:c2,c1", "system_u:object_r:etc_t:s0"
	was := secontext.Context(files).CIL()
	for _, c := range []struct {
		what       string
		had, wants []FileContext
		left       []Relabel
		builtFrom  string // the vendor's policy of the last build, if it is not this one; "-": there was none
		want       []Relabel
	}{
		{what: "nothing", had: []FileContext{fc("/srv/a", files)}, wants: []FileContext{fc("/srv/a", files)}},
		{what: "new", wants: []FileContext{fc("/srv/b(/.*)?", files), fc("/srv/a[0-9]+", other)},
			want: []Relabel{{Path: "/srv", Begins: "a", Declared: true}, {Path: "/srv/b", Declared: true}}},
		{what: "another context", had: []FileContext{fc("/srv/a", files)}, wants: []FileContext{fc("/srv/a", other)},
			want: []Relabel{{Path: "/srv/a", Declared: true, Was: []string{was}}}},
		{what: "taken back", had: []FileContext{fc("/srv/a(/.*)?", files)}, want: []Relabel{{Path: "/srv/a", Declared: true, Was: []string{was}}}},
		{what: "another vendor's policy", had: []FileContext{fc("/srv/a", files)}, wants: []FileContext{fc("/srv/a", files), fc("/srv/a/b", other)}, builtFrom: "w",
			want: []Relabel{{Path: "/srv/a"}, {Path: "/srv/a/b", Declared: true}}},
		{what: "the first of all", wants: []FileContext{fc("/a", files)}, builtFrom: "-", want: []Relabel{{Path: "/a", Declared: true}}},
		{what: "not done by an earlier run", left: []Relabel{{Path: "/srv/a", Was: []string{was}, Reason: "x"}}, wants: []FileContext{fc("/srv/a", other)},
			want: []Relabel{{Path: "/srv/a", Declared: true, Was: []string{was}, Reason: "x"}}},
		{what: "an earlier version's", left: []Relabel{{Path: "/var/lib/docker", Declared: true}}},
		{what: "what is not ours to label", wants: []FileContext{
			fc("/var/lib/kubelet(/.*)?", files), fc("/var/lib/docker(/.*)?", files), fc("/var/lib/docker/volumes(/.*)?", files), fc("/var/lib/containerd(/.*)?", files),
			fc("/var/lib/containers(/.*)?", files), fc("/var/lib/kubelet/pods(/.*)?", files), fc("/run/containerd(/.*)?", files), fc("/var/log(/.*)?", files),
			fc("/mnt(/.*)?", files), fc("/srv(/.*)?", files), fc("/bin(/.*)?", files), fc("/usr/local(/.*)?", files), fc("/.*", files), fc("/etc(/.*)?", files),
			fc("/srv/.*", files), fc("/srv/x|/srv/y", files), fc("/var/lib/rancher(/.*)?", files), fc("/proc/sys", files)}},
	} {
		rec := &Record{Vendor: "v", Policy: PolicyRecord{Vendor: "v", Relabel: c.left}}
		if c.builtFrom != "" {
			rec.Policy.Vendor = strings.Trim(c.builtFrom, "-")
		}
		for _, h := range c.had {
			rec.Policy.FileContexts = append(rec.Policy.FileContexts, strings.TrimSpace(filecon(h)))
		}
		if got := relabelPaths(rec, Declared{FileContexts: c.wants}); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\ngot  %#v\nwant %#v", c.what, got, c.want)
		}
	}
}

const fileContexts = `/.*	system_u:object_r:default_t:s0
/srv(/.*)?	system_u:object_r:srv_t:s0
/srv/data(/.*)?	system_u:object_r:container_file_t:s0:c5
/srv/data/none(/.*)?	<<none>>
/srv/data/(?!x)look	system_u:object_r:look_t:s0
/srv/wide-[0-9]+(/.*)?	system_u:object_r:wide_t:s0
`

func labelsOf(t *testing.T, root *hostfs.Root) *labels {
	t.Helper()
	contexts := filecontexts.New()
	if err := contexts.Add("file_contexts", strings.NewReader(fileContexts)); err != nil {
		t.Fatal(err)
	}
	canonical := func(context string) string {
		return strings.Replace(context, ":svirt_sandbox_file_t:", ":container_file_t:", 1)
	}
	return &labels{root: root, contexts: contexts, containers: []string{"container_file_t", "container_ro_file_t"}, canonical: canonical,
		declared: map[string]bool{"/srv/data(/.*)?": true, "/srv/data/none(/.*)?": true, "/srv/wide-[0-9]+(/.*)?": true}}
}

// What a declared file context decides about gets it in full when it has changed; anything else keeps what a container gave to it.
func TestDeclaredLabels(t *testing.T) {
	const (
		z        = "system_u:object_r:container_file_t:s0"
		own      = "system_u:object_r:container_file_t:s0:c1,c2"
		declared = "system_u:object_r:container_file_t:s0:c5"
	)
	was := []string{"(system_u object_r svirt_sandbox_file_t ((s0) (s0)))"}
	for _, c := range []struct {
		what, path, current string
		todo                Relabel
		want                string
		leave               relabel.Reason
	}{
		{what: "declared", path: "/srv/data/x", current: "u:r:old_t:s0", todo: Relabel{Declared: true}, want: declared},
		{what: "declared, and a container has labelled it", path: "/srv/data/x", current: own, todo: Relabel{Declared: true}, want: declared},
		{what: "another vendor's policy, and a container has labelled it", path: "/srv/data/x", current: own, want: own},
		{what: "another vendor's policy, and another type", path: "/srv/data/x", current: "u:r:old_t:s0:c9", want: "u:r:container_file_t:s0:c9"},
		{what: "not declared", path: "/srv/other", current: "u:r:old_t:s0:c9", todo: Relabel{Declared: true}, want: "u:r:srv_t:s0:c9"},
		{what: "not declared, shared by containers", path: "/srv/other", current: z, todo: Relabel{Declared: true}, leave: relabel.Customized},
		{what: "not declared, a container's own", path: "/srv/other", current: own, todo: Relabel{Declared: true}, leave: relabel.Customized},
		{what: "declared no more", path: "/srv/other", current: z, todo: Relabel{Declared: true, Was: was}, want: "system_u:object_r:srv_t:s0"},
		{what: "declared no more, a container's own", path: "/srv/other", current: own, todo: Relabel{Declared: true, Was: was}, leave: relabel.Customized},
		{what: "declared to have none", path: "/srv/data/none/x", current: own, todo: Relabel{Declared: true}, leave: relabel.NoContext},
		{what: "nobody knows", path: "/srv/data/look", current: own, todo: Relabel{Declared: true}, leave: relabel.Customized},
		{what: "nobody knows, and no container's", path: "/srv/data/look", current: "u:r:old_t:s0", todo: Relabel{Declared: true}, leave: relabel.Unusable},
		{what: "the kubelet's", path: "/var/lib/kubelet/pods/x", current: own, todo: Relabel{Declared: true}, leave: relabel.Owned},
		{what: "Docker's, elsewhere", path: "/srv/data/docker/x", current: own, todo: Relabel{Declared: true}, leave: relabel.Owned},
		{what: "no label", path: "/srv/other", todo: Relabel{Declared: true}, want: "system_u:object_r:srv_t:s0"},
	} {
		got, leave := labelsOf(t, nil).forTree([]string{"/srv/data/docker"}, c.todo).Want(c.path, relabel.Regular, c.current)
		if got != c.want || leave != c.leave {
			t.Errorf("%s: %q, %q; want %q, %q", c.what, got, leave, c.want, c.leave)
		}
		// Deep below, what is said step by step is what is said of the whole path.
		labels := labelsOf(t, nil).forTree([]string{"/srv/data/docker"}, c.todo).(relabel.Descender)
		dir := path.Dir(c.path) + strings.Repeat("/deeper", 10)
		in := labels.Inside(dir)
		for range 3 {
			if got, leave = labels.Want(dir+"/x", relabel.Regular, c.current); in == nil {
				t.Fatalf("%s: nothing is said inside of %s", c.what, dir)
			}
			if is, left := in.Want("x", relabel.Regular, c.current); is != got || left != leave {
				t.Errorf("%s, in %s: %q, %q; want %q, %q", c.what, dir, is, left, got, leave)
			}
			dir, in = dir+"/deeper", in.Enter("deeper")
		}
	}
}

// Trees are labelled as declared, read back, and nothing beside them is touched: no mount, no other name of a file, no runtime's directory.
//
// Proves P5: what is counted as labelled was read back.
func TestLabelsApply(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	at := func(name string) string { return filepath.Join(dir, name) }
	label := func(name string) string {
		buf := make([]byte, 256)
		n, err := unix.Lgetxattr(at(name), "security.selinux", buf)
		if err != nil {
			return ""
		}
		return strings.TrimRight(string(buf[:n]), "\x00")
	}
	const own = "system_u:object_r:container_file_t:s0:c1,c2"
	for name, has := range map[string]string{
		"srv/data/file": "u:r:old_t:s0", "srv/data/own": own, "srv/data/docker/overlay2/x": own, "srv/wide-1/x": own, "srv/wide-x/x": own, "srv/beside": "u:r:old_t:s0",
		"srv/data/mount/x": "u:r:old_t:s0", "elsewhere": "u:r:old_t:s0", "opt/target/x": "u:r:old_t:s0", "var/lib/kubelet/x": own,
		"srv/data/moved/x": own, "var/lib/containerd/x": own,
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(at(name)), 0o755), os.WriteFile(at(name), nil, 0o644),
			unix.Lsetxattr(at(name), "security.selinux", []byte(has), 0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("/srv/data/docker", at("var/lib/docker")), os.Symlink("/opt/target", at("srv/wide-2")), os.Symlink("/var/lib/kubelet", at("srv/wide-3")),
		unix.Mount("none", at("srv/data/mount"), "tmpfs", 0, ""), unix.Mount(at("srv/data/moved"), at("var/lib/containerd"), "", unix.MS_BIND, "")); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = errors.Join(unix.Unmount(at("srv/data/mount"), unix.MNT_DETACH), unix.Unmount(at("var/lib/containerd"), unix.MNT_DETACH))
	}()
	l := labelsOf(t, root)
	done, err := l.apply(t.Context(), Relabel{Path: "/srv/data", Declared: true})
	if err != nil || !strings.HasPrefix(done, "relabelled 5 of 10 entries; 5 left as ") || !strings.Contains(done, "1 mounts below it") || !strings.Contains(done, "look") {
		t.Errorf("%q, %v", done, err)
	}
	if done, err := l.apply(t.Context(), Relabel{Path: "/srv", Begins: "wide-", Declared: true}); err != nil || !strings.HasPrefix(done, "relabelled ") {
		t.Errorf("%q, %v", done, err)
	}
	for _, path := range []string{"/srv/nothing", "/srv/beside/no-directory"} {
		if done, err := l.apply(t.Context(), Relabel{Path: path}); err != nil || !strings.HasPrefix(done, "relabelled 0 of 0") {
			t.Errorf("%s: %q, %v", path, done, err)
		}
	}
	for _, path := range []string{"/var/lib/docker", "/var/lib/kubelet", "/srv/data/moved"} {
		if done, err := l.apply(t.Context(), Relabel{Path: path, Declared: true}); err != nil || !strings.Contains(done, "a container runtime's") {
			t.Errorf("%s: %q, %v", path, done, err)
		}
	}
	for name, want := range map[string]string{
		"srv/data": "system_u:object_r:container_file_t:s0:c5", "srv/data/file": "system_u:object_r:container_file_t:s0:c5", "srv/data/own": "system_u:object_r:container_file_t:s0:c5",
		"srv/data/docker/overlay2/x": own, "srv/data/moved/x": own, "srv/data/mount": "", "srv/beside": "u:r:old_t:s0", "srv/wide-1/x": "system_u:object_r:wide_t:s0", "srv/wide-x/x": own,
		"srv/wide-2": "system_u:object_r:wide_t:s0", "opt/target/x": "u:r:old_t:s0", "var/lib/kubelet/x": own,
	} {
		if got := label(name); got != want {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
	}

	// A file that may have a name elsewhere is nobody's to label by one of its names, and that is said.
	if err := os.Link(at("elsewhere"), at("srv/data/name")); err != nil {
		t.Fatal(err)
	}
	if done, err := l.apply(t.Context(), Relabel{Path: "/srv/data", Declared: true}); err == nil || !strings.Contains(err.Error(), "1 files have another name") {
		t.Errorf("%q, %v", done, err)
	}
	if got := label("elsewhere"); got != "u:r:old_t:s0" {
		t.Errorf("a file outside has %q", got)
	}
}
