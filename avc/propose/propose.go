// Package propose writes a policy module from denials: a new domain that is all that the container domain is, and may do besides what
// was seen and chosen. The text is made to be read before it is used: each rule says where it comes from, and what is dangerous is held
// back until somebody names it.
//
// The same denials and the same policy give the same text. Do not use it for denials that a label, a boolean or a level would cure:
// package judge says which those are.
package propose

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/danger"
	"github.com/selinux-provision/selinux-provision/avc/judge"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/printable"
)

// Request says what module to write.
type Request struct {
	// Name is the module's. The domain is Name_t, or Name if it ends so.
	Name string
	// Base is the domain to be like, the container runtime's default.
	Base string
	// Existing is a domain to add rules to, in place of a new one.
	Existing string
	// Replaces says that a module of this name is in the policy, and that this text is to take its place: what it allows is kept.
	Replaces bool
	// Named are the IDs of findings that were chosen one by one. Of others, only those count that need a rule.
	Named []string
	// Dangerous are the names of dangers that are allowed; "all" is every one.
	Dangerous []string
	// SeenOnly leaves out what was not seen, although the access that was denied goes on with it.
	SeenOnly bool
	// NextBoot are the types of what the next boot takes as its own and runs: extensions of the system, and the state of this program.
	NextBoot []string
	// Forbidden gives the rule of the policy that forbids ever to allow a type something, "" if there is none; nil where such rules are not known.
	// like is the type that the first one has all attributes of, "" for a type that is in the policy.
	Forbidden func(source, like, target, class, permission string) string
}

// Rule is a rule of the module, with the findings that it comes from.
type Rule struct {
	Target      string   `json:"target"` // "self" for the domain itself
	Class       string   `json:"class"`
	Permissions []string `json:"permissions"`
	// Unseen are the permissions beside these that were not denied yet, because the access was stopped before it needed them.
	Unseen   []string `json:"unseen,omitempty"`
	Findings []string `json:"findings"`
	Ioctl    []uint16 `json:"ioctl,omitempty"` // commands, where the policy limits the domain to some
	from     []source
}

type source struct {
	finding     *judge.Finding
	permissions []string
}

// HeldBack is something dangerous that was seen and is not in the module.
type HeldBack struct {
	Danger     string `json:"danger"` // the name with which it can be allowed
	Reason     string `json:"reason"`
	Finding    string `json:"finding"`
	Target     string `json:"target"`
	Class      string `json:"class"`
	Permission string `json:"permission"`
}

// LeftOut is a finding for which a rule is not the answer.
type LeftOut struct {
	Finding string `json:"finding"`
	Reason  string `json:"reason"`
}

// Module is the result.
type Module struct {
	Name     string     `json:"module"`
	Domain   string     `json:"domain"`
	CIL      string     `json:"cil"`
	Rules    []Rule     `json:"rules"`
	HeldBack []HeldBack `json:"held_back,omitempty"`
	LeftOut  []LeftOut  `json:"left_out,omitempty"`
}

// ErrNothing says that no finding needs a rule.
var ErrNothing = errors.New("none of the denials needs a rule")

// CheckName says whether a module may have this name, and gives its domain.
func CheckName(name string) (domain string, err error) {
	valid := name != "" && len(name) <= 64 && name[0] >= 'a' && name[0] <= 'z' && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_'
	})
	if !valid {
		return "", fmt.Errorf("cannot name a module %s: begin with a small letter, and use small letters, digits and _", printable.Quote(name))
	}
	if strings.HasPrefix(name, "selinux_provision_") {
		return "", fmt.Errorf("cannot name a module %s: names that begin with selinux_provision_ are for this program's own", printable.Quote(name))
	}
	return strings.TrimSuffix(name, "_t") + "_t", nil
}

