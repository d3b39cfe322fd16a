package vmtests

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/stages"
)

const (
	// transition is what a container runtime does when it starts a container: on a host without labels it is denied.
	transition = "runcon system_u:system_r:container_t:s0:c1,c2 /bin/sh -c true"
	configFile = "/etc/selinux-provision/config.yaml"
	modulesDir = "/etc/selinux-provision/modules/"

	goodModule = "(type vmtest_good_t)\n(roletype object_r vmtest_good_t)\n(typeattributeset file_type vmtest_good_t)\n"
	// badModule names a type that no policy has, in its second line.
	badModule = "(type vmtest_bad_t)\n(allow vmtest_missing_t vmtest_bad_t (file (read)))\n"
)

// transitionDenied allows the denials that a test provokes with transition.
func transitionDenied() Allowed {
	return Allowed{`avc: +denied .*comm="runcon"`, "the test provokes it"}
}

// policyPartly allows the policy stage to fail because something had to be left out, which the test declares on purpose.
func policyPartly() Allowed {
	return Allowed{`(selinux-provision-stage-policy\.service: Failed with result|Failed to start selinux-provision-stage-policy\.service|^selinux-provision-stage-policy\.service |Failed to start selinux-provision-….*file contexts)`,
		"a module was declared that cannot be built"}
}

