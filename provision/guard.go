package provision

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/selinux-provision/selinux-provision/internal/lazyregexp"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

// Guard asks that enforcing be tried before it is kept.
type Guard struct {
	// Window is how long the host is watched, from the switch on.
	Window time.Duration
	// Units are watched during the window: a unit that fails, or that is not active when the window ends, ends the trial. Sorted.
	Units []string
	// MaxDenials is how many enforced denials the window may see; nil: denials are reported and end no trial.
	MaxDenials *int
	// Source is where the guard was declared last.
	Source Position
}

// Readiness says what is to be known about the host before it enforces.
type Readiness struct {
	// Window is how long the host has to be observed, time when it was off not counted.
	Window time.Duration
	// Units and Containers are the workloads that have to be seen running. Sorted.
	Units, Containers []string
	// Accept are the findings of denials that may go on to be denied, as Accepts reads them. Sorted.
	Accept []string
	// Source is where it was declared last.
	Source Position
}

// The values of keys that are left out.
const (
	DefaultGuardWindow     = 5 * time.Minute
	DefaultReadinessWindow = 24 * time.Hour
)

const (
	minWindow    = time.Second
	maxGuard     = 24 * time.Hour
	maxReadiness = 366 * 24 * time.Hour
	maxWorkloads = 256 // of each kind in one file
)

