package collect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/kernel"
	"github.com/selinux-provision/selinux-provision/internal/policytest"
)

func line(serial int) string {
	return fmt.Sprintf("type=AVC msg=audit(%d.000:%d): avc:  denied  { read } for  pid=%d scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=file permissive=0\n", 1700000000+serial, serial, serial)
}

func tree(t *testing.T, files map[string]string) *Host {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return &Host{Root: root}
}

// The audit daemon's logs are read oldest first, and those that can have nothing for the query are not read.
//
// Proves V18.
func TestAuditLogs(t *testing.T) {
	h := tree(t, map[string]string{
		"var/log/audit/audit.log": line(5), "var/log/audit/audit.log.1": line(4), "var/log/audit/audit.log.2": line(3), "var/log/audit/audit.log.10": line(1) + line(2),
		"var/log/audit/audit.log.old": line(9), "var/log/audit/other": line(9), "var/log/audit/audit.log.3/x": "",
	})
	if err := os.Chtimes(h.Root.Path("/var/log/audit/audit.log.10"), time.Unix(1700000002, 0), time.Unix(1700000002, 0)); err != nil {
		t.Fatal(err)
	}
	at := func(serial int64) time.Time { return time.Unix(1700000000+serial, 0) }
	for _, c := range []struct {
		query Query
		want  string
		files int
	}{
		{Query{}, "[1 2 3 4 5]", 4},
		{Query{Since: at(2)}, "[2 3 4 5]", 4},
		{Query{Since: at(4)}, "[4 5]", 3},
		{Query{Boot: true, Booted: at(3)}, "[3 4 5]", 3},
		{Query{Boot: true, Booted: at(3), Since: at(5)}, "[5]", 3},
	} {
		var got []int
		stats, sources, err := h.Denials(t.Context(), c.query, func(d *avc.Denial) { got = append(got, d.PID) })
		if err != nil || fmt.Sprint(got) != c.want || len(sources) != c.files || stats.Missing != 0 {
			t.Errorf("%+v: got %v from %q, %+v, %v; want %s", c.query, got, sources, stats, err, c.want)
		}
	}
	if _, _, err := h.Denials(t.Context(), Query{Boot: true}, func(*avc.Denial) {}); !errors.Is(err, ErrNoRecords) {
		t.Errorf("a boot of a tree that does not run: %v", err)
	}
	if _, _, err := tree(t, nil).Denials(t.Context(), Query{}, func(*avc.Denial) {}); !errors.Is(err, ErrNoRecords) {
		t.Errorf("nothing to read: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := h.Denials(ctx, Query{}, func(*avc.Denial) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// What is asked of journalctl.
func TestJournalctl(t *testing.T) {
	h := tree(t, map[string]string{"var/log/journal/x/system.journal": ""})
	argv, ok := h.journalctl(Query{Since: time.Unix(1700000000, 0), Boot: true}, false)
	want := "journalctl --quiet --no-pager --output=export --output-fields=" + journalFields + " --directory=" + h.Root.Path("/var/log/journal") +
		" --since=@1700000000 --boot _TRANSPORT=audit + _TRANSPORT=kernel + MESSAGE_ID=" + missedKernelMessages
	if !ok || strings.Join(argv, " ") != want {
		t.Errorf("got  %v\nwant %s", argv, want)
	}
	for q, want := range map[Query]string{{}: "--follow --lines=0 --merge", {Boot: true}: "--follow --no-tail --merge --boot", {Since: time.Unix(1, 0)}: "--follow --no-tail --merge --since=@1"} {
		if argv, ok := h.journalctl(q, true); !ok || !strings.Contains(strings.Join(argv, " "), h.Root.Path("/var/log/journal")+" "+want+" _TRANSPORT=") {
			t.Errorf("follow %+v: %v", q, argv)
		}
	}
	root, err := hostfs.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if argv, ok := (&Host{Root: root}).journalctl(Query{}, false); !ok || slices.ContainsFunc(argv, func(a string) bool { return strings.HasPrefix(a, "--directory") }) {
		t.Errorf("on the host: %v", argv)
	}
}

// The policy comes from the kernel if there is one, else it is the one that the tree would load.
func TestPolicy(t *testing.T) {
	made := flatcartest.New(t, flatcartest.Today)
	policytest.AddTo(t, made, nil)
	root, err := hostfs.Open(made.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	h := &Host{Root: root}
	p, err := h.Policy(t.Context())
	if err != nil || !p.Has("container_reader_t") {
		t.Errorf("of the tree: %v", err)
	}
	if volume, process := h.ContainerContexts(); volume != "system_u:object_r:container_file_t:s0" || process != "system_u:system_r:container_t:s0" {
		t.Errorf("contexts %q, %q", volume, process)
	}

	dir := t.TempDir()
	content, err := os.ReadFile(policytest.File(t, made))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "policy"), content, 0o644); err != nil {
		t.Fatal(err)
	}
	if h.Kernel, err = kernel.OpenAt(dir); err != nil {
		t.Fatal(err)
	}
	defer h.Kernel.Close()
	if p, err := h.Policy(t.Context()); err != nil || !p.Has("container_reader_t") {
		t.Errorf("of the kernel: %v", err)
	}
	if _, err := tree(t, map[string]string{"etc/selinux/config": "SELINUXTYPE=../x\n"}).Policy(t.Context()); err == nil {
		t.Error("a type that leads elsewhere is followed")
	}
}

// A tree's file contexts are asked like a host's: with the administrator's own, by class, and with the substitutions.
func TestFileContexts(t *testing.T) {
	const dir = "etc/selinux/mcs/contexts/files/file_contexts"
	h := tree(t, map[string]string{
		"etc/selinux/config": "SELINUXTYPE=mcs\n", dir: "/etc(/.*)?\tu:r:etc_t:s0\n/run/app\t-d\tu:r:app_t:s0\n/proc\t<<none>>\n",
		dir + ".local": "/etc/mine\tu:r:mine_t:s0\n", dir + ".subs_dist": "/var/run /run\n",
	})
	expected, err := h.FileContexts()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ class, name, want string }{
		{"file", "/etc/shadow", "u:r:etc_t:s0"}, {"file", "/etc/./shadow", "u:r:etc_t:s0"}, {"file", "/etc/mine", "u:r:mine_t:s0"},
		{"dir", "/var/run/app", "u:r:app_t:s0"}, {"file", "/var/run/app", ""}, {"dir", "/proc", ""}, {"tcp_socket", "/etc/shadow", ""}, {"file", "etc/shadow", ""},
	} {
		if got := expected(c.class, c.name); got != c.want {
			t.Errorf("%s %s: got %q, want %q", c.class, c.name, got, c.want)
		}
	}
	if _, err := tree(t, nil).FileContexts(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a tree without a policy: %v", err)
	}
	inode, label := h.Files(t.Context())
	if inode("/etc/selinux/config") == 0 || inode("/no/such") != 0 {
		t.Error("inodes are not those of files")
	}
	if got := label("/etc/selinux/config"); got != "" {
		t.Errorf("a file of a tree has the label %q today", got)
	}
}

// The journal knows which boot a denial is of; a clock that was set after the boot does not matter then.
//
// Proves V18.
func TestBootOfADenial(t *testing.T) {
	booted := time.Unix(1700000000, 0)
	q := Query{Boot: true, Booted: booted, BootID: "aabbccdd-0000-1111-2222-333344445555"}
	const here, other = "aabbccdd000011112222333344445555", "ffbbccdd000011112222333344445555"
	for _, c := range []struct {
		boot string
		at   time.Time
		want bool
	}{
		{"", booted.Add(time.Second), true}, {"", booted.Add(-time.Second), false}, {"", time.Time{}, true},
		{here, booted.AddDate(-30, 0, 0), true}, {here, time.Time{}, true}, {other, booted.Add(time.Second), false}, {other, time.Time{}, false},
	} {
		if got := q.has(&avc.Denial{Boot: c.boot, Time: c.at}); got != c.want {
			t.Errorf("boot %q, %s: %v", c.boot, c.at, got)
		}
	}
	since := Query{Since: booted}
	if since.has(&avc.Denial{Time: booted.Add(-1)}) || !since.has(&avc.Denial{Time: booted}) {
		t.Error("since")
	}
}

// A log that was rotated does not tell what was denied at first; one that begins with its daemon does.
//
// Proves V18.
func TestGone(t *testing.T) {
	start := "type=DAEMON_START msg=audit(1700000003.000:9001): op=start\n"
	for name, c := range map[string]struct{ log, want string }{
		"reaches back":    {line(1), ""},
		"rotated":         {line(5), "/var/log/audit/audit.log.1 begins only at"},
		"begun":           {start + line(5), ""},
		"nothing is told": {"", ""},
	} {
		files := map[string]string{}
		if c.log != "" {
			files["var/log/audit/audit.log.1"], files["var/log/audit/audit.log"] = c.log, line(7)
		}
		got, err := tree(t, files).Gone(t.Context(), time.Unix(1700000002, 0))
		if err != nil || c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for text, want := range map[string]time.Time{
		"__CURSOR=s=1\n__REALTIME_TIMESTAMP=1700000001000000\n_TRANSPORT=x\n\n__CURSOR=s=2\n__REALTIME_TIMESTAMP=1700000002000000\n": time.Unix(1700000001, 0), "": {}, "__REALTIME_TIMESTAMP=x\n": {},
	} {
		if got := beginning(strings.NewReader(text)); !got.Equal(want) {
			t.Errorf("%q begins at %s, want %s", text, got, want)
		}
	}
}
