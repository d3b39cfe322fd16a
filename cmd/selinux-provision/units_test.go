package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
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

// TestExposure: docs/threat-model.md has a row for each unit, and no unit is more exposed than it says, as systemd-analyze counts; nor than 4.0 of 10, but for
// those that must share the host's mount namespace, and with it what a namespace protects.
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
	page, err := os.ReadFile("../../docs/threat-model.md")
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
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(service), "selinux-provision-"), ".service")
		row := regexp.MustCompile("(?m)^\\| `" + name + "` \\| ([0-9]\\.[0-9]) \\|").FindSubmatch(page)
		if row == nil {
			t.Errorf("docs/threat-model.md has no row for %s", name)
			continue
		}
		most := strings.Replace(string(row[1]), ".", "", 1)
		if most > "40" && name != "mountwatch" && name != "volume@" {
			t.Errorf("%s is more exposed than 4.0: %s", name, row[1])
		}
		if strings.HasSuffix(name, "@") {
			instance := strings.Replace(service, "@", "@data", 1)
			if err := os.Rename(service, instance); err != nil {
				t.Fatal(err)
			}
			service = instance
		}
		if out, err := exec.Command(analyze, "security", "--no-pager", "--offline=yes", "--threshold="+most, service).CombinedOutput(); err != nil {
			t.Errorf("%s is more exposed than %s: %v\n%s", name, row[1], err, out)
		}
	}
}

// TestCommonSettings: what stands in the file that all stages share counts after what stands in a stage's unit, so a unit can only add to it. One that
// says otherwise says it in vain.
func TestCommonSettings(t *testing.T) {
	units, err := shipped.Units()
	if err != nil {
		t.Fatal(err)
	}
	settings := func(name string) map[string]bool {
		content, err := fs.ReadFile(units, name)
		if err != nil {
			t.Fatal(err)
		}
		keys := map[string]bool{}
		for _, m := range regexp.MustCompile(`(?m)^([A-Za-z]+)=`).FindAllSubmatch(content, -1) {
			keys[string(m[1])] = true
		}
		return keys
	}
	common := settings("selinux-provision-stage-.service.d/10-common.conf")
	for _, s := range stages.Order() {
		name := "selinux-provision-stage-" + s.Name + ".service"
		for key := range settings(name) {
			if common[key] && !slices.Contains([]string{"After", "Before", "Requires", "Wants"}, key) {
				t.Errorf("%s has %s=, and the common file's counts", name, key)
			}
		}
	}
}

// The watcher says when it is ready to every systemd that a release in use has: before 253 there is no Type=notify-reload, and a type that is not known
// is passed over, so that the one in the line before it stays (config_parse_service_type in systemd's load-fragment.c).
func TestTypeOfTheWatcher(t *testing.T) {
	manager := "/usr/lib/systemd/systemd"
	version, err := exec.CommandContext(t.Context(), manager, "--version").Output()
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal(err)
	} else if err != nil {
		t.Skip(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("a manager of root's does not tell what it has read: only root can be another user")
	}
	var number int
	if _, err := fmt.Sscanf(string(version), "systemd %d", &number); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "units-") //nolint:usetesting // an ordinary user cannot reach what is below t.TempDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	content, err := os.ReadFile("../../units/" + stages.MountwatchUnit)
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o777), os.WriteFile(filepath.Join(dir, stages.MountwatchUnit), content, 0o644)) //nolint:gosec // another user is to read it
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), manager, "--test", "--user", "--unit="+stages.MountwatchUnit)
	cmd.Env = []string{"XDG_RUNTIME_DIR=" + dir, "HOME=" + dir, "SYSTEMD_UNIT_PATH=" + dir + ":"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	dump, err := cmd.CombinedOutput()
	_, unit, found := strings.Cut(string(dump), "Unit "+stages.MountwatchUnit+":")
	if !found {
		t.Fatalf("systemd has not read the unit: %v\n%s", err, dump)
	}
	want := "Type: notify-reload\n"
	if number < 253 {
		want = "Type: notify\n"
	}
	if unit, _, _ = strings.Cut(unit, "-> Unit "); !strings.Contains(unit, want) {
		t.Errorf("systemd %d takes the unit for another type, want %s%s", number, want, unit)
	}
}
