package main

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	shipped "github.com/selinux-provision/selinux-provision"
	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
)

// capabilitiesOf gives what a unit may have at most.
func capabilitiesOf(t *testing.T, unit string) (all []string) {
	t.Helper()
	units, err := shipped.Units()
	if err != nil {
		t.Fatal(err)
	}
	content, err := fs.ReadFile(units, unit)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^CapabilityBoundingSet=(.*)$`).FindAllSubmatch(content, -1) {
		all = append(all, strings.Fields(string(bytes.ToLower(m[1])))...)
	}
	if len(all) == 0 {
		t.Fatalf("%s has no CapabilityBoundingSet=", unit)
	}
	return all
}

// with gives the program with these capabilities and no others.
func with(t *testing.T, capabilities []string, args ...string) *exec.Cmd {
	t.Helper()
	self := program(t, args...)
	set := "-all"
	for _, c := range capabilities {
		set += ",+" + strings.TrimPrefix(c, "cap_")
	}
	cmd := exec.CommandContext(t.Context(), "setpriv", append([]string{"--bounding-set", set, "--inh-caps", set, "--no-new-privs"}, self.Args...)...)
	cmd.Env = self.Env
	return cmd
}

// onlyOnAHost says of the capabilities that no tree can need what needs them: there is no SELinux, no audit system and no overlay beneath it. They are
// taken away in vmtests.TestCapabilitiesOfUnits.
var onlyOnAHost = map[string]string{
	"cap_mac_admin":     "labels that the policy in force does not know are read and written as they are",
	"cap_sys_admin":     "trusted.overlay.opaque, and private clones of mounts",
	"cap_audit_control": "auditctl lists the rules of the kernel and counts what was lost",
}

// TestCapabilities runs the job of each stage's unit with the capabilities that the unit has, over what somebody else owns, as a backup that was
// unpacked leaves it; then with each of them taken away. What a stage is to need fails without, with the kernel's reason, or makes something else;
// and a unit has no capability of which nobody says what for.
func TestCapabilities(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("capabilities can be taken from root alone")
		}
		t.Skip("capabilities can be taken from root alone")
	}
	const refused, denied, otherwise = "operation not permitted", "permission denied", "the result is another one"
	step := flatcartest.New(t, flatcartest.LTS2023)
	step.Write("etc/selinux-provision/config.yaml", "version: 1\nmode: enforcing\naudit: {log_denials: true, dontaudit: strip}\npolicy:\n  booleans: {container_use_nfs: true}\n")
	for _, stage := range []struct {
		name    string
		without map[string]string
		// unproven are those that make no difference here: SELinux asks for CAP_FOWNER where somebody who is not the owner of a file sets its label.
		unproven []string
	}{
		{"policystore", map[string]string{"cap_chown": refused, "cap_dac_override": denied, "cap_fowner": refused, "cap_fsetid": otherwise}, nil},
		{"policy", map[string]string{"cap_chown": refused, "cap_dac_override": denied}, []string{"cap_fowner"}},
		{"audit", map[string]string{"cap_chown": refused, "cap_dac_override": denied}, []string{"cap_fowner"}},
		{"enforce", map[string]string{"cap_chown": refused, "cap_dac_override": denied}, []string{"cap_fowner"}},
	} {
		has := capabilitiesOf(t, "selinux-provision-stage-"+stage.name+".service")
		for _, c := range has {
			if stage.without[c] == "" && onlyOnAHost[c] == "" && !slices.Contains(stage.unproven, c) {
				t.Errorf("stage %s has %s, and nobody says what for", stage.name, c)
			}
		}
		// The group is one that root is not in, and its directories hand it on.
		const theirs = `cd "$1" && find etc/selinux etc/audit var/lib usr/lib/selinux/policy ! -type l -exec chown 1000:1000 {} + &&
find etc/audit var/lib usr/lib/selinux/policy -type f -exec chmod 0600 {} + && find usr/lib/selinux/policy -type d -exec chmod g+s {} +`
		run := func(capabilities []string) (made, said string, err error) {
			dir := t.TempDir()
			for _, script := range []string{`cp -a "$2"/. "$1"`, theirs} {
				if out, err := exec.Command("sh", "-c", script, "sh", dir, step.Dir).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			out, err := with(t, capabilities, "--root", dir, "stage", stage.name).CombinedOutput()
			list, lerr := exec.Command("sh", "-c", `cd "$1" && find etc var -not -name state.json -printf '%p %m %U:%G %y %l\n' | sort`, "sh", dir).Output()
			if lerr != nil {
				t.Fatal(lerr)
			}
			return string(list), strings.ToLower(string(out)), err
		}
		want, said, err := run(has)
		if err != nil {
			t.Errorf("stage %s with what its unit has: %v: %s", stage.name, err, said)
		}
		for c, how := range stage.without {
			made, said, err := run(slices.DeleteFunc(slices.Clone(has), func(other string) bool { return other == c }))
			if how == otherwise && made == want || how != otherwise && (err == nil || !strings.Contains(said, how)) {
				t.Errorf("stage %s without %s: %v: %s; want: %s", stage.name, c, err, said, how)
			}
		}
		if out, err := program(t, "--root", step.Dir, "stage", stage.name).CombinedOutput(); err != nil {
			t.Fatalf("stage %s: %v: %s", stage.name, err, out)
		}
	}
}
