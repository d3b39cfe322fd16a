package relabel

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/filecontexts"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// ownContexts stand in for a policy where none is installed; the places are those of Debian's.
const ownContexts = `/.*	system_u:object_r:default_t:s0
/[^/]+	--	system_u:object_r:etc_runtime_t:s0
/etc/.*	system_u:object_r:etc_t:s0
/etc	-d	system_u:object_r:etc_t:s0
/etc/(passwd|shadow|group)-?	--	system_u:object_r:shadow_t:s0
/etc/ssl(/.*)?	system_u:object_r:cert_t:s0
/etc/ssl/private(/.*)?	<<none>>
/etc/rc[0-9S]\.d/.+	-l	system_u:object_r:initrc_t:s0
/etc/hosts	--	system_u:object_r:net_conf_t:s0
/etc/[^/]*\.conf	--	system_u:object_r:conf_t:s0
/var/.*	system_u:object_r:var_t:s0
/var/lib(/.*)?	system_u:object_r:var_lib_t:s0
/var/lib/[^/]+/.*\.(list|md5sums)	--	system_u:object_r:dpkg_t:s0
/var/log/.*	system_u:object_r:var_log_t:s0
/var/log/private	-d	<<none>>
/var/spool(/.*)?	system_u:object_r:var_spool_t:s0
`

// TestLikeSetfiles compares what would change with what setfiles says, on copies of the machine's own /etc and /var, first without labels,
// then with labels of all kinds, and with -F.
func TestLikeSetfiles(t *testing.T) {
	needRoot(t)
	needTool(t, "setfiles", "cp")
	root := filesystem(t, "ext4", "size=900M", "-N200000")
	mustMkdir(t, filepath.Join(root, "etc"), filepath.Join(root, "var"))
	for _, dir := range []string{"/etc", "/var/lib", "/var/log", "/var/spool", "/var/cache/apt"} {
		to := filepath.Join(root, dir)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		// What is written to meanwhile may go amiss: it is then missing for both.
		_ = exec.Command("cp", "-a", "-x", "-T", "--attributes-only", "--preserve=mode,links", "--", dir, to).Run()
	}
	contexts := filepath.Join(t.TempDir(), "file_contexts")
	text := []byte(ownContexts)
	if installed, err := filepath.Glob("/etc/selinux/*/contexts/files/file_contexts"); err == nil && len(installed) > 0 {
		if text, err = os.ReadFile(installed[0]); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(contexts, text, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(contexts)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	policy := filecontexts.New()
	if err := policy.Add(contexts, f); err != nil {
		t.Fatal(err)
	}
	host, err := hostfs.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	compare := func(what string, force bool) {
		t.Helper()
		for _, dir := range []string{"/etc", "/var"} {
			args := []string{"-n", "-v", "-r", root}
			if force {
				args = append(args, "-F")
			}
			out, err := exec.Command("setfiles", append(args, contexts, root+dir)...).Output()
			if err != nil {
				t.Fatalf("setfiles: %v", err)
			}
			theirs := map[string]bool{}
			for line := range strings.Lines(string(out)) {
				if rest, found := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "Would relabel "); found {
					theirs[strings.Replace(strings.Replace(rest, "(null)", "<no context>", 1), root, "", 1)] = true
				}
			}
			target, err := OpenIn(host, dir, System)
			if err != nil {
				t.Fatal(err)
			}
			ours := map[string]bool{}
			r, err := target.Run(context.Background(), Options{Labels: FromPolicy(policy, force), DryRun: true, TrustLinks: true, Changed: func(c Change) {
				from := c.From
				if from == "" {
					from = "<no context>"
				}
				ours[c.Path+" from "+from+" to "+c.To] = true
			}})
			target.Close()
			if err != nil {
				t.Fatal(err)
			}
			adds(t, r)
			// Of a file with several names setfiles looks at one.
			several := func(line string) bool {
				name, _, _ := strings.Cut(line, " from ")
				var st unix.Stat_t
				return unix.Lstat(root+name, &st) == nil && st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR
			}
			for line := range ours {
				if !theirs[line] && !several(line) {
					t.Errorf("%s: ours alone: %s", what, line)
				}
			}
			for line := range theirs {
				if !ours[line] && !several(line) {
					t.Errorf("%s: theirs alone: %s", what, line)
				}
			}
			if len(theirs) == 0 {
				t.Errorf("%s: setfiles has nothing to say on %s", what, dir)
			}
			t.Logf("%s, %s: %d verdicts", what, dir, len(theirs))
		}
	}
	compare("without labels", false)
	for i, label := range []string{"user_u:role_r:other_t:s0:c1,c2", "system_u:object_r:etc_t:s0:c5", "system_u:object_r:container_file_t:s0:c1,c2", "system_u:object_r:var_lib_t:s0"} {
		out := command(t, "find", root+"/etc", root+"/var", "-not", "-type", "l")
		for j, name := range slices.Collect(strings.Lines(out)) {
			if j%5 == i {
				err := unix.Lsetxattr(strings.TrimSuffix(name, "\n"), "security.selinux", []byte(label+"\x00"), 0)
				if err != nil && !errors.Is(err, unix.ENOENT) {
					t.Fatal(err)
				}
			}
		}
	}
	compare("with labels", false)
	compare("with labels, -F", true)
}

// What restorecon keeps of a label, and what it leaves alone.
func TestFromPolicy(t *testing.T) {
	contexts := filecontexts.New()
	if err := contexts.Add("test", strings.NewReader("/d(/.*)?\tsystem_u:object_r:new_t:s0\n/d/no\t<<none>>\n")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, current string
		want          string
		leave         Reason
		forced        string
	}{
		{"/d/x", "", "system_u:object_r:new_t:s0", "", "system_u:object_r:new_t:s0"},
		{"/d/x", "u:r:old_t:s0:c1,c2", "u:r:new_t:s0:c1,c2", "", "system_u:object_r:new_t:s0"},
		{"/d/x", "u:r:new_t:s0:c1,c2", "u:r:new_t:s0:c1,c2", "", "system_u:object_r:new_t:s0"},
		{"/d/x", "nonsense", "system_u:object_r:new_t:s0", "", "system_u:object_r:new_t:s0"},
		{"/d/no", "u:r:old_t:s0", "", NoContext, ""},
		{"/e", "u:r:old_t:s0", "", NoContext, ""},
	} {
		if got, leave := FromPolicy(contexts, false).Want(c.path, Regular, c.current); got != c.want || leave != c.leave {
			t.Errorf("%s with %q: %q, %q, want %q, %q", c.path, c.current, got, leave, c.want, c.leave)
		}
		if got, _ := FromPolicy(contexts, true).Want(c.path, Regular, c.current); got != c.forced {
			t.Errorf("%s with %q, forced: %q, want %q", c.path, c.current, got, c.forced)
		}
	}
}

// What a run that was broken off has done by other file contexts is not believed: the name of the rule tells them apart.
func TestPolicyIsNamedByItsContent(t *testing.T) {
	name := func(lines string, force bool) string {
		t.Helper()
		contexts := filecontexts.New()
		if err := contexts.Add("test", strings.NewReader(lines)); err != nil {
			t.Fatal(err)
		}
		return FromPolicy(contexts, force).String()
	}
	const old, changed = "/d(/.*)?\tsystem_u:object_r:old_t:s0\n", "/d(/.*)?\tsystem_u:object_r:new_t:s0\n"
	if name(old, false) != name("# the same\n"+old, false) || name(old, false) == name(changed, false) || name(old, false) == name(old, true) {
		t.Errorf("%q, %q, %q", name(old, false), name(changed, false), name(old, true))
	}
}
