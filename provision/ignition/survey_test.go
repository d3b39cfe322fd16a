package ignition

import (
	"strings"
	"testing"
)

// A mistake in a configuration hides none of the others, whether it is checked by itself, in its directory, or in the file of a machine.
func TestMistakesHideNothing(t *testing.T) {
	const config = `version: 1
mode: enforcng
policy:
  modules: [{path: /etc/selinux-provision/modules/site.cil}]
  file_contexts:
    - {path: '/srv/a/*', type: any, context: 'system_u:object_r:container_file_t:s0'}
    - {path: '/srv/b', type: any, context: 'system_u:object_r:container_file_t:s0:c2000'}
    - {path: '/var/run/c', type: any, context: 'system_u:object_r:container_file_t:s0'}
`
	const module = "/etc/selinux-provision/modules/site.cil"
	want := []string{`cannot use "enforcng" as a mode`, "cannot give any file the context for \"/srv/a/*\"", "the policy has no c2000", "cannot give any file the context for \"/var/run/c\""}
	look := func(how string, findings []Finding, want ...string) {
		t.Helper()
		if len(findings) != len(want) {
			t.Errorf("%s: %d problems, want %d: %v", how, len(findings), len(want), findings)
			return
		}
		for i, f := range findings {
			if !strings.Contains(f.Problem, want[i]) {
				t.Errorf("%s: %s, want %s", how, f, want[i])
			}
		}
	}
	_, alone, err := Check("config.yaml", strings.NewReader(config), Options{Module: func(string) ([]byte, bool) { return nil, false }})
	if err != nil {
		t.Fatal(err)
	}
	look("by itself", alone, want[0], "cannot find the module "+module+" here", want[1], want[2], want[3])
	files := map[string]text{"/etc/selinux-provision/config.yaml": {content: config, known: true}, module: {content: "(type site_t)\n", known: true}}
	look("in its directory", CheckDirectory(tree{&machine{files: files}}, func(name string) string { return name }, Options{}), want...)
	butane := strings.Replace(node, `{inline: "version: 1\nmode: enforcing\n"}`, "\n        inline: |\n          "+strings.ReplaceAll(strings.TrimSpace(config), "\n", "\n          "), 1) +
		"    - {path: " + module + ", contents: {inline: \"(type site_t)\\n\"}}\n"
	_, inside, err := Check("x", strings.NewReader(butane), Options{})
	if err != nil {
		t.Fatal(err)
	}
	look("in the file of a machine", inside, want...)
}