// Write makes the module. ErrNothing: no finding needs a rule; the Module then says why.
func Write(p *policydb.Policy, req Request, findings []*judge.Finding) (*Module, error) {
	domain, err := CheckName(req.Name)
	if err != nil {
		return nil, err
	}
	m := &Module{Name: req.Name, Domain: domain, Rules: []Rule{}}
	req.Base, req.Existing = p.Name(req.Base), p.Name(req.Existing)
	if req.Existing != "" {
		m.Domain = req.Existing
		if req.Existing == p.Unlabeled() {
			return nil, fmt.Errorf("cannot add to %s: it is no domain but the type of all that has no label that the policy knows: name the domain that the process had", req.Existing)
		}
		if !p.Has(req.Existing) {
			_, err := p.Describe(req.Existing)
			return nil, fmt.Errorf("cannot add to a domain: %w", err)
		}
	} else if p.Has(domain) && !req.Replaces {
		return nil, fmt.Errorf("cannot make the domain %s: the policy has it already: choose another name, or add to it with --domain %s", domain, domain)
	}
	chosen := m.choose(p, req, findings)
	m.rules(p, req, chosen)
	if !req.SeenOnly {
		m.complete(p, req, chosen)
	}
	var kept []policydb.Rule
	var like policydb.Likeness
	if req.Existing == "" {
		if like, err = p.Like(req.Base); err != nil {
			return nil, fmt.Errorf("cannot make a domain like %s: %w", req.Base, err)
		}
		if req.Replaces && p.Has(domain) {
			own, err := p.Like(domain)
			if err != nil {
				return nil, err
			}
			kept = m.keep(own.Rules, like.Rules)
		}
	}
	if len(m.Rules) == 0 && len(kept) == 0 {
		return m, ErrNothing
	}
	m.CIL = m.write(p, req, like, kept)
	return m, nil
}

// choose gives the findings that become rules. Names that the policy does not have never do: what stands in a rule is policy, and a
// record can say anything.
func (m *Module) choose(p *policydb.Policy, req Request, findings []*judge.Finding) (chosen []*judge.Finding) {
	out := func(f *judge.Finding, reason string) { m.LeftOut = append(m.LeftOut, LeftOut{f.ID, reason}) }
	for _, f := range findings {
		named := slices.Contains(req.Named, f.ID)
		known, unknown := p.Resolve(policydb.Question{Target: f.Target, Class: f.Class, Permissions: f.PermissionList()})
		switch {
		case f.Domain != req.Base && f.Domain != m.Domain:
			out(f, fmt.Sprintf("it is a denial of %s, and not of %s", f.Domain, cmp.Or(req.Existing, req.Base)))
		case f.Kind != avc.Denied || f.Fix.Kind == judge.Context:
			out(f, f.Fix.Text)
		case f.Fix.Kind == judge.Categories:
			out(f, "no rule helps: "+f.Fix.Text)
		case unknown != nil:
			out(f, "there can be no rule: "+unknown.Error())
		case !named && (f.Type == avc.TypeUserAVC || f.Type == avc.TypeUserSELinuxErr):
			out(f, fmt.Sprintf("a program says so and not the kernel, and a container may be able to (if you believe it: --only %s)", f.ID))
		case named, f.Fix.Kind == judge.Rule, f.Fix.Kind == judge.Domain, f.Fix.Kind == judge.Role && f.Fix.Role.Type == "":
			if f.Target != known.Target {
				renamed := *f
				f, renamed.Target = &renamed, known.Target
			}
			chosen = append(chosen, f)
		case f.Fix.Kind == judge.Nothing:
			out(f, f.Fix.Text)
		default:
			out(f, fmt.Sprintf("%s helps: %s (to have a rule for it all the same: --only %s)", f.Fix.Kind, f.Fix.Text, f.ID))
		}
	}
	slices.SortFunc(chosen, func(a, b *judge.Finding) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(m.LeftOut, func(a, b LeftOut) int { return cmp.Compare(a.Finding, b.Finding) })
	return chosen
}

// rules makes one rule for each target and class, and holds back what is dangerous.
func (m *Module) rules(p *policydb.Policy, req Request, chosen []*judge.Finding) {
	type key struct{ target, class string }
	byKey := map[key]*Rule{}
	for _, f := range chosen {
		self := f.Target == f.Domain || f.Target == m.Domain
		target := f.Target
		if self {
			target = policydb.Self
		}
		var fine []string
		for _, permission := range f.PermissionList() {
			if rule := m.forbidden(req, f.Target, f.Class, permission); rule != "" {
				m.LeftOut = append(m.LeftOut, LeftOut{f.ID, fmt.Sprintf("the policy forbids %s on %s, class %s, to a domain like this, and does not build with such a rule: %s", permission, f.Target, f.Class, rule)})
				continue
			}
			if name, reason := req.held(f.Target, f.Class, permission, self); name != "" {
				m.HeldBack = append(m.HeldBack, HeldBack{name, reason, f.ID, f.Target, f.Class, permission})
				continue
			}
			fine = append(fine, permission)
		}
		if len(fine) == 0 {
			continue
		}
		r := byKey[key{target, f.Class}]
		if r == nil {
			r = &Rule{Target: target, Class: f.Class}
			byKey[key{target, f.Class}] = r
		}
		r.Findings = append(r.Findings, f.ID)
		r.from = append(r.from, source{f, fine})
		if slices.Contains(fine, "ioctl") {
			missing, _ := p.Ioctl(policydb.Question{Domain: f.Domain, Target: f.Target, Class: f.Class}, f.Ioctl)
			for _, command := range missing {
				if at, found := slices.BinarySearch(r.Ioctl, command); !found {
					r.Ioctl = slices.Insert(r.Ioctl, at, command)
				}
			}
		}
		for _, permission := range fine {
			if at, found := slices.BinarySearch(r.Permissions, permission); !found {
				r.Permissions = slices.Insert(r.Permissions, at, permission)
			}
		}
	}
	for _, r := range byKey {
		m.Rules = append(m.Rules, *r)
	}
	slices.SortFunc(m.Rules, compareRules)
}

// nextBoot is the name of the danger in writing where the next boot takes from what it runs.
const nextBoot = "next-boot"

// DangerNames are the names by which dangerous things can be asked for, beside "all".
func DangerNames() []string {
	return slices.Sorted(slices.Values(append(danger.Names(), nextBoot)))
}

// held gives the danger for which a permission is held back, "" if there is none or it was named.
func (req *Request) held(target, class, permission string, self bool) (name, reason string) {
	name, reason = danger.Of(target, class, permission, self)
	if danger.Changes(class, permission) && slices.Contains(req.NextBoot, target) {
		name, reason = nextBoot, "what the next boot runs as root has this type too, such as /var/lib/extensions and the state of this program"
	}
	if slices.Contains(req.Dangerous, name) || slices.Contains(req.Dangerous, "all") {
		return "", ""
	}
	return name, reason
}

func compareRules(a, b Rule) int {
	return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.Class, b.Class))
}

