package provision

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestGuardAndReadiness(t *testing.T) {
	for _, c := range []struct {
		name      string
		files     map[string]string
		guard     *Guard
		readiness *Readiness
		require   bool
	}{
		{name: "nothing", files: map[string]string{"config.yaml": "version: 1"}},
		{name: "off", files: map[string]string{"config.yaml": "version: 1\nenforce: {guard: off, require_readiness: false}"}},
		{name: "defaults", files: map[string]string{"config.yaml": "version: 1\nenforce: {guard: {}}\nreadiness:\n"},
			guard:     &Guard{Window: 5 * time.Minute, Source: Position{dir + "config.yaml", 2}},
			readiness: &Readiness{Window: 24 * time.Hour, Source: Position{dir + "config.yaml", 3}}},
		{name: "everything", files: map[string]string{"config.yaml": `version: 1
enforce:
  guard:
    window: 90s
    units: [docker.service, containerd.service, docker.service]
    max_denials: 0
    on_failure: revert
  require_readiness: true
readiness: {window: 7d, units: ["getty@tty1.service"], containers: [web, kube-system/flannel-x, ns/pod/box], accept: [0a1b2c, 123456, "000001", 12e345, "0a1b2d:read,open", 0a1b2d:write]}
`},
			guard: &Guard{Window: 90 * time.Second, Units: []string{"containerd.service", "docker.service"}, MaxDenials: new(0), Source: Position{dir + "config.yaml", 4}},
			readiness: &Readiness{Window: 7 * 24 * time.Hour, Units: []string{"getty@tty1.service"},
				Containers: []string{"kube-system/flannel-x", "ns/pod/box", "web"}, Accept: []string{"000001", "0a1b2c", "0a1b2d:read,open", "0a1b2d:write", "123456", "12e345"}, Source: Position{dir + "config.yaml", 9}},
			require: true},
		{name: "merged", files: map[string]string{
			"config.yaml":     "version: 1\nenforce: {guard: {window: 1m, units: [a.service], max_denials: 3}, require_readiness: true}\nreadiness: {window: 1h, containers: [a]}",
			"config.d/a.yaml": "version: 1\nenforce: {guard: {window: 2m, units: [b.service]}, require_readiness: false}\nreadiness: {containers: [b]}",
		},
			guard: &Guard{Window: 2 * time.Minute, Units: []string{"a.service", "b.service"}, MaxDenials: new(3), Source: Position{dir + "config.d/a.yaml", 2}},
			readiness: &Readiness{Window: time.Hour, Containers: []string{"a", "b"},
				Source: Position{dir + "config.d/a.yaml", 3}}},
		{name: "the longest windows", files: map[string]string{"config.yaml": "version: 1\nenforce: {guard: {window: 24h}}\nreadiness: {window: 366d}"},
			guard:     &Guard{Window: 24 * time.Hour, Source: Position{dir + "config.yaml", 2}},
			readiness: &Readiness{Window: 366 * 24 * time.Hour, Source: Position{dir + "config.yaml", 3}}},
		{name: "taken back", files: map[string]string{
			"config.yaml":     "version: 1\nenforce: {guard: {window: 1m}}",
			"config.d/a.yaml": "version: 1\nenforce: {guard: off}",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{}
			for name, content := range c.files {
				files[dir+name] = content
			}
			s, err := Load(plant(t, files), "")
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(s.Guard, c.guard) || !reflect.DeepEqual(s.Readiness, c.readiness) || s.RequireReadiness != c.require {
				t.Errorf("got  %+v %+v %v\nwant %+v %+v %v", s.Guard, s.Readiness, s.RequireReadiness, c.guard, c.readiness, c.require)
			}
		})
	}
}