// example is Example for tests.
func example(t *testing.T, name string) []byte {
	t.Helper()
	Require(t)
	config, err := Example(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// withDocker is the example for a host that runs containers.
func withDocker(t *testing.T) []byte {
	t.Helper()
	config, err := addToIgnition(example(t, "enforcing.bu"), nil, map[string]string{"docker.service": ""})
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// startProvisioned gives a machine after its first boot with the example, docker running.
func startProvisioned(t *testing.T, allowed ...Allowed) *Machine {
	t.Helper()
	return StartCopy(t, "enforcing", Options{Ignition: withDocker(t), Allowed: allowed})
}

// put writes a file in the guest.
func (m *Machine) put(t *testing.T, path, content string) {
	t.Helper()
	if err := m.Put(t.Context(), path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// install does by hand what the example has Ignition do, and nothing runs yet.
func (m *Machine) install(t *testing.T) {
	t.Helper()
	binary, err := Product()
	if err != nil {
		t.Fatal(err)
	}
	root := RepositoryRoot()
	files := map[string]string{binary: "/opt/bin/selinux-provision"}
	for _, pattern := range []string{"*.service", "*.target", "*.path", "*.timer", "*.d/*.conf"} {
		found, err := filepath.Glob(filepath.Join(root, "units", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			below, _ := filepath.Rel(filepath.Join(root, "units"), path)
			files[path] = "/etc/systemd/system/" + below
		}
	}
	for from, to := range files {
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if from == binary {
			mode = 0o755
		}
		if err := m.Put(t.Context(), to, content, mode); err != nil {
			t.Fatal(err)
		}
	}
	m.put(t, configFile, "version: 1\nmode: enforcing\naudit: {log_denials: true, dontaudit: strip}\n")
}

// provision installs and runs all stages, as the next boot would.
func (m *Machine) provision(t *testing.T) {
	t.Helper()
	m.install(t)
	m.Must(t, "systemctl daemon-reload && "+stages.EnableCommand()+" --quiet")
}

// reboot is Reboot for tests.
func (m *Machine) reboot(t *testing.T, changes ...func(*Options)) {
	t.Helper()
	if err := m.Reboot(t.Context(), changes...); err != nil {
		m.fail(t, t.Fatal, "%v", err)
	}
}

// fails runs a command that has to end with this exit code, and gives everything that it said.
func (m *Machine) fails(t *testing.T, command string, exit int) string {
	t.Helper()
	out, err := m.Run(t.Context(), command)
	if err != nil {
		m.fail(t, t.Fatal, "%v", err)
	}
	if out.Exit != exit {
		m.fail(t, t.Error, "%q in the guest: exit code %d, want %d\n%s%s", command, out.Exit, exit, out.Stdout, out.Stderr)
	}
	return out.Stdout + out.Stderr
}

// expect compares what a command prints.
func (m *Machine) expect(t *testing.T, what, command, want string) {
	t.Helper()
	if got := m.Must(t, command); got != want {
		m.fail(t, t.Error, "%s: %q in the guest says\n%s\nwant\n%s", what, command, got, want)
	}
}

// report is what the tests read of status --json.
type report struct {
	AsDeclared bool `json:"as_declared"`
	Mode       struct {
		Running, Configured, Declared string
		CommandLine                   string `json:"command_line"`
	}
	Store struct {
		Generation  int
		CarriedOver []string `json:"carried_over"`
	}
	Quarantine []struct {
		Kind, Name string
		Line       int
	}
	ForeignLabels []struct{ Path, Label string } `json:"foreign_labels"`
	Cache         struct {
		Threshold, Declared int
		Stats               struct{ Lookups, Misses, Buckets uint64 }
	} `json:"avc_cache"`
	Problems []struct{ Problem, Remedy string }
}

func (r report) problems() string {
	var lines []string
	for _, p := range r.Problems {
		lines = append(lines, p.Problem+" | "+p.Remedy)
	}
	return strings.Join(lines, "\n")
}

func (r report) quarantined() string {
	var names []string
	for _, q := range r.Quarantine {
		names = append(names, fmt.Sprintf("%s:%d", q.Name, q.Line))
	}
	return strings.Join(names, " ")
}

// status asks selinux-provision. Exit code 0 says that everything is as declared, 3 that something is not.
func (m *Machine) status(t *testing.T, exit int) report {
	t.Helper()
	out, err := m.Run(t.Context(), "/opt/bin/selinux-provision status --json")
	if err != nil {
		m.fail(t, t.Fatal, "%v", err)
	}
	if out.Exit != exit {
		m.fail(t, t.Error, "status: exit code %d, want %d\n%s%s", out.Exit, exit, out.Stdout, out.Stderr)
	}
	var r report
	if err := json.Unmarshal([]byte(out.Stdout), &r); err != nil {
		t.Fatalf("status --json: %v\n%s%s", err, out.Stdout, out.Stderr)
	}
	return r
}

// journal is what the stages said in this boot.
func (m *Machine) journal(t *testing.T) string {
	t.Helper()
	return m.Must(t, "journalctl -b -o cat -u 'selinux-provision-stage-*'")
}

// unchanged checks that no stage of this boot had anything to do, and that none wrote anything: nothing where they work has
// changed since systemd took over from the initrd.
func (m *Machine) unchanged(t *testing.T) {
	t.Helper()
	if log := m.journal(t); strings.Count(log, ": nothing to do") != 4 {
		t.Errorf("the boot did something:\n%s", log)
	}
	m.expect(t, "what this boot wrote", `find /var/lib/selinux /etc/selinux /var/lib/selinux-provision /etc/audit/rules.d /var/lib/.selinux-provision* `+
		`-newerct "$(systemctl show -P UserspaceTimestamp --timestamp=us+utc)" 2>/dev/null || true`, "")
}

// containersLast checks that the services of containers started in this boot after the last stage was done, and run.
func (m *Machine) containersLast(t *testing.T) {
	t.Helper()
	for _, unit := range []string{"containerd.service", "docker.service"} {
		m.expect(t, unit, "systemctl is-active "+unit, "active")
		m.Must(t, fmt.Sprintf(`test "$(systemctl show -P ExecMainStartTimestampMonotonic %s)" -gt "$(systemctl show -P InactiveExitTimestampMonotonic selinux-provision-stage-enforce.service)"`, unit))
		m.Must(t, fmt.Sprintf(`test "$(systemctl show -P ExecMainStartTimestampMonotonic %s)" -gt "$(systemctl show -P ExecMainExitTimestampMonotonic selinux-provision-stage-enforce.service)"`, unit))
	}
}

// goodState is the same on every layout once the stages have run.
func (m *Machine) goodState(t *testing.T) {
	t.Helper()
	m.expect(t, "the good state", `cd / && stat -c '%n: %F %C' etc/selinux/config etc/selinux/mcs && stat -c '%n: %F' var/lib/selinux && grep ^SELINUX etc/selinux/config && getenforce &&
for f in etc/selinux/mcs/policy/policy.*; do cmp $f var/lib/selinux/mcs/active/policy.kern && echo "PID 1 loads what was built"; done
touch /var/lib/selinux/mcs/vmtest && rm /var/lib/selinux/mcs/vmtest && auditctl -l`,
		`etc/selinux/config: regular file system_u:object_r:selinux_config_t:s0
etc/selinux/mcs: directory system_u:object_r:selinux_config_t:s0
var/lib/selinux: directory
SELINUX=enforcing
SELINUXTYPE=mcs
Enforcing
PID 1 loads what was built
No rules`)
	m.status(t, 0)
}

// denialIsLogged checks that the transition is denied, with one denial in the journal.
func (m *Machine) denialIsLogged(t *testing.T) {
	t.Helper()
	const count = `journalctl -b --sync >/dev/null; journalctl -b --no-pager | grep 'avc: ' | grep -c 'comm="runcon"' || true`
	before := m.Must(t, count)
	m.fails(t, transition, 126)
	m.expect(t, "denials after one more, before there were "+before, fmt.Sprintf(`%s | { read n; echo $((n - %s)); }`, count, before), "1")
}

// tree lists what the stages change, with everything that could differ: type, mode, owner, target, label and content.
func (m *Machine) tree(t *testing.T) string {
	t.Helper()
	return m.Must(t, `cd / && find etc/selinux etc/audit/rules.d var/lib/selinux var/lib/selinux-provision -printf '%p %y %m %U:%G %l %Z\n' 2>/dev/null | sort
find etc/selinux etc/audit/rules.d var/lib/selinux -type f -print0 | sort -z | xargs -0 -r sha256sum`)
}

// upper runs a command where what lies below overlays is seen: "etc" there is what ROOT holds of /etc.
func (m *Machine) upper(t *testing.T, command string) string {
	t.Helper()
	return m.Must(t, "mount --bind / /mnt && cd /mnt && { "+command+"; }; cd / && umount /mnt")
}

// difference shows the lines in which two listings differ.
func difference(before, after string) string {
	var out []string
	compare := func(sign, of, with string) {
		in := map[string]bool{}
		for line := range strings.Lines(with) {
			in[strings.TrimSpace(line)] = true
		}
		for line := range strings.Lines(of) {
			if line = strings.TrimSpace(line); !in[line] {
				out = append(out, sign+line)
			}
		}
	}
	compare("- ", before, after)
	compare("+ ", after, before)
	return strings.Join(out[:min(len(out), 40)], "\n")
}