var (
	// What systemd.unit(5) allows in the name of a unit, with its suffix. Mounts, targets and the like have no process to watch, yet
	// they can fail.
	validUnit = lazyregexp.New(`^[A-Za-z0-9:_.\\@-]+\.(service|socket|target|mount|automount|timer|path|slice|scope|swap|device)$`)
	// Docker's names, and those of pods and containers in Kubernetes with slashes between them.
	validContainer = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*){0,2}$`)
)

// validFinding is what package avc makes of who, what and on what, of 6 to 64 digits.
//
// Lengths are looked at apart: a regular expression that counts is long.
var validFinding = lazyregexp.New(`^[0-9a-f]+$`)

// guardKeys is what one file says about the guard.
type guardKeys struct {
	off        bool
	window     *time.Duration
	units      []string
	maxDenials *int
	source     Position
}

// readinessKeys is what one file says about readiness.
type readinessKeys struct {
	window                    *time.Duration
	units, containers, accept []string
	source                    Position
}

func (p *parser) enforce(key string, n *yaml.Node) {
	p.mapping(key, n, keys{
		"guard": p.guard,
		"require_readiness": func(key string, n *yaml.Node) {
			p.doc.requireReadiness = p.boolean(key, n)
		},
		"permissive_domains": p.permissiveDomains,
	})
}

func (p *parser) permissiveDomains(key string, n *yaml.Node) {
	items, _ := p.sequence(key, n)
	for i, item := range items {
		key := fmt.Sprintf("%s[%d]", key, i)
		name, ok := p.text(key, item, "a domain")
		switch {
		case !ok:
		case secontext.IsName(name):
			p.doc.permissiveDomains = append(p.doc.permissiveDomains, PermissiveDomain{name, p.at(item.Line)})
		default:
			remedy := `write the type alone, as "ps -eZ" shows it in the third place of a context`
			if typ := secontext.Context(name).Type(); secontext.IsName(typ) {
				remedy = "write the type alone: " + clip(typ)
			}
			p.complain(item.Line, key, "cannot use "+quote(name)+" as a domain", remedy)
		}
	}
}

func (p *parser) guard(key string, n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		if n.Kind == yaml.ScalarNode && (n.Value == "off" || n.Value == "false" && n.Tag == "!!bool") {
			p.doc.guard = &guardKeys{off: true}
			return
		}
		p.complain(n.Line, key, "cannot use "+describe(n)+" as a guard", "write off, or {window: 5m, units: [docker.service], on_failure: revert}")
		return
	}
	g := &guardKeys{source: p.at(n.Line)}
	p.mapping(key, n, keys{
		"window":      func(key string, n *yaml.Node) { g.window = p.duration(key, n, maxGuard) },
		"units":       func(key string, n *yaml.Node) { g.units = p.names(key, n, checkUnit) },
		"max_denials": func(key string, n *yaml.Node) { g.maxDenials = p.count(key, n) },
		"on_failure":  func(key string, n *yaml.Node) { p.choice(key, n, "what follows a failure", "revert") },
	})
	p.doc.guard = g
}

func (p *parser) readiness(key string, n *yaml.Node) {
	r := &readinessKeys{source: p.at(n.Line)}
	if _, ok := p.mapping(key, n, keys{
		"window":     func(key string, n *yaml.Node) { r.window = p.duration(key, n, maxReadiness) },
		"units":      func(key string, n *yaml.Node) { r.units = p.names(key, n, checkUnit) },
		"containers": func(key string, n *yaml.Node) { r.containers = p.names(key, n, checkContainer) },
		"accept":     func(key string, n *yaml.Node) { r.accept = p.names(key, n, checkFinding) },
	}); ok {
		p.doc.readiness = r
	}
}

// duration takes Go's way to write one, and days.
func (p *parser) duration(key string, n *yaml.Node, longest time.Duration) *time.Duration {
	if n.Kind == yaml.ScalarNode {
		d, err := parseDuration(n.Value)
		switch {
		case err != nil:
		case d < minWindow || d > longest:
			p.complain(n.Line, key, "cannot use "+describe(n)+" as a window", fmt.Sprintf("write one from %s to %s", days(minWindow), days(longest)))
			return nil
		default:
			return &d
		}
	}
	p.complain(n.Line, key, "cannot use "+describe(n)+" as a window", "write a number with its unit, such as 30s, 5m, 24h or 7d")
	return nil
}

func parseDuration(text string) (time.Duration, error) {
	if n, ok := strings.CutSuffix(text, "d"); ok {
		if count, err := strconv.ParseUint(n, 10, 16); err == nil {
			return time.Duration(count) * 24 * time.Hour, nil
		}
	}
	return time.ParseDuration(text)
}

// days writes a whole number of days as such, and everything else as Go does, without zeros behind it.
func days(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func (p *parser) count(key string, n *yaml.Node) *int {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!int" {
		if c, err := strconv.ParseUint(n.Value, 10, 31); err == nil {
			return new(int(c))
		}
	}
	p.complain(n.Line, key, "cannot use "+describe(n)+" as a number", "write 0 or a larger whole number")
	return nil
}

func (p *parser) names(key string, n *yaml.Node, check func(string) (problem, remedy string)) (names []string) {
	items, _ := p.sequence(key, n)
	if len(items) > maxWorkloads {
		p.complain(n.Line, key, fmt.Sprintf("cannot watch more than %d", maxWorkloads), "name those that matter")
		return nil
	}
	for i, item := range items {
		key := fmt.Sprintf("%s[%d]", key, i)
		if item.Kind == yaml.ScalarNode && (item.Tag == "!!int" || item.Tag == "!!float") && isFinding(item.Value) {
			item.Tag = "!!str" // an ID of a finding may have no letter in it
		}
		if name, ok := p.text(key, item, "a name"); ok {
			if problem, remedy := check(name); problem != "" {
				p.complain(item.Line, key, problem, remedy)
				continue
			}
			names = append(names, name)
		}
	}
	return names
}

// isUnit is told by the name, of at most 240 bytes before the suffix: systemd takes 255 in all (unit-name.h, UNIT_NAME_MAX).
func isUnit(name string) bool {
	return validUnit().MatchString(name) && strings.LastIndexByte(name, '.') <= 240
}

func isFinding(id string) bool {
	return len(id) >= 6 && len(id) <= 64 && validFinding().MatchString(id)
}

func checkUnit(name string) (problem, remedy string) {
	if isUnit(name) {
		return "", ""
	}
	if isUnit(name + ".service") {
		return "cannot use " + quote(name) + " as the name of a unit", "write it with its suffix, such as " + clip(name) + ".service"
	}
	return "cannot use " + quote(name) + " as the name of a unit", `see "systemctl list-units" for the names`
}

func checkContainer(name string) (problem, remedy string) {
	if len(name) <= 512 && validContainer().MatchString(name) {
		return "", ""
	}
	return "cannot use " + quote(name) + " as the name of a container", `write it as "docker ps" shows it, or POD or NAMESPACE/POD for Kubernetes`
}

// mergeGuard lets a later file win key by key; lists add up. "guard: off" takes back everything that was said before.
func (s *State) mergeGuard(g *guardKeys) {
	if g == nil {
		return
	}
	if g.off {
		s.Guard = nil
		return
	}
	if s.Guard == nil {
		s.Guard = &Guard{Window: DefaultGuardWindow}
	}
	set(&s.Guard.Window, g.window)
	if g.maxDenials != nil {
		s.Guard.MaxDenials = g.maxDenials
	}
	s.Guard.Units = union(s.Guard.Units, g.units)
	s.Guard.Source = g.source
}

func (s *State) mergeReadiness(r *readinessKeys) {
	if r == nil {
		return
	}
	if s.Readiness == nil {
		s.Readiness = &Readiness{Window: DefaultReadinessWindow}
	}
	set(&s.Readiness.Window, r.window)
	s.Readiness.Units = union(s.Readiness.Units, r.units)
	s.Readiness.Containers = union(s.Readiness.Containers, r.containers)
	s.Readiness.Accept = union(s.Readiness.Accept, r.accept)
	s.Readiness.Source = r.source
}

// union gives the names of both, each once, sorted.
func union(a, b []string) []string {
	all := slices.Sorted(slices.Values(slices.Concat(a, b)))
	return slices.Compact(all)
}

// Fingerprint identifies everything that is declared, the policy and what is to happen to the mode, wherever it was written. It is for telling
// that the operator changed something.
func (s *State) Fingerprint() [sha256.Size]byte {
	policy, mode := s.Digest(), s.ModeFingerprint()
	rest := struct {
		LogDenials bool
		Readiness  *Readiness
	}{s.LogDenials, nil}
	if s.Readiness != nil {
		rest.Readiness = new(*s.Readiness)
		rest.Readiness.Source = Position{}
	}
	return fingerprint(rest, policy[:], mode[:])
}

// ModeFingerprint identifies what is declared under mode and enforce: the operator's wish for the mode, whatever the policy is.
func (s *State) ModeFingerprint() [sha256.Size]byte {
	wish := struct {
		Mode             Mode
		Guard            *Guard
		RequireReadiness bool
		Permissive       []string `json:",omitempty"`
	}{s.Mode, nil, s.RequireReadiness, s.permissiveTypes()}
	if s.Guard != nil {
		wish.Guard = new(*s.Guard)
		wish.Guard.Source = Position{}
	}
	return fingerprint(wish)
}

// GuardFingerprint identifies what is declared of the guard.
func (s *State) GuardFingerprint() [sha256.Size]byte {
	var guard *Guard
	if s.Guard != nil {
		guard = new(*s.Guard)
		guard.Source = Position{}
	}
	return fingerprint(guard)
}

func fingerprint(what any, before ...[]byte) [sha256.Size]byte {
	text, _ := json.Marshal(what) // no value of ours can fail to be encoded
	return sha256.Sum256(append(bytes.Join(before, nil), text...))
}
