package kernel

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fake makes a directory that looks like selinuxfs. A value that begins with "->" makes a symbolic link.
func fake(t *testing.T, files map[string]string) *SELinux {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "->"); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s, err := OpenAt(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func status(fields ...uint32) string {
	var page []byte
	for _, f := range fields {
		page = binary.NativeEndian.AppendUint32(page, f)
	}
	return string(page) + strings.Repeat("\x00", 4096-len(page))
}

func TestMode(t *testing.T) {
	s := fake(t, map[string]string{"enforce": "0"})
	if on, err := s.Enforcing(); on || err != nil {
		t.Fatal(on, err)
	}
	for _, want := range []bool{true, true, false} {
		if err := s.SetEnforcing(want); err != nil {
			t.Fatal(err)
		}
		if on, err := s.Enforcing(); on != want || err != nil {
			t.Fatal(on, err)
		}
	}
}

func TestNumbers(t *testing.T) {
	s := fake(t, map[string]string{"policyvers": "33", "status": status(1, 6, 0, 3, 0)})
	if v, err := s.PolicyVersion(); v != 33 || err != nil {
		t.Error(v, err)
	}
	if n, err := s.PolicyLoads(); n != 3 || err != nil {
		t.Error(n, err)
	}
}

func TestBoolean(t *testing.T) {
	s := fake(t, map[string]string{"booleans/on": "1 0", "booleans/off": "0 1\n", "booleans/odd": "yes", "enforce": "1"})
	for _, c := range []struct {
		name           string
		current, found bool
	}{
		{"on", true, true}, {"off", false, true}, {"none", false, false}, {"", false, false}, {".", false, false},
		{"../enforce", false, false}, {"a\x00b", false, false}, {strings.Repeat("x", 300), false, false},
	} {
		if current, found, err := s.Boolean(c.name); current != c.current || found != c.found || err != nil {
			t.Errorf("%q: %v %v %v", c.name, current, found, err)
		}
	}
}

func TestSetBooleans(t *testing.T) {
	s := fake(t, map[string]string{"booleans/a": "0 0", "booleans/b": "1 1", "booleans/c": "0 0", "commit_pending_bools": ""})
	if err := s.SetBooleans(map[string]bool{"b": false, "a": true}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"a": true, "b": false, "c": false} {
		if on, found, err := s.Boolean(name); on != want || !found || err != nil {
			t.Error(name, on, found, err)
		}
	}
	if order, err := os.ReadFile(s.name + "/commit_pending_bools"); string(order) != "1" || err != nil {
		t.Errorf("%q %v", order, err)
	}

	// Without booleans nothing is committed: what somebody else has pending is his.
	s = fake(t, nil)
	if err := s.SetBooleans(nil); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		files map[string]string
		want  string
	}{
		{map[string]string{"booleans/a": "0 0"}, "cannot set boolean b: the loaded policy does not have it"},
		{map[string]string{"booleans/a": "0 0", "booleans/b": "0 0"},
			"cannot set booleans a, b: cannot open DIR/commit_pending_bools: no such file or directory"},
		{map[string]string{"booleans/a": "0"}, `cannot set boolean a: cannot use DIR/booleans/a: "0" is not two flags`},
		{map[string]string{"booleans/a": "0 0", "booleans/b": "->/dev/full"},
			`cannot set boolean b: cannot read DIR/booleans/b: it is longer than selinuxfs ever makes it`},
	} {
		s := fake(t, c.files)
		err := s.SetBooleans(map[string]bool{"a": true, "b": true})
		if err == nil || strings.ReplaceAll(err.Error(), s.name, "DIR") != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
		if a, err := os.ReadFile(s.name + "/booleans/a"); len(c.files) == 2 && strings.HasPrefix(c.files["booleans/b"], "->") && string(a) != "0 0" {
			t.Errorf("boolean a was touched: %q %v", a, err)
		}
	}
}

// A file in the place of the kernel's answers with the question, and with what of its own content is longer.
func TestCanonical(t *testing.T) {
	s := fake(t, map[string]string{"context": "                        x\x00"})
	if got, ok, err := s.Canonical("system_u:object_r:tmp_t:"); got != "system_u:object_r:tmp_t:x" || !ok || err != nil {
		t.Errorf("%q, %v, %v", got, ok, err)
	}
	// This file of the kernel answers EINVAL to what is no number, as selinuxfs does to an unknown context.
	s = fake(t, map[string]string{"context": "->/proc/self/oom_score_adj"})
	for _, ctx := range []string{"system_u:object_r:tmp_t:s0", "", "a\x00b"} {
		if got, ok, err := s.Canonical(ctx); got != "" || ok || err != nil {
			t.Error(got, ok, err)
		}
	}
}

