package mountwatch

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/fusetest"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/mountwatch/judge"
)

// served mounts a file system whose server can stop answering.
func (h *host) served(name string) *fusetest.Server {
	h.t.Helper()
	point := filepath.Join(h.dir, name)
	if err := os.MkdirAll(point, 0o755); err != nil {
		h.t.Fatal(err)
	}
	return fusetest.Mount(h.t, point)
}

// Volumes whose servers hang keep nobody else from a label, nor the watcher from being ready or from ending; and they get theirs when their
// servers answer again. It does not matter whether they hang from the beginning, or in the middle of being labelled, or were labelled before.
//
// Proves V17.
func TestServersThatHang(t *testing.T) {
	const many = maxRelabels + 2
	var rules []judge.Rule
	for i := range many {
		rules = append(rules, relabelRule(fmt.Sprint("hangs", i)))
	}
	h := newHost(t, append(rules, relabelRule("data"), relabelRule("before"))...)
	h.patience = time.Second
	var servers []*fusetest.Server
	for i := range many {
		servers = append(servers, h.served(fmt.Sprint("hangs", i)))
	}
	before := h.served("before")
	h.start()
	for i := range many {
		h.eventually(filepath.Join(h.dir, fmt.Sprint("hangs", i)), Labelled)
	}
	h.eventually(before.Dir, Labelled)
	h.halt()

	// Nothing is known of them any more, but for the one.
	record := LoadRecord(h.root)
	record.Done = slices.DeleteFunc(record.Done, func(d Done) bool { return d.FileSystem != identityAt(t, before.Dir) })
	record.Volumes = nil
	if err := record.save(h.root); err != nil {
		t.Fatal(err)
	}
	for _, s := range append(servers, before) {
		s.Hang()
	}
	h.start()
	for i := range many {
		h.eventually(servers[i].Dir, Refused)
	}
	if v := h.eventually(before.Dir, Refused); v.Code != judge.CodeNoAnswer {
		t.Errorf("%+v", v)
	}
	point := h.mount("data")
	h.fill(point, 50)
	h.eventually(point, Labelled)
	// While one look is away, nobody is sent after it.
	asked := servers[0].Asked()
	h.reload <- struct{}{}
	h.mount("other")
	if got := servers[0].Asked(); got != asked {
		t.Errorf("asked %d times more", got-asked)
	}
	all, err := lookAt(t.Context(), h.root, judge.Host{SELinux: true, DefaultContext: shared}, h.config, mounts.NewTable(h.source.pick(mounted(t))))
	if err != nil || !slices.ContainsFunc(all, func(v Volume) bool { return v.Mountpoint == before.Dir && v.Code == judge.CodeNoAnswer }) {
		t.Errorf("%v, %+v", err, all)
	}
	begin := time.Now()
	h.halt()
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it took %s to end", took)
	}

	h.start()
	for _, s := range append(servers, before) {
		s.Answer()
	}
	for _, s := range append(servers, before) {
		h.eventually(s.Dir, Labelled)
	}
}

// mounted is the mount table as it is now.
func mounted(t *testing.T) []*mounts.Mount {
	t.Helper()
	source, err := mounts.Open(false)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	if _, err := source.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	return source.Table().All()
}

func identityAt(t *testing.T, point string) string {
	t.Helper()
	for _, m := range mounted(t) {
		if m.Mountpoint == point {
			return identity(m, mounts.Names{})
		}
	}
	t.Fatalf("%s is not mounted", point)
	return ""
}

// A server that hangs in the middle of a relabelling gives its turn to others, and the relabelling goes on when it answers.
func TestServerThatHangsInTheMiddle(t *testing.T) {
	h := newHost(t, relabelRule("*"))
	h.patience = time.Second
	var servers []*fusetest.Server
	h.heard = func(e Event) {
		if e.Kind == RelabelStarted {
			for _, s := range servers {
				if s.Dir == e.Volume.Mountpoint {
					s.Hang()
				}
			}
		}
	}
	for i := range maxRelabels {
		servers = append(servers, h.served(fmt.Sprint("a", i)))
	}
	h.start()
	point := h.mount("data")
	h.eventually(point, Labelled)
	for _, s := range servers {
		if v := h.eventually(s.Dir, Refused); v.Code != judge.CodeNoAnswer {
			t.Errorf("%+v", v)
		}
	}
	h.mu.Lock()
	h.heard = nil
	h.mu.Unlock()
	for _, s := range servers {
		s.Answer()
		h.eventually(s.Dir, Labelled)
	}
}
