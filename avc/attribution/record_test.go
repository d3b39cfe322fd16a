package attribution

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// tree is a host whose files come and go.
type tree struct {
	*testing.T
	dir  string
	root *hostfs.Root
}

func newTree(t *testing.T) *tree {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "var/lib/selinux-provision"), 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return &tree{t, dir, root}
}

func (t *tree) write(name, content string) {
	t.Helper()
	file := filepath.Join(t.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (t *tree) remove(name string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(t.dir, name)); err != nil {
		t.Fatal(err)
	}
}

// remember has the host written down, and tells whether the file was.
func (t *tree) remember(at int64) bool {
	t.Helper()
	before, _ := os.Stat(filepath.Join(t.dir, recordFile))
	if err := New(t.root).Remember(time.Unix(at, 0)); err != nil {
		t.Fatal(err)
	}
	after, _ := os.Stat(filepath.Join(t.dir, recordFile))
	return before == nil && after != nil || before != nil && !os.SameFile(before, after)
}

func (t *tree) whose(level string, at int64) *Container {
	h := New(t.root)
	s := h.Subject(&avc.Denial{Source: avc.Context(label + level), Time: time.Unix(at, 0)})
	if s == (avc.Subject{}) {
		return &Container{}
	}
	c := *h.Container(s)
	c.Subject.Evidence = ""
	return &c
}

// What is known of a container stays known when it is gone, for the time in which it lived.
//
// Proves V19: containers that are gone.
func TestContainersThatAreGone(t *testing.T) {
	const task, log = "run/containerd/io.containerd.runtime.v2.task/k8s.io/", "var/log/containers/web_default_main-"
	h := newTree(t)
	if h.remember(900) {
		t.Error("a host without containers is written down")
	}
	h.write(task+id("1")+"/config.json", bundle("sandbox", "", "web", uuid, "container_t", "s0:c1,c2", "/none"))
	h.write(task+id("2")+"/config.json", bundle("container", "main", "web", uuid, "container_t", "s0:c1,c2", "/srv/main"))
	h.write("var/lib/docker/containers/"+id("3")+"/config.v2.json", docker("db", "s0:c3,c4"))
	alive, db := h.whose("s0:c1,c2", 1000), h.whose("s0:c3,c4", 1000)
	if !h.remember(1000) || h.remember(1600) {
		t.Error("it is to be written down once")
	}
	same := func(what, level string, at int64, want *Container) {
		t.Helper()
		if got := h.whose(level, at); got.Subject != want.Subject || !reflect.DeepEqual(got.Mounts, want.Mounts) {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	h.write(log+id("2")+".log", "")
	h.remove(task + id("2"))
	same("its log is there", "s0:c1,c2", 1000, alive)
	h.remove(log + id("2") + ".log")
	h.remove(task + id("1"))
	h.remove("var/lib/docker/containers")
	same("the pod is gone", "s0:c1,c2", 1000, alive)
	same("nobody has looked since", "s0:c3,c4", 1700, db)
	if !h.remember(2200) || h.remember(2800) {
		t.Error("that they are gone is to be written down once")
	}
	same("while it lived", "s0:c3,c4", 2000, db)
	same("after that", "s0:c3,c4", 3000, &Container{})
	same("long before", "s0:c3,c4", 10, &Container{})

	// The next one with its categories, and the same one again.
	h.write("var/lib/docker/containers/"+id("4")+"/config.v2.json", strings.Replace(docker("other", "s0:c3,c4"), "{", `{"Created":"1970-01-01T01:00:00Z",`, 1))
	other := h.whose("s0:c3,c4", 3700)
	if other.Subject.Container != "other" {
		t.Errorf("got %+v", other)
	}
	same("the one before", "s0:c3,c4", 2000, db)
	h.write("var/lib/docker/containers/"+id("3")+"/config.v2.json", docker("db", "s0:c3,c4"))
	h.remove("var/lib/docker/containers/" + id("4"))
	h.remember(4000)
	h.remove("var/lib/docker/containers")
	same("started again", "s0:c3,c4", 4100, db)

	for _, damaged := range []string{"", "{", `{"version":2,"containers":[{"id":"x"}]}`, "[]", `{"version":1,"containers":[{}]}`} {
		h.write(recordFile, damaged)
		same("a record that says "+damaged, "s0:c3,c4", 2000, &Container{})
	}
}

// The record has a size, whatever runs: those that live are kept, and the last that went.
func TestBoundsOfTheRecord(t *testing.T) {
	at := func(n int) time.Time { return time.Unix(int64(n), 0).UTC() }
	var r record
	for n := range maxRemembered + 20 {
		c := &Container{Label: label + "s0:c1,c2", Subject: avc.Subject{ID: fmt.Sprintf("%064d", n), Container: strings.Repeat("x", 1000)}}
		for m := range 100 {
			c.Mounts = append(c.Mounts, Mount{fmt.Sprint("/srv/", m), "/data"})
		}
		r = r.after(map[string]*Container{c.Subject.ID: c}, at(1000+n))
	}
	if len(r.Containers) != maxRemembered || !r.Containers[maxRemembered-1].To.IsZero() || r.Containers[0].ID != fmt.Sprintf("%064d", 20) {
		t.Errorf("%d are remembered, from %s to %+v", len(r.Containers), r.Containers[0].ID, r.Containers[maxRemembered-1])
	}
	if one := r.Containers[0]; len(one.Container) != maxText || len(one.Mounts) != maxMounts || !one.To.Equal(at(1021)) {
		t.Errorf("one is %d long and has %d mounts, until %s", len(one.Container), len(one.Mounts), one.To)
	}
	if r = r.after(nil, at(2000)); len(r.Containers) != maxRemembered {
		t.Errorf("%d are remembered after their end", len(r.Containers))
	}
	if r = r.after(nil, at(2000).Add(keptFor)); r.Containers != nil {
		t.Errorf("%d are remembered for ever", len(r.Containers))
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"containers":[{"id":"x","label":"a:b:c:s0:c1,c2","from":"2026-01-01T00:00:00Z"}]}`))
	f.Fuzz(func(_ *testing.T, content []byte) {
		parseRecord(content).after(map[string]*Container{"x": {Subject: avc.Subject{ID: "x"}}}, time.Unix(0, 0))
	})
}
