package ignition

import (
	"fmt"
	"strings"
	"testing"
)

// A key that is missing in a mapping is looked for in what is merged into it, of which the first that has it counts
// (https://yaml.org/type/merge.html).
func TestMergeKeys(t *testing.T) {
	const anchors = "a: &a {x: 1, y: 2}\nb: &b {x: 3, z: 4}\nc: &c {<<: *b, w: 5}\nself: &self {<<: *self, v: 6}\n"
	for of, want := range map[string]string{
		"{<<: *a}":              "x=1 y=2",
		"{<<: *a, x: 0}":        "x=0 y=2",
		"{x: 0, <<: *a}":        "x=0 y=2",
		"{<<: [*b, *a], u: 7}":  "u=7 x=3 z=4 y=2",
		"{<<: *c}":              "w=5 x=3 z=4",
		"{<<: {x: 8}}":          "x=8",
		"{<<: *self}":           "v=6",
		"{<<: [1, *a, [*b]]}":   "x=1 y=2",
		`{"<<": *a, x: 9}`:      "<<= x=9",
		"{<<: *a, x: {<<: *b}}": "x= y=2",
	} {
		root, err := readYAML([]byte(anchors + "of: " + of + "\n"))
		if err != nil {
			t.Fatal(of, err)
		}
		var all []string
		for _, key := range keys(get(root, "of")) {
			all = append(all, key.Value+"="+get(root, "of", key.Value).Value)
		}
		if got := strings.Join(all, " "); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", of, got, want)
		}
	}
	if root, err := readYAML([]byte(anchors + "of: {<<: *a, x: {<<: *b}}\n")); err != nil || get(root, "of", "x", "z").Value != "4" {
		t.Errorf("a merge below another one: %v", err)
	}
	var bomb strings.Builder
	bomb.WriteString("m0: &m0 {x: 1}\n")
	for i := range 60 {
		fmt.Fprintf(&bomb, "m%d: &m%d {<<: [*m%d, *m%d]}\n", i+1, i+1, i, i)
	}
	if root, err := readYAML([]byte(bomb.String())); err != nil || get(root, "m60", "x").Value != "1" {
		t.Errorf("what is merged again and again: %v", err)
	}
}

// Compose takes what services have in common by merge keys, and so does who writes the file of a machine: its lines are found nevertheless.
func TestMergedFiles(t *testing.T) {
	expect(t, map[string]struct{ content, want string }{
		"services": {node + `    - path: /opt/app/compose.yaml
      contents:
        inline: |
          x-common: &common
            volumes: ["/home/core/data:/data"]
          x-web: &web
            web: {<<: *common, image: nginx}
          services:
            <<: *web
            db:
              <<: [*common]
              volumes: ["db:/data"]
`, "x:16: /opt/app/compose.yaml: cannot give /home/core/data to the service \"web\""},
		"a machine": {node + "    - <<: {path: /etc/selinux/config, overwrite: true}\n      contents: {inline: \"SELINUX=permissive\\nSELINUXTYPE=mcs\\n\"}\n",
			"x:10: Butane warns: unused key <<\nx:10: /etc/selinux/config:1: cannot have SELINUX=permissive here"},
	})
}
