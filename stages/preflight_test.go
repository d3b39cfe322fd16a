package stages

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/policystore"
)

// TestPreflight refuses to enforce where PID 1 would freeze at the next boot.
func TestPreflight(t *testing.T) {
	t.Parallel()
	etc, vendors := seconfig.PolicyDir(seconfig.Dir, "mcs")+"/", seconfig.PolicyDir(policystore.VendorDir, "mcs")+"/"
	for name, c := range map[string]struct {
		files map[string]string
		built string
		want  string
	}{
		"right":                          {map[string]string{etc + "policy.33": policyFile(33)}, "policy.33", ""},
		"an older one beside it":         {map[string]string{etc + "policy.33": policyFile(33), etc + "policy.31": "x"}, "policy.33", ""},
		"as new as the vendor's":         {map[string]string{etc + "policy.34": policyFile(34), vendors + "policy.34": policyFile(34)}, "policy.34", ""},
		"what PID 1 does not look at":    {map[string]string{etc + "policy.33": policyFile(33), etc + "policy.034": "x", etc + "policy.34.bak": "x"}, "policy.33", ""},
		"no directory":                   {nil, "", "PID 1 would find no policy and freeze"},
		"none":                           {map[string]string{etc + "policy.33.bak": policyFile(33)}, "", "PID 1 would find no policy in"},
		"newer than the host can load":   {map[string]string{etc + "policy.34": policyFile(34)}, "policy.34", "policy.34 is newer than version 33, the highest that this host can load"},
		"newer than what was built":      {map[string]string{etc + "policy.33": policyFile(33), etc + "policy.32": policyFile(32)}, "policy.32", "PID 1 would load"},
		"another version than its name":  {map[string]string{etc + "policy.33": policyFile(32)}, "policy.33", "policy.33 holds a policy of version 32"},
		"no policy at all":               {map[string]string{etc + "policy.33": strings.Repeat("x", 100)}, "policy.33", "is not a policy that PID 1 can load"},
		"cut off":                        {map[string]string{etc + "policy.33": policyFile(33)[:10]}, "policy.33", "is not a policy that PID 1 can load"},
		"empty":                          {map[string]string{etc + "policy.33": ""}, "policy.33", "is not a policy that PID 1 can load"},
		"a directory in place of a file": {map[string]string{etc + "policy.33/x": ""}, "policy.33", "PID 1 could not read its policy"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write := func(name, content string) {
				if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			write(vendors+"policy.33", policyFile(33))
			for name, content := range c.files {
				write(name, content)
			}
			root, err := hostfs.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			r := &run{Host: &Host{Root: root}, state: &State{}}
			r.state.Store.Policy.File = c.built
			err = r.preflight("mcs")
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