// forbidden gives the rule of the policy for which the domain can never be allowed this, "" if there is none.
func (m *Module) forbidden(req Request, target, class, permission string) string {
	if req.Forbidden == nil {
		return ""
	}
	like := req.Base
	if req.Existing != "" {
		like = ""
	}
	if target == req.Base {
		target = m.Domain
	}
	return req.Forbidden(m.Domain, like, target, class, permission)
}

// keep gives the rules that the module in the policy has beyond those of the base, and that no new rule repeats.
func (m *Module) keep(own, base []policydb.Rule) (kept []policydb.Rule) {
	for _, r := range own {
		if r.Statement != "allow" || r.Source != policydb.Self || r.Condition != "" {
			continue
		}
		r.Permissions = slices.DeleteFunc(slices.Clone(r.Permissions), func(permission string) bool {
			return slices.ContainsFunc(base, func(b policydb.Rule) bool {
				return b.Statement == "allow" && b.Condition == "" && b.Source == r.Source && b.Target == r.Target && b.Class == r.Class && slices.Contains(b.Permissions, permission)
			}) || slices.ContainsFunc(m.Rules, func(n Rule) bool {
				return n.Target == r.Target && n.Class == r.Class && (slices.Contains(n.Permissions, permission) || slices.Contains(n.Unseen, permission))
			})
		})
		if len(r.Permissions) > 0 {
			kept = append(kept, r)
		}
	}
	return kept
}

