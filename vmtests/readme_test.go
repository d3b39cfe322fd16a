package vmtests

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadmeOnAMachine runs what the README shows on a machine, and compares what is printed. The fingerprint of the policy is that of the
// image, and differs.
func TestReadmeOnAMachine(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(filepath.Join(RepositoryRoot(), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	sessions := regexp.MustCompile("(?s)\n```console\n(.*?)```\n").FindAllStringSubmatch(string(readme), -1)
	if len(sessions) == 0 {
		t.Fatal("the README shows nothing on a machine")
	}
	m := startProvisioned(t)
	fingerprint := regexp.MustCompile(`\b[0-9a-f]{12}\b`)
	for _, session := range sessions {
		for _, step := range strings.Split("\n"+session[1], "\n# ")[1:] {
			command, want, _ := strings.Cut(step, "\n")
			// Flatcar has /opt/bin in everybody's path.
			got := m.Must(t, "PATH=$PATH:/opt/bin; "+command)
			if fingerprint.ReplaceAllString(got, "FINGERPRINT") != fingerprint.ReplaceAllString(strings.TrimSpace(want), "FINGERPRINT") {
				t.Errorf("%s prints\n%s\nand the README shows\n%s", command, got, want)
			}
		}
	}
}