func TestGuardMessages(t *testing.T) {
	guard := func(inside string) string { return "version: 1\nenforce:\n  guard: " + inside }
	ready := func(inside string) string { return "version: 1\nreadiness: " + inside }
	const windowRemedy = "write a number with its unit, such as 30s, 5m, 24h or 7d"
	for _, c := range []struct{ name, text, want string }{
		{"guard on", guard("on"), `c.yaml:3: enforce.guard: cannot use "on" as a guard: write off, or {window: 5m, units: [docker.service], on_failure: revert}`},
		{"guard list", guard("[]"), `c.yaml:3: enforce.guard: cannot use a list as a guard: write off, or {window: 5m, units: [docker.service], on_failure: revert}`},
		{"guard key", guard("{widow: 5m}"), `c.yaml:3: enforce.guard.widow: cannot use an unknown key: did you mean "window"?`},
		{"window number", guard("{window: 300}"), `c.yaml:3: enforce.guard.window: cannot use "300" as a window: ` + windowRemedy},
		{"window empty", guard("{window: }"), `c.yaml:3: enforce.guard.window: cannot use an empty value as a window: ` + windowRemedy},
		{"window short", guard("{window: 10ms}"), `c.yaml:3: enforce.guard.window: cannot use "10ms" as a window: write one from 1s to 24h`},
		{"window long", guard("{window: 2d}"), `c.yaml:3: enforce.guard.window: cannot use "2d" as a window: write one from 1s to 24h`},
		{"window negative", guard("{window: -5m}"), `c.yaml:3: enforce.guard.window: cannot use "-5m" as a window: write one from 1s to 24h`},
		{"unit suffix", guard("{units: [docker]}"), `c.yaml:3: enforce.guard.units[0]: cannot use "docker" as the name of a unit: write it with its suffix, such as docker.service`},
		{"unit path", guard("{units: [/a]}"), `c.yaml:3: enforce.guard.units[0]: cannot use "/a" as the name of a unit: see "systemctl list-units" for the names`},
		{"units text", guard("{units: docker.service}"), `c.yaml:3: enforce.guard.units: cannot use "docker.service" here: write a list, each item behind "- "`},
		{"denials", guard("{max_denials: -1}"), `c.yaml:3: enforce.guard.max_denials: cannot use "-1" as a number: write 0 or a larger whole number`},
		{"failure", guard("{on_failure: reboot}"), `c.yaml:3: enforce.guard.on_failure: cannot use "reboot" as what follows a failure: write revert`},
		{"domains", "version: 1\nenforce:\n  permissive_domains:\n  - good_t\n  - system_u:system_r:a_t:s0\n  - 'a t'\n  - [x]\n",
			`c.yaml:5: enforce.permissive_domains[1]: cannot use "system_u:system_r:a_t:s0" as a domain: write the type alone: a_t
c.yaml:6: enforce.permissive_domains[2]: cannot use "a t" as a domain: write the type alone, as "ps -eZ" shows it in the third place of a context
c.yaml:7: enforce.permissive_domains[3]: cannot use a list as a domain: write it as text, in quotes if need be`},
		{"require", "version: 1\nenforce: {require_readiness: maybe}", `c.yaml:2: enforce.require_readiness: cannot use "maybe" as a boolean: write true or false`},
		{"readiness key", ready("{container: [a]}"), `c.yaml:2: readiness.container: cannot use an unknown key: did you mean "containers"?`},
		{"readiness window", ready("{window: 2y}"), `c.yaml:2: readiness.window: cannot use "2y" as a window: ` + windowRemedy},
		{"container", ready("{containers: [a b]}"), `c.yaml:2: readiness.containers[0]: cannot use "a b" as the name of a container: write it as "docker ps" shows it, or POD or NAMESPACE/POD for Kubernetes`},
		{"finding", ready("{accept: [x]}"), `c.yaml:2: readiness.accept[0]: cannot use "x" as the ID of a finding: write one of the IDs that "selinux-provision denials" shows, such as 0a1b2c` + withPermissions},
		{"finding without quotes", ready("{accept: [0a1b2c:read,open]}"), `c.yaml:2: readiness.accept[1]: cannot use "open" as the ID of a finding: write one of the IDs that "selinux-provision denials" shows, such as 0a1b2c` + withPermissions},
		{"finding's permissions", ready("{accept: ['0a1b2c:']}"), `c.yaml:2: readiness.accept[0]: cannot use "0a1b2c:" as the ID of a finding: write one of the IDs that "selinux-provision denials" shows, such as 0a1b2c` + withPermissions},
		{"finding's permission", ready("{accept: ['0a1b2c:read, open']}"), `c.yaml:2: readiness.accept[0]: cannot use "0a1b2c:read, open" as the ID of a finding: write one of the IDs that "selinux-provision denials" shows, such as 0a1b2c` + withPermissions},
		{"container number", ready("{containers: [1]}"), `c.yaml:2: readiness.containers[0]: cannot use "1" as a name: write it as text, in quotes if need be`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("c.yaml", strings.NewReader(c.text))
			var problems Errors
			if !errors.As(err, &problems) || err.Error() != c.want {
				t.Errorf("\ngot  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestFingerprint(t *testing.T) {
	base := func() *State {
		return &State{Mode: Enforcing, Guard: &Guard{Window: time.Minute, Units: []string{"a.service"}}, Readiness: &Readiness{Window: time.Hour, Containers: []string{"a"}}}
	}
	want := base().Fingerprint()
	moved := base()
	moved.Guard.Source, moved.Readiness.Source = Position{"x", 1}, Position{"y", 2}
	if moved.Fingerprint() != want {
		t.Error("the place in the file changes the fingerprint")
	}
	seen := map[[32]byte]string{want: "nothing"}
	for name, change := range map[string]func(*State){
		"mode":       func(s *State) { s.Mode = Permissive },
		"policy":     func(s *State) { s.SharedVolumes = true },
		"audit":      func(s *State) { s.LogDenials = true },
		"no guard":   func(s *State) { s.Guard = nil },
		"window":     func(s *State) { s.Guard.Window++ },
		"units":      func(s *State) { s.Guard.Units = nil },
		"denials":    func(s *State) { s.Guard.MaxDenials = new(0) },
		"require":    func(s *State) { s.RequireReadiness = true },
		"domains":    func(s *State) { s.PermissiveDomains = []PermissiveDomain{{Type: "a_t"}} },
		"readiness":  func(s *State) { s.Readiness = nil },
		"accept":     func(s *State) { s.Readiness.Accept = []string{"0a1b2c"} },
		"containers": func(s *State) { s.Readiness.Units, s.Readiness.Containers = s.Readiness.Containers, nil },
	} {
		s := base()
		change(s)
		if other, known := seen[s.Fingerprint()]; known {
			t.Errorf("%s: the fingerprint of %s", name, other)
		}
		seen[s.Fingerprint()] = name
		// The operator's wish for the mode is what stands under mode and enforce, and nothing else.
		wish := slices.Contains([]string{"mode", "no guard", "window", "units", "denials", "require", "domains"}, name)
		if (s.ModeFingerprint() != base().ModeFingerprint()) != wish {
			t.Errorf("%s: counts as a wish for the mode: %v", name, !wish)
		}
	}
	if moved.ModeFingerprint() != base().ModeFingerprint() {
		t.Error("the place in the file changes the wish for the mode")
	}
}

const withPermissions = `, or with the permissions that may be denied, such as "0a1b2c:read,open" in quotes`

// An ID has whatever is denied of a finding; with permissions it has these alone.
func TestAccepts(t *testing.T) {
	for _, c := range []struct {
		entries string
		denied  string
		want    bool
	}{
		{"0a1b2c", "read write", true},
		{"0a1b2c", "", true},
		{"0a1b2d", "read", false},
		{"", "read", false},
		{"0a1b2c:read", "read", true},
		{"0a1b2c:read", "read write", false},
		{"0a1b2c:read,write", "read write", true},
		{"0a1b2c:read 0a1b2c:write", "read write", true},
		{"0a1b2c:read 0a1b2d:write", "read write", false},
		{"0a1b2c:read 0a1b2c", "read write", true},
		{"0a1b2c:read", "", true},
	} {
		if got := Accepts(strings.Fields(c.entries), "0a1b2c", strings.Fields(c.denied)); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	for denied, want := range map[string]string{"": "0a1b2c", "read": "0a1b2c:read", "open read": "0a1b2c:open,read", "read x'}": "0a1b2c", "0x4000000 read": "0a1b2c:0x4000000,read"} {
		got := Acceptance("0a1b2c", strings.Fields(denied))
		if problem, _ := checkFinding(got); got != want || problem != "" || !Accepts([]string{got}, "0a1b2c", strings.Fields(denied)) {
			t.Errorf("%s: %s, %s", denied, got, problem)
		}
	}
}