func TestErrors(t *testing.T) {
	s := fake(t, map[string]string{
		"enforce": "->/dev/null", "policyvers": "many", "status": "short", "booleans/odd": "yes", "context": "->/dev/full",
	})
	full := fake(t, map[string]string{"enforce": "->/dev/full", "status": status(1, 5, 0, 3, 0), "policyvers": "->/dev/zero"})
	empty := fake(t, nil)
	for _, c := range []struct {
		name string
		call func() error
		want string
	}{
		{"mode", func() error { _, err := s.Enforcing(); return err }, `cannot use DIR/enforce: "" is not a number`},
		{"read back", func() error { return s.SetEnforcing(true) },
			`cannot confirm that the kernel is enforcing: cannot use DIR/enforce: "" is not a number`},
		{"version", func() error { _, err := s.PolicyVersion(); return err }, `cannot use DIR/policyvers: "many" is not a number`},
		{"loads", func() error { _, err := s.PolicyLoads(); return err }, "cannot use DIR/status: it has 5 bytes of 20"},
		{"boolean", func() error { _, _, err := s.Boolean("odd"); return err },
			`cannot use DIR/booleans/odd: "yes" is not two flags`},
		{"context", func() error { _, _, err := s.Canonical("a"); return err },
			`cannot ask the kernel about the context "a": cannot ask DIR/context: no space left on device`},
		{"refused", func() error { return full.SetEnforcing(false) },
			"cannot switch the kernel to permissive: cannot write DIR/enforce: no space left on device"},
		{"endless change", func() error { _, err := full.PolicyLoads(); return err },
			"cannot use DIR/status: the kernel keeps changing it"},
		{"endless", func() error { _, err := full.PolicyVersion(); return err },
			"cannot read DIR/policyvers: it is longer than selinuxfs ever makes it"},
		{"absent", func() error { _, err := empty.Enforcing(); return err },
			"cannot open DIR/enforce: no such file or directory"},
		{"absent for writing", func() error { return empty.SetEnforcing(true) },
			"cannot switch the kernel to enforcing: cannot open DIR/enforce: no such file or directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.call()
			if err == nil {
				t.Fatal("no error")
			}
			got := err.Error()
			for _, dir := range []string{s.name, full.name, empty.name} {
				got = strings.ReplaceAll(got, dir, "DIR")
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestDisobedientKernel(t *testing.T) {
	// The order changes the first digit alone, so the mode that is read back is still 1.
	s := fake(t, map[string]string{"enforce": "01"})
	if err := s.SetEnforcing(false); err == nil ||
		err.Error() != "cannot switch the kernel to permissive: it took the order and did not follow it" {
		t.Error(err)
	}
}

func TestDisabled(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir + "/none", dir + "/file"} {
		if _, err := OpenAt(name); !errors.Is(err, ErrDisabled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := OpenAt(dir + "/none"); err == nil ||
		err.Error() != "SELinux is disabled in the running kernel: there is no "+dir+"/none" {
		t.Error(err)
	}
}

// Open must agree with the host that runs the test, whether it has SELinux or not.
func TestOpenAgreesWithTheHost(t *testing.T) {
	var fs unix.Statfs_t
	mounted := unix.Statfs(mountPoint, &fs) == nil && fs.Type == unix.SELINUX_MAGIC
	s, err := Open()
	if mounted != (err == nil) || err != nil && !errors.Is(err, ErrDisabled) {
		t.Fatalf("mounted %v: %v", mounted, err)
	}
	if err != nil {
		return
	}
	defer s.Close()
	if _, err := s.Enforcing(); err != nil {
		t.Error(err)
	}
	if v, err := s.PolicyVersion(); v < 15 || err != nil {
		t.Error(v, err)
	}
	if _, err := s.PolicyLoads(); err != nil {
		t.Error(err)
	}
}

func TestPolicy(t *testing.T) {
	want := strings.Repeat("policy", 5000)
	in, err := fake(t, map[string]string{"policy": want}).Policy()
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(in)
	if err != nil || string(got) != want {
		t.Errorf("%d bytes, error %v", len(got), err)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if _, err := fake(t, nil).Policy(); !errors.Is(err, unix.ENOENT) {
		t.Errorf("no policy: %v", err)
	}
}
