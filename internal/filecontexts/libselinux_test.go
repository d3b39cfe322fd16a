package filecontexts

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// lookupTool is libselinux's own answer, one path at a time.
func lookupTool(t *testing.T) string {
	t.Helper()
	tool, err := exec.LookPath("selabel_lookup")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return tool
}

// libselinux gives what libselinux says, "" for nothing.
func libselinux(t *testing.T, tool, file, key string, kind Kind) string {
	t.Helper()
	mode := map[Kind]int{
		Regular: unix.S_IFREG, Directory: unix.S_IFDIR, Link: unix.S_IFLNK, Character: unix.S_IFCHR, Block: unix.S_IFBLK, FIFO: unix.S_IFIFO, Socket: unix.S_IFSOCK,
	}[kind]
	out, err := exec.Command(tool, "-r", "-b", "file", "-f", file, "-k", key, "-t", strconv.Itoa(mode)).CombinedOutput()
	context, found := strings.CutPrefix(strings.TrimSpace(string(out)), "Default context: ")
	switch {
	case found && context != none:
		return context
	case found, strings.Contains(string(out), "failed to find a valid context"):
		return ""
	}
	t.Fatalf("%s: %v: %s", key, err, out)
	return ""
}

// load reads a file of file contexts with those that belong to it, as a policy's.
func load(t testing.TB, file string) *Contexts {
	t.Helper()
	c := New()
	for _, part := range []struct {
		suffix string
		read   func(string, *os.File) error
	}{
		{"", func(n string, f *os.File) error { return c.Add(n, f) }},
		{".homedirs", func(n string, f *os.File) error { return c.Add(n, f) }},
		{".local", func(n string, f *os.File) error { return c.Add(n, f) }},
		{".subs_dist", func(n string, f *os.File) error { return c.addDist(n, f) }},
		{".subs", func(n string, f *os.File) error { return c.addSubs(n, f) }},
	} {
		f, err := os.Open(file + part.suffix)
		if os.IsNotExist(err) {
			continue
		}
		if err == nil {
			err = part.read(file+part.suffix, f)
			f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// Every answer is that of libselinux: which line counts, of which file, and what is put in place of a path's beginning.
func TestLikeLibselinux(t *testing.T) {
	tool := lookupTool(t)
	file := filepath.Join(t.TempDir(), "file_contexts")
	for suffix, text := range map[string]string{
		"": `# a comment
/.*	u:r:default_t:s0
/var(/.*)?	u:r:var_t:s0
/var/lib/[^/]+	-d	u:r:lib_t:s0
/var/lib/x	u:r:x_t:s0
/var/lib/.*	u:r:last_t:s0
/var/run	-l	u:r:run_t:s0
/var/none(/.*)?	<<none>>
/var/none/but	u:r:but_t:s0:c1,c2
/opt/a\.b/.*	u:r:dot_t:s0
/opt/a[.]b/c	--	u:r:class_t:s0
/colou?r	u:r:colour_t:s0
/(etc|conf)/x.	--	u:r:etc_t:s0
/usr/lib/.*\.so(\.[^/]*)*	--	u:r:so_t:s0
/usr/(.*/)?bin(/.*)?	u:r:bin_t:s0
/dev/[0-9].*	-c	u:r:usb_t:s0
/dev/x	-b	u:r:block_t:s0
/twice	u:r:first_t:s0
/twice	u:r:second_t:s0
/both(/.*)?	u:r:expression_t:s0
/both/literal	u:r:literal_t:s0
/both/.*	u:r:later_t:s0
`,
		".homedirs": "/home/[^/]+/.+	u:r:user_home_t:s0\n/home/[^/]+	-d	u:r:user_home_dir_t:s0\n/home/core/\\.ssh(/.*)?	u:r:ssh_home_t:s0\n",
		".local":    "/srv/site(/.*)?	u:r:site_t:s0\n/var/lib/y	u:r:local_t:s0\n/home/core/x	u:r:mine_t:s0\n",
		// Of several that fit the last counts, not the longest; the administrator's come first, and the distribution's are applied to what they give.
		".subs_dist": "/lib /usr/lib\n/lib64 /usr/lib\n/run /var/run\n/long /var\n/long/er /usr\n/short/er /usr\n/short /var\n",
		".subs":      "# mine\n/srv/home /home\n/data/lib /lib\n/chroot /\n  /odd   /usr   rest\n/alone\n/deep/a /opt\n",
	} {
		if err := os.WriteFile(file+suffix, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := load(t, file)
	if p := c.Problems(); len(p) > 0 {
		t.Errorf("%q", p)
	}
	for _, key := range []string{
		"/", "/var", "/variable", "/var/lib/x", "/var/lib/y", "/var/lib/y/z", "/var/run", "/var/none", "/var/none/a", "/var/none/but", "/opt/a.b/c", "/opt/axb/c",
		"/opt/a.b", "/color", "/colour", "/colouur", "/etc/xy", "/conf/xy", "/etc/xyz", "/usr/lib/a/b.so.1.2", "/usr/lib/b.son", "/usr/bin", "/usr/bin/x", "/usr/local/bin/x",
		"/usr/sbin/x", "/dev/1x", "/dev/x", "/twice", "/both", "/both/literal", "/both/other", "/home/core", "/home/core/x", "/home/core/.ssh/id", "/home/u/f", "/srv/site",
		"/srv/site/a b", "/srv/sites", "/lib/x.so", "/lib64/x.so", "/libx/x.so", "/run", "/run/x", "/long/er/bin/x", "/long/x", "/short/er/bin/x", "/srv/home/core", "/srv/home",
		"/data/lib/x.so", "/chroot", "/chroot/twice", "/chroot/usr/bin/x", "/chroots/usr/bin/x", "/odd/bin/x", "/alone/x", "/deep/a.b/c", "/etc/x\n", "/var/é", "/etc/x\xff",
	} {
		kinds := []Kind{Regular}
		switch {
		case strings.HasPrefix(key, "/dev/"):
			kinds = []Kind{Regular, Character, Block}
		case strings.HasPrefix(key, "/var/") || strings.HasPrefix(key, "/home"):
			kinds = []Kind{Regular, Directory, Link}
		}
		for _, kind := range kinds {
			got, found := c.Lookup(key, kind)
			if want := libselinux(t, tool, file, key, kind); got != want || found != (want != "") {
				t.Errorf("%q as %c: %q, libselinux says %q", key, kind, got, want)
			}
		}
	}
}

// realPolicies gives the file contexts that this machine has.
func realPolicies(t *testing.T) []string {
	t.Helper()
	files, _ := filepath.Glob("/etc/selinux/*/contexts/files/file_contexts")
	if more := os.Getenv("FILE_CONTEXTS"); more != "" {
		files = append(files, more)
	}
	if len(files) == 0 {
		t.Skip("there is no policy in /etc/selinux, and FILE_CONTEXTS names no file: vmtests.TestDeclaredFileContexts runs this with that of its machine")
	}
	return files
}

// The same for the policies of this machine, with paths made from their own lines.
func TestLikeLibselinuxOnRealPolicies(t *testing.T) {
	tool, err := exec.LookPath("matchpathcon")
	if err != nil {
		t.Skip(err)
	}
	for _, file := range realPolicies(t) {
		c := load(t, file)
		for _, p := range c.Problems() {
			t.Log(p)
		}
		var keys []string
		seen := map[string]bool{}
		for m := range c.All {
			literal, rest := Beginning(m.Expression)
			for _, key := range []string{literal, literal + "/x", literal + "x/y.so", literal + strings.NewReplacer("(/.*)?", "/q", ".*", "w", "[^/]*", "v", "[^/]+", "v", `\.`, ".", "?", "", "(", "", ")", "", "+", "").Replace(rest)} {
				// A place that this machine has would be looked up by its real name.
				if key = filepath.Clean(key); strings.HasPrefix(key, "/") && !strings.ContainsAny(key, "[]|*\\ ") && !seen[key] {
					if target, err := filepath.EvalSymlinks(filepath.Dir(key)); err == nil && target != filepath.Dir(key) {
						continue
					}
					seen[key] = true
					keys = append(keys, key)
				}
			}
		}
		for name, kind := range map[string]Kind{"file": Regular, "dir": Directory, "lnk_file": Link, "sock_file": Socket} {
			differ, compared := 0, 0
			for batch := range chunks(keys, 500) {
				out, err := exec.Command(tool, append([]string{"-f", file, "-m", name}, batch...)...).Output()
				if err != nil && len(out) == 0 {
					t.Fatal(err)
				}
				lines := bufio.NewScanner(strings.NewReader(string(out)))
				for lines.Scan() {
					key, want, _ := strings.Cut(lines.Text(), "\t")
					if want == none {
						want = ""
					}
					compared++
					if got, _ := c.Lookup(key, kind); got != want {
						if differ++; differ < 10 {
							t.Errorf("%s as %s: %q, matchpathcon says %q", key, name, got, want)
						}
					}
				}
			}
			t.Logf("%s: %d paths as %s compared, %d differ", file, compared, name, differ)
		}
	}
}

func chunks(all []string, size int) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		for len(all) > 0 {
			n := min(size, len(all))
			if !yield(all[:n]) {
				return
			}
			all = all[n:]
		}
	}
}
