package vmtests

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// relabelled is what the test reads of relabel --json.
type relabelled struct {
	Seen, Already, Set int64
	RootLabelled       bool `json:"root_labelled"`
	Failed             []struct {
		Errno string
		Count int64
	}
	Skipped map[string]int64
}

// TestRelabel labels trees on a machine that enforces, where the policy is asked about each label: ext4, xfs and tmpfs, an NFS export
// mounted from the machine itself, and what is refused. What the program says is compared with what find and stat see.
//
// Proves P5: under a policy that is enforced: ext4, xfs, tmpfs, NFS.
func TestRelabel(t *testing.T) {
	t.Parallel()
	m := startProvisioned(t, Allowed{`avc: +denied .*(associate|relabelto)`, "the test gives files a label that is no file's"})
	const tool = "/opt/bin/selinux-provision relabel "
	const label = "system_u:object_r:container_file_t:s0:c10,c20"
	relabel := func(exit int, args string) (r relabelled) {
		t.Helper()
		out := m.fails(t, tool+args+" --json", exit)
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Errorf("relabel %s: %v\n%s", args, err, out)
		}
		return r
	}
	count := func(dir, label string) (n int64) {
		t.Helper()
		if _, err := fmt.Sscan(m.Must(t, "find "+dir+" -xdev -exec stat -c %C {} + | grep -cxF "+label+" || true"), &n); err != nil {
			t.Error(err)
		}
		return n
	}
	tree := func(dir string, files int) int64 {
		t.Helper()
		m.Must(t, fmt.Sprintf("cd %s && for d in 1 2 3 4 5 6 7 8; do mkdir -p d$d/sub && (cd d$d && seq -f f%%g %d | xargs touch && ln -s /etc/passwd link && mkfifo fifo); done", dir, files))
		var n int64
		if _, err := fmt.Sscan(m.Must(t, "find "+dir+" -xdev | wc -l"), &n); err != nil {
			t.Error(err)
		}
		return n
	}
	for _, kind := range []string{"ext4", "xfs", "tmpfs"} {
		dir := "/mnt/" + kind
		m.Must(t, "mkdir -p "+dir)
		if kind == "tmpfs" {
			m.Must(t, "mount -t tmpfs tmpfs "+dir)
		} else {
			m.Must(t, fmt.Sprintf("truncate -s 400M /var/%s.img && mkfs.%s -q /var/%s.img && mount -o loop /var/%s.img %s", kind, kind, kind, kind, dir))
		}
		n := tree(dir, 300)
		if r := relabel(0, dir+" --context "+label+" --verify"); r.Seen != n || r.Set != n || !r.RootLabelled || count(dir, label) != n {
			t.Errorf("%s: %d entries, %d labelled, and the program says %+v", kind, n, count(dir, label), r)
		}
		if r := relabel(0, dir+" --context "+label); r.Already != n || r.Set != 0 {
			t.Errorf("%s, again: %+v", kind, r)
		}
		if r := relabel(0, dir+" --context default"); r.Set != n || count(dir, "system_u:object_r:container_file_t:s0") != n {
			t.Errorf("%s, the default: %+v", kind, r)
		}
	}

	// The policy says what it does not know, and what no file may have: each entry is counted, and the root is not labelled.
	if out := m.fails(t, tool+"/mnt/ext4 --context system_u:object_r:no_such_t:s0", 2); !contains(out, "the loaded policy does not know it") {
		t.Errorf("an unknown type: %s", out)
	}
	if r := relabel(3, "/mnt/tmpfs/d1 --context system_u:object_r:container_t:s0"); len(r.Failed) != 1 || r.Failed[0].Errno != "EACCES" || r.RootLabelled ||
		r.Set != 0 || count("/mnt/tmpfs/d1", "system_u:object_r:container_file_t:s0") != r.Seen {
		t.Errorf("a label that is no file's: %+v", r)
	}

	// A mount with context= has no labels of its own.
	m.Must(t, "mkdir -p /mnt/context && umount /mnt/xfs && mount -o loop,context="+`'"`+label+`"'`+" /var/xfs.img /mnt/context")
	if out := m.fails(t, tool+"/mnt/context --context default", 1); !contains(out, "context=") {
		t.Errorf("a mount with context=: %s", out)
	}
	if out := m.fails(t, tool+"/usr --context default", 1); !contains(out, "the operating system's") {
		t.Errorf("/usr: %s", out)
	}
	m.Must(t, "umount /mnt/context")

	// Where the labels come from the policy, they are those of restorecon.
	lines := func(command string) []string {
		var found []string
		for line := range strings.Lines(m.Must(t, command)) {
			found = append(found, strings.ToLower(strings.TrimSuffix(line, "\n")))
		}
		slices.Sort(found)
		return found
	}
	for _, dir := range []string{"/etc", "/var"} {
		const changing = " | grep -v -e /var/log/journal/ -e /var/lib/selinux-provision/ || true"
		ours := lines(tool + dir + " --from-policy --trust-links --dry-run | grep '^would'" + changing)
		theirs := lines("restorecon -n -v -R " + dir + " | grep '^Would'" + changing)
		if !slices.Equal(ours, theirs) {
			t.Errorf("%s: differs from restorecon -n in\n%s", dir, unlike(ours, theirs))
		}
		if len(theirs) == 0 {
			t.Errorf("%s: there is nothing to compare", dir)
		}
		t.Logf("%s: %d verdicts like those of restorecon", dir, len(theirs))
	}

	// NFS 4.2 with labels, from this machine to itself: each label is a write that the server waits for, so the tree is small.
	m.Must(t, "mkdir -p /mnt/ext4/export /mnt/nfs")
	n := tree("/mnt/ext4/export", 10)
	m.Must(t, serveNFS("/mnt/ext4/export", "security_label"))
	m.Must(t, "timeout 60 mount -t nfs4 -o vers=4.2 localhost:/ /mnt/nfs")
	if r := relabel(0, "/mnt/nfs --context "+label); r.Seen != n || r.Set != n || count("/mnt/nfs", label) != n || count("/mnt/ext4/export", label) != n {
		t.Errorf("NFS: %d entries, %d labelled, %d on the server's side, and the program says %+v", n, count("/mnt/nfs", label), count("/mnt/ext4/export", label), r)
	}
	m.Must(t, "umount /mnt/nfs && exportfs -ua && rpc.nfsd 0 && umount /mnt/ext4 /mnt/tmpfs")
}

// unlike gives the lines that are in one list only.
func unlike(ours, theirs []string) string {
	sign := map[string]string{}
	for _, line := range ours {
		sign[line] = "ours:   "
	}
	for _, line := range theirs {
		if _, both := sign[line]; both {
			delete(sign, line)
		} else {
			sign[line] = "theirs: "
		}
	}
	var b strings.Builder
	for _, line := range slices.Sorted(maps.Keys(sign)) {
		b.WriteString(sign[line] + line + "\n")
	}
	return b.String()
}
