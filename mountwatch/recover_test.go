package mountwatch

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/mounttest"
	"github.com/selinux-provision/selinux-provision/internal/systemd"
	"github.com/selinux-provision/selinux-provision/mountwatch/judge"
	"github.com/selinux-provision/selinux-provision/mountwatch/remount"
)

// device puts a new ext4 behind a loop device that stays when it is unmounted.
func (h *host) device(name string) (device, image string) {
	h.t.Helper()
	image = filepath.Join(h.t.TempDir(), name)
	h.run("truncate", "-s", "64M", image)
	h.run("mkfs.ext4", "-q", image)
	out, err := exec.Command("losetup", "--find", "--show", image).Output()
	if err != nil {
		h.t.Fatal(err)
	}
	device = strings.TrimSpace(string(out))
	h.t.Cleanup(func() { _ = exec.Command("losetup", "-d", device).Run() })
	return device, image
}

// interrupt mounts a device, and leaves what a watcher leaves that is killed when it has unmounted it.
func (h *host) interrupt(device, point string) (note string) {
	h.t.Helper()
	if err := os.MkdirAll(point, 0o755); err != nil {
		h.t.Fatal(err)
	}
	h.run("mount", "-o", "noatime", device, point)
	content, err := json.Marshal(noteOf(remount.Mounted(point), ""))
	if err != nil {
		h.t.Fatal(err)
	}
	h.run("umount", point)
	if err := h.root.MkdirAll(unmountedDir, 0o700); err != nil {
		h.t.Fatal(err)
	}
	note = noteName(point)
	if err := h.root.WriteFile(note, content, hostfs.Attributes{}); err != nil {
		h.t.Fatal(err)
	}
	return note
}

func (h *host) has(name string) bool {
	_, err := h.root.Lstat(name)
	return err == nil
}

// What was unmounted is mounted again, whatever letters are in its name, and whatever else is mounted in the same place.
//
// Proves V17.
func TestRecover(t *testing.T) {
	h := newHost(t, relabelRule("data"))
	device, _ := h.device("image")
	point := filepath.Join(h.dir, "no\xfftext\n")
	if err := os.MkdirAll(point, 0o755); err != nil {
		t.Fatal(err)
	}
	h.run("mount", "-t", "tmpfs", "below", point)
	note := h.interrupt(device, point)
	h.start()
	m := remount.Mounted(point)
	if m == nil || m.Source != device || !strings.Contains(m.Options, "noatime") {
		t.Errorf("%+v", m)
	}
	if got := h.kinds(); got != "recovered" || h.has(note) {
		t.Error(got, h.has(note))
	}
}

