package main

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	shipped "github.com/selinux-provision/selinux-provision"
	"github.com/selinux-provision/selinux-provision/stages"
)

// There is one table of the units that have to be enabled; the units that ship, the documents and the examples say the same.
func TestNeededUnits(t *testing.T) {
	var needed []string
	for _, u := range stages.NeededUnits() {
		needed = append(needed, u.Name)
	}
	units, err := shipped.Units()
	if err != nil {
		t.Fatal(err)
	}
	var installed []string
	names, err := fs.Glob(units, "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		content, err := fs.ReadFile(units, name)
		if err != nil { // a directory of drop-ins
			continue
		}
		if bytes.Contains(content, []byte("\n[Install]\n")) {
			installed = append(installed, name)
		}
		if name == needed[0] { // whoever enables the first one enables all
			also := regexp.MustCompile(`(?m)^Also=(.*)$`).FindSubmatch(content)
			if also == nil || !slices.Equal(strings.Fields(string(also[1])), needed[1:]) {
				t.Errorf("%s has Also=%q, want %q", name, also, needed[1:])
			}
		}
	}
	if got, want := slices.Sorted(slices.Values(installed)), slices.Sorted(slices.Values(needed)); !slices.Equal(got, want) {
		t.Errorf("an [Install] section have %q, want %q", got, want)
	}
	guide, err := os.ReadFile("../../docs/operator-guide.md")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(guide), stages.EnableCommand()+"\n"); got < 2 {
		t.Errorf("the guide has %q %d times, want it where the program is installed and where it begins again", stages.EnableCommand(), got)
	}
	for line := range strings.Lines(string(guide)) {
		if strings.HasPrefix(line, "systemctl enable ") && strings.TrimSpace(line) != stages.EnableCommand() {
			t.Errorf("the guide enables something else: %s", line)
		}
	}
	examples, err := fs.Glob(os.DirFS("../../ignition-examples"), "*.bu")
	if err != nil || len(examples) == 0 {
		t.Fatal(err, examples)
	}
	for _, name := range examples {
		content, err := os.ReadFile("../../ignition-examples/" + name)
		if err != nil {
			t.Fatal(err)
		}
		var enabled []string
		for _, m := range regexp.MustCompile(`(?m)^ *- name: (selinux-provision\S*)\n *enabled: true$`).FindAllSubmatch(content, -1) {
			enabled = append(enabled, string(m[1]))
		}
		if want := needed; !strings.HasPrefix(name, "sysext") && !slices.Equal(enabled, want) { // an image brings its own, see packaging/sysext
			t.Errorf("%s enables %q, want %q", name, enabled, want)
		}
	}
}

// TestExposure: no unit that can be hardened is more exposed than 4.0 of 10, as systemd-analyze counts. The watcher must share the host's mount
// namespace, and with it what a namespace protects.
func TestExposure(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	units, err := shipped.Units()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, units); err != nil {
		t.Fatal(err)
	}
	services, err := filepath.Glob(filepath.Join(dir, "*.service"))
	if err != nil || len(services) < 9 {
		t.Fatalf("found %q, %v", services, err)
	}
	for _, service := range services {
		name, most := filepath.Base(service), "40"
		if name == "selinux-provision-mountwatch.service" {
			most = "55"
		}
		if strings.HasSuffix(name, "@.service") {
			instance := strings.Replace(service, "@", "@data", 1)
			if err := os.Rename(service, instance); err != nil {
				t.Fatal(err)
			}
			service, most = instance, "55" // it reads the mount table for the watcher
		}
		if out, err := exec.Command(analyze, "security", "--no-pager", "--offline=yes", "--threshold="+most, service).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
