package kernel

import (
	"strings"
	"testing"
)

// A file in the place of the kernel's answers with the question, whose first word is read as the mask.
func TestAllowed(t *testing.T) {
	s := fake(t, map[string]string{
		"class/filesystem/index": "6", "class/filesystem/perms/relabelfrom": "6", "class/filesystem/perms/relabelto": "7",
		"class/filesystem/perms/broken": "40", "access": strings.Repeat("\x00", 64),
	})
	for _, c := range []struct {
		mask, class, permission string
		want                    bool
	}{
		{"40", "filesystem", "relabelto", true},
		{"ffffffff", "filesystem", "relabelto", true},
		{"20", "filesystem", "relabelto", false},
		{"20", "filesystem", "relabelfrom", true},
		{"ffffffff", "no_such_class", "relabelto", false},
		{"ffffffff", "filesystem", "no_such_permission", false},
	} {
		got, err := s.Allowed(c.mask, "u:r:t:s0", c.class, c.permission)
		if got != c.want || err != nil {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
	if _, err := s.Allowed("zz", "u:r:t:s0", "filesystem", "relabelto"); err == nil || !strings.Contains(err.Error(), `"zz" is no mask`) {
		t.Error(err)
	}
	if _, err := s.Allowed("1", "u:r:t:s0", "filesystem", "broken"); err == nil {
		t.Error("permission 40 of 32")
	}
}
