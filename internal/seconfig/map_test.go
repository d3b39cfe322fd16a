package seconfig

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

func tree(t *testing.T, files map[string]string) *hostfs.Root {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func TestType(t *testing.T) {
	for config, want := range map[string]string{
		"SELINUXTYPE=mcs\n": "mcs", "SELINUXTYPE=mls.v2\n": "mls.v2", "SELINUXTYPE=mcs # x\n": "mcs # x",
		"": "", "SELINUXTYPE=\n": "", "SELINUXTYPE=../x\n": "", "SELINUXTYPE=.\n": "", "SELINUXTYPE=a/b\n": "", "SELINUXTYPE=a\x00b\n": "",
	} {
		got, err := Type(tree(t, map[string]string{"etc/selinux/config": config}))
		if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrNoType) {
			t.Errorf("%q: %q, %v, want %q", config, got, err, want)
		}
	}
	if _, err := Type(tree(t, nil)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no configuration: %v", err)
	}
}

func TestPolicies(t *testing.T) {
	dir := PolicyDir(Dir, "mcs")
	files := map[string]string{}
	for _, name := range []string{"policy.9", "policy.34", "policy.33", "policy.033", "policy.+35", "policy.-1", "policy.0", "policy.33.bak", "policy.", "policy", "33", "Policy.36", "policy.99999999999999999999"} {
		files[dir+"/"+name] = ""
	}
	root := tree(t, files)
	got, err := Policies(root, dir)
	if want := []PolicyFile{{"policy.34", 34}, {"policy.33", 33}, {"policy.9", 9}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if _, err := Policies(root, "/nowhere"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if f, err := OpenPolicy(root, Dir, "mcs"); err != nil || filepath.Base(f.Name()) != "policy.34" {
		t.Errorf("PID 1 would try %v, %v", f, err)
	} else {
		f.Close()
	}
	if _, err := OpenPolicy(root, Dir, "mls"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := OpenPolicy(tree(t, map[string]string{dir + "/other": ""}), Dir, "mcs"); err == nil || !strings.Contains(err.Error(), "there is none in ") {
		t.Errorf("%v", err)
	}
}

func TestContainers(t *testing.T) {
	for content, want := range map[string]Containers{
		"": {},
		"process = \"system_u:system_r:container_t:s0\"\nfile = \"system_u:object_r:container_file_t:s0\"\n": {Process: "system_u:system_r:container_t:s0", File: "system_u:object_r:container_file_t:s0"},
		"process=a\r\n\tfile=\"b\"":                     {Process: "a", File: "b"},
		"#file = \"a\"\n; file = \"b\"\n # file = c\n":  {},
		"file = a\nfile = b\nsandbox_kvm_process = c\n": {Process: "", File: "b"},
		"file\n=x\n": {},
	} {
		if got, err := ParseContainers(strings.NewReader(content)); err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", content, got, err, want)
		}
		if got, err := ReadContainers(tree(t, map[string]string{ContainerContexts("mcs"): content}), "mcs"); err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", content, got, err, want)
		}
	}
}

func FuzzParseContainers(f *testing.F) {
	f.Add("process = \"a:b:c\"\nfile = \"a:b:c\"\n")
	f.Fuzz(func(t *testing.T, content string) {
		c, err := ParseContainers(strings.NewReader(content))
		if err != nil || strings.Contains(c.File, "\n") || strings.Contains(c.Process, "\n") {
			t.Errorf("%+v, %v", c, err)
		}
	})
}
