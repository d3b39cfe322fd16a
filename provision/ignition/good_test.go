package ignition

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// None of the good files raises an alarm: the examples of this repository, and files for hosts that have nothing to do with it.
//
// Proves V14.
func TestGoodFiles(t *testing.T) {
	examples, err := filepath.Glob("../../ignition-examples/*.bu")
	if err != nil || len(examples) == 0 {
		t.Fatal(examples, err)
	}
	ignition, err := filepath.Glob("../../ignition-examples/*.ign")
	if err != nil {
		t.Fatal(err)
	}
	good, err := filepath.Glob("testdata/good/*")
	if err != nil || len(good) == 0 {
		t.Fatal(good, err)
	}
	for _, name := range append(append(examples, ignition...), good...) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			content, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files := filesDir(t)
			kind, findings, err := Check(name, strings.NewReader(string(content)), Options{FilesDir: files})
			if err != nil || kind == "" {
				t.Errorf("kind %q, %v", kind, err)
			}
			for _, f := range findings {
				if !f.Note || strings.Contains(name, "ignition-examples") {
					t.Error(f)
				}
			}
		})
	}
}

// filesDir is a directory that has what the examples take with "local", a program in place of the real one.
func filesDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/selinux-provision"), []byte("\x7fELF"), 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"units", "ignition-examples"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(root, name))); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A file is told by what is in it, whatever it is called.
func TestKinds(t *testing.T) {
	for text, want := range map[string]Kind{
		"version: 1":                       Configuration,
		"mode: enforcing":                  Configuration,
		`{"version": 1}`:                   Configuration,
		"{version: 1}":                     Configuration,
		"variant: flatcar\nversion: 1.0.0": Butane,
		`{"variant": "flatcar", "version": "1.0.0"}`:      Butane,
		`{"ignition": {"version": "3.0.0"}}`:              Ignition,
		`{"ignition": {"version": "3.6.0"}}`:              Ignition,
		"\n\n {\n\"ignition\": {\"version\": \"3.3.0\"}}": Ignition,
		`{"systemd": {}}`:                                 Ignition,
		"---\nversion: 1":                                 Configuration,
		"[1]":                                             "",
		"{":                                               "",
		"#cloud-config\nversion: 1":                       "",
	} {
		kind, _, err := Check("config.ign", strings.NewReader(text), Options{})
		if err != nil || kind != want {
			t.Errorf("%q: %q, %v; want %q", text, kind, err, want)
		}
	}
}

// Whatever the file holds, there is an answer, in which every line is one that the file has.
func FuzzCheck(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*", "../../ignition-examples/*.bu"} {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			content, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(content))
		}
	}
	for _, file := range []string{"testdata/bad.txt", "testdata/real.txt"} {
		table, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range strings.Split(string(table), "\n=== ")[1:] {
			_, rest, _ := strings.Cut(part, "\n")
			content, _, _ := strings.Cut(rest, "\n---\n")
			f.Add(content)
		}
	}
	empty := f.TempDir()
	f.Fuzz(func(t *testing.T, content string) {
		_, findings, err := Check("x", strings.NewReader(content), Options{FilesDir: empty})
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Count(content, "\n") + 1
		for _, found := range findings {
			if found.Line < 0 || found.Line > lines+1 {
				t.Errorf("line %d of %d: %s", found.Line, lines, found)
			}
			if strings.ContainsAny(found.String(), "\n\r\x00") {
				t.Errorf("message %q", found)
			}
		}
	})
}

// Domains that are to stay permissive are worth a note where every domain is.
func TestPermissiveDomainsNote(t *testing.T) {
	const domains = "\nenforce:\n  permissive_domains: [site_t]\n"
	for mode, want := range map[string]string{
		"mode: enforcing": "", "": "",
		"mode: permissive": "x:4: enforce.permissive_domains has no effect yet: with mode: permissive every domain is permissive: leave it: it counts from the moment on when the mode is enforcing",
	} {
		_, findings, err := Check("x", strings.NewReader("version: 1\n"+mode+domains), Options{})
		got := ""
		if len(findings) == 1 && findings[0].Note {
			got = findings[0].String()
		}
		if err != nil || len(findings) > 1 || got != want {
			t.Errorf("%s: %v, %v, want %q", mode, findings, err, want)
		}
	}
}
