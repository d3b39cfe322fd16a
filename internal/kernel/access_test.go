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

func TestMayWatchMounts(t *testing.T) {
	policy := func(files ...string) map[string]string {
		all := map[string]string{"class/file/index": "7", "access": strings.Repeat("\x00", 64), "deny_unknown": "0"}
		for i := 0; i < len(files); i += 2 {
			all[files[i]] = files[i+1]
		}
		return all
	}
	const permission = "class/file/perms/watch_mountns"
	for _, c := range []struct {
		name, mask string
		files      map[string]string
		want       bool
	}{
		{"allowed", "40", policy(permission, "7"), true},
		{"not allowed", "20", policy(permission, "7"), false},
		{"not allowed, and what is unknown is", "20", policy(permission, "7", "deny_unknown", "0"), false},
		{"not in the policy", "0", policy(), true},
		{"not in the policy, which denies that", "ffffffff", policy("deny_unknown", "1"), false},
	} {
		if got, err := fake(t, c.files).mayWatchMounts(c.mask, "u:r:t:s0"); got != c.want || err != nil {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
}