func (m *Module) write(p *policydb.Policy, req Request, like policydb.Likeness, kept []policydb.Rule) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if req.Existing != "" {
		line("; Rules for the existing domain %s, made from denials by selinux-provision denials --module %s --domain %s.", m.Domain, req.Name, m.Domain)
		line("; EVERY process in %s gets them, not only the one that was denied.", m.Domain)
	} else {
		line("; The domain %s: all that %s is, and what was denied and chosen. Made by selinux-provision denials --module %s.", m.Domain, req.Base, req.Name)
		line(";")
		for _, text := range m.Use() {
			line("; %s", text)
		}
		p.WriteDomain(line, policydb.NewDomain{Module: m.Name, Name: m.Domain, Base: req.Base,
			Permitted: func(r policydb.Rule) policydb.Rule { return m.permitted(line, req, r) }}, like)
	}
	line("")
	line("; What was denied.")
	for _, r := range m.Rules {
		for _, s := range r.from {
			line("; %s", provenance(s))
		}
		if len(r.Permissions) > 0 {
			line("(allow %s %s (%s (%s)))", m.Domain, r.Target, r.Class, strings.Join(r.Permissions, " "))
		}
		if len(r.Unseen) > 0 {
			line("; Not seen yet: what was denied goes on with it (%s). --seen-only leaves it out.", strings.Join(r.Findings, " "))
			line("(allow %s %s (%s (%s)))", m.Domain, r.Target, r.Class, strings.Join(r.Unseen, " "))
		}
		if len(r.Ioctl) > 0 {
			limited := policydb.Rule{Statement: "allowx", Source: m.Domain, Target: r.Target, Class: r.Class}
			for _, command := range r.Ioctl {
				limited.Commands = append(limited.Commands, policydb.Range{Low: command, High: command})
			}
			line("%s", limited.CIL(m.Domain))
		}
	}
	if len(kept) > 0 {
		line("")
		line("; What the module had before.")
		for _, r := range kept {
			line("%s", r.CIL(m.Domain))
		}
	}
	if len(m.HeldBack) > 0 {
		line("")
		line("; Held back, because it is dangerous. --allow-dangerous NAME puts it in.")
		for _, h := range m.HeldBack {
			line("; %s", printable.Text(fmt.Sprintf("%s (%s): %s on %s, class %s [%s]", h.Danger, h.Reason, h.Permission, h.Target, h.Class, h.Finding)))
		}
	}
	return b.String()
}

// permitted takes from a rule of the base what the policy forbids to every domain but the base itself, and says so.
func (m *Module) permitted(line func(string, ...any), req Request, r policydb.Rule) policydb.Rule {
	if r.Statement != "allow" || r.Source != policydb.Self || req.Forbidden == nil {
		return r
	}
	target := r.Target
	if target == policydb.Self {
		target = m.Domain
	}
	r.Permissions = slices.DeleteFunc(slices.Clone(r.Permissions), func(permission string) bool {
		rule := m.forbidden(req, target, r.Class, permission)
		if rule != "" {
			line("; Left out: %s", printable.Text(fmt.Sprintf("%s on %s, class %s, which the policy forbids to every other domain: %s", permission, r.Target, r.Class, rule)))
		}
		return rule != ""
	})
	return r
}

// provenance says where a rule comes from.
func provenance(s source) string {
	f := s.finding
	who := cmp.Or(f.Subject.String(), f.Domain)
	if f.Subject.Image != "" {
		who += " (" + f.Subject.Image + ")"
	}
	text := fmt.Sprintf("%s: %s, ", f.ID, strings.Join(s.permissions, " "))
	const format = "2006-01-02 15:04:05 MST"
	if f.Count == 1 {
		text += "once"
	} else {
		text += fmt.Sprintf("%d times", f.Count)
	}
	if !f.First.IsZero() {
		first, last := f.First.UTC().Format(format), f.Last.UTC().Format(format)
		if first == last {
			text += " at " + first
		} else {
			text += " from " + first + " to " + last
		}
	}
	text += ", " + who
	if len(f.Paths) > 0 {
		text += ", " + f.Paths[0].Path
		if f.PathCount > 1 {
			text += fmt.Sprintf(" and %d more", f.PathCount-1)
		}
	}
	if len(f.Serials) > 0 {
		text += fmt.Sprintf(", audit %d", f.Serials[0])
		for _, serial := range f.Serials[1:] {
			text += fmt.Sprintf(" %d", serial)
		}
	}
	return printable.Text(text)
}

// Use says in a few lines how the module is used.
func (m *Module) Use() []string {
	return []string{
		fmt.Sprintf("Put this file at /etc/selinux-provision/modules/%s.cil, then: selinux-provision apply", m.Name),
		fmt.Sprintf("Docker:      docker run --security-opt label=type:%s ...", m.Domain),
		"Kubernetes:  securityContext:",
		"               seLinuxOptions:",
		"                 type: " + m.Domain,
		fmt.Sprintf("Then run the workload, and look again: selinux-provision denials --source %s", m.Domain),
		fmt.Sprintf("To see all that it needs in one run, add (typepermissive %s) for as long as that takes.", m.Domain),
	}
}