// The number of a device may be given to another file system before the next start.
//
// Proves V17.
func TestRecoverAnotherFileSystem(t *testing.T) {
	h := newHost(t, relabelRule("data"))
	device, _ := h.device("image")
	point := filepath.Join(h.dir, "point")
	note := h.interrupt(device, point)
	h.run("mkfs.ext4", "-q", "-F", device)
	h.start()
	if m := remount.Mounted(point); m != nil {
		t.Errorf("another file system was mounted: %+v", m)
	}
	if v := h.eventually(point, Failed); v.Code != CodeLost || !h.has(note) {
		t.Errorf("%+v, %v", v, h.has(note))
	}
	// Somebody mounts it by hand, and unmounts it later: that is not for the watcher to undo.
	h.run("mount", device, point)
	for range 500 {
		if !h.has(note) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	h.halt()
	h.run("umount", point)
	h.kinds()
	h.start()
	if m := remount.Mounted(point); m != nil || h.kinds() != "" {
		t.Errorf("%+v", m)
	}
}

// A volume that was hidden when it was judged is judged when it comes to light, and one that is being hidden is nobody's business any more.
//
// Proves V17.
func TestCovered(t *testing.T) {
	h := newHost(t, relabelRule("data"))
	point := h.mount("data")
	h.fill(point, 10)
	h.run("mount", "-t", "tmpfs", "cover", point)
	h.start()
	cover := h.eventually(point, Labelled)
	if cover.FSType != "tmpfs" {
		t.Errorf("%+v", cover)
	}
	h.run("umount", point)
	for range 1500 {
		if v := LoadRecord(h.root).Volumes; len(v) == 1 && v[0].FSType == "ext4" && v[0].State == Labelled {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	v := LoadRecord(h.root).Volumes
	if len(v) != 1 || v[0].FSType != "ext4" || v[0].State != Labelled {
		t.Fatalf("%+v", v)
	}
	h.run("mount", "-t", "tmpfs", "cover", point)
	for range 1500 {
		if v = LoadRecord(h.root).Volumes; len(v) == 1 && v[0].FSType == "tmpfs" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%+v", v)
}

// late is a source that shows its first table when it is told to.
type late struct {
	show  chan struct{}
	all   []*mounts.Mount
	table *mounts.Table
}

func (l *late) Next(ctx context.Context) (mounts.Change, error) {
	select {
	case <-l.show:
		l.table = mounts.NewTable(l.all)
		return mounts.Change{Appeared: l.all}, nil
	case <-ctx.Done():
		return mounts.Change{}, ctx.Err()
	}
}

func (l *late) Table() *mounts.Table { return l.table }

// A reload does not make the service ready before anything was looked at.
func TestReloadBeforeReady(t *testing.T) {
	dir := t.TempDir() // short enough for the name of a socket, which has room for 107 bytes
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: dir + "/s", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", dir+"/s")
	root, err := hostfs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	source := &late{show: make(chan struct{})}
	read := 0
	w := &Watcher{Root: root, Host: judge.Host{SELinux: true}, Source: source, Report: func(Event) {},
		Load: func() (Config, error) { read++; return Config{}, nil }}
	ctx, cancel := context.WithCancel(t.Context())
	reload, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- w.Run(ctx, reload) }()
	reload <- struct{}{}
	reload <- struct{}{} // is taken when the first is done
	buf := make([]byte, 4096)
	if err := socket.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := socket.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%q, %v", buf[:n], err)
	}
	source.show <- struct{}{}
	if err := socket.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := socket.Read(buf); err != nil || !strings.HasPrefix(string(buf[:n]), "READY=1\n") {
		t.Errorf("%q, %v", buf[:n], err)
	}
	cancel()
	if err := <-ended; err != nil || read != 3 {
		t.Error(err, read)
	}
}

// Who is stopped while a volume is unmounted asks for the time that it takes to mount it again.
func TestStopWaitsForTheMount(t *testing.T) {
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: t.TempDir() + "/s", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", socket.LocalAddr().String())
	root, err := hostfs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	source := &late{show: make(chan struct{}), all: []*mounts.Mount{{Unique: 7, ID: 7, Device: mounts.Device{Major: 4095, Minor: 77}, Root: "/",
		Mountpoint: "/srv/data", FSType: "ext4", Options: "rw", SuperOptions: "rw"}}}
	working, goOn := make(chan struct{}), make(chan struct{})
	begun := false
	w := &Watcher{Root: root, Host: judge.Host{SELinux: true, DefaultContext: shared}, Policy: policy{}, Source: source, Report: func(Event) {},
		Load: func() (Config, error) {
			return Config{Rules: []judge.Rule{{Name: "data", Match: judge.Match{Mountpoint: "/srv/data"}, Strategy: judge.Context}}}, nil
		},
		Systemd: func(context.Context) (*systemd.Mounts, error) {
			if !begun { // it looks at what systemd is told to mount
				begun = true
				return nil, errors.New("no systemd")
			}
			close(working)
			<-goOn
			return nil, errors.New("no systemd")
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx, nil) }()
	source.show <- struct{}{}
	<-working
	cancel()
	var got strings.Builder
	buf := make([]byte, 4096)
	if err := socket.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(got.String(), "EXTEND_TIMEOUT_USEC=900000000\n") {
		n, err := socket.Read(buf)
		if err != nil {
			t.Fatalf("%q, %v", got.String(), err)
		}
		got.Write(buf[:n])
	}
	if got.String() != "STOPPING=1\nEXTEND_TIMEOUT_USEC=900000000\n" {
		t.Errorf("%q", got.String())
	}
	select {
	case err := <-ended:
		t.Error("it ended before the mount was made", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(goOn)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A container in a mount namespace of its own that has the volume at another place keeps it, however its mounts follow those of the host, and the
// volume is not unmounted under it.
//
// Proves V17.
func TestRemountUnderAContainer(t *testing.T) {
	h := newHost(t)
	h.run("mount", "--bind", h.dir, h.dir)
	t.Cleanup(func() { unix.Unmount(h.dir, unix.MNT_DETACH) })
	h.run("mount", "--make-shared", h.dir)
	point := h.mount("data")
	m := remount.Mounted(point)
	v := &volume{Volume: Volume{Mountpoint: point, Context: shared}, mount: m}
	w := &Watcher{Root: h.root}
	for script, want := range map[string]error{"": nil, "mount -t tmpfs --make-private x /run; mkdir /run/c; mount --bind " + point + " /run/c; umount " + point: remount.ErrBusy} {
		container := mounttest.Begin(t, exec.Command("unshare", "--mount", "--propagation", "slave", "sh", "-ec", script+"\necho; read x || :"))
		if err := elsewhere(t.Context(), m); !errors.Is(err, want) {
			t.Errorf("%s: %v", script, err)
		}
		if want != nil {
			if unmounted, err := w.remount(t.Context(), v); unmounted || !errors.Is(err, want) {
				t.Errorf("%v, unmounted: %v", err, unmounted)
			}
			// Also one that has come since it was asked.
			if err := w.keep(t.Context(), m, ""); !errors.Is(err, want) || h.root.Exists(noteName(point)) {
				t.Error(err)
			}
		}
		if err := container.End(); err != nil {
			t.Error(err)
		}
	}
	if now := remount.Mounted(point); now == nil || now.ID != m.ID {
		t.Errorf("it was unmounted: %+v", now)
	}
}

// A volume that is unmounted at this moment is not "not mounted", and one that is lost is a failure.
func TestLookWhileUnmounted(t *testing.T) {
	h := newHost(t, relabelRule("data"))
	device, _ := h.device("image")
	point := filepath.Join(h.dir, "data")
	h.interrupt(device, point)
	look := func() Volume {
		t.Helper()
		all, err := lookAt(t.Context(), h.root, judge.Host{SELinux: true, DefaultContext: shared}, h.config, mounts.NewTable(nil))
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		return all[0]
	}
	if v := look(); v.State != Remounting || v.Rule != "data" || v.Mountpoint != point {
		t.Errorf("%+v", v)
	}
	record := Record{Version: 1, Volumes: []Volume{{Mountpoint: point, State: Failed, Code: CodeLost, Reason: "r", Remedy: "m"}}}
	if err := record.save(h.root); err != nil {
		t.Fatal(err)
	}
	if v := look(); v.State != Failed || v.Code != CodeLost || v.Rule != "data" {
		t.Errorf("%+v", v)
	}
	h.start()
	if v := h.eventually(point, Labelled); v.Rule != "data" {
		t.Errorf("%+v", v)
	}
}
