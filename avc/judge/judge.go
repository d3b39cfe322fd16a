// Package judge says for each group of denials what most likely helps. It asks in the order in which an experienced person asks:
// is the target mislabelled for its path, is it a volume that nobody labelled, is there a boolean, is there a domain that may
// already, do the categories forbid it; only then is a rule the answer.
//
// Everything that it knows comes in with Evidence, so that it can judge a log of another host too, with less to say.
package judge

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/attribution"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
)

// Evidence is what can be known beside the denials. Each part may be missing.
type Evidence struct {
	// Policy is the loaded policy, or the one of a tree.
	Policy *policydb.Policy
	// Container gives what is known of a subject's container, nil if nothing is.
	Container func(avc.Subject) *attribution.Container
	// Mounts are the host's.
	Mounts attribution.Mounts
	// Inode finds a file of the host by name; it gives 0 if there is none.
	Inode func(name string) uint64
	// Expected gives the context that the policy's file contexts have for the path of a file of a class, "" if they have none.
	Expected func(class, name string) string
	// VolumeContext is the context that volumes get by default ("file" in lxc_contexts), ProcessContext that of containers.
	VolumeContext, ProcessContext string
}

// Kind is what helps.
type Kind string

// The kinds, in the order in which they are tried.
const (
	Nothing    Kind = "nothing"    // no denial, or allowed by now
	Relabel    Kind = "relabel"    // the target has not the label that its path should have
	Volume     Kind = "volume"     // the target is in a volume without a label for containers
	Boolean    Kind = "boolean"    // a boolean allows it
	Domain     Kind = "domain"     // another domain may do it
	Categories Kind = "categories" // the rules allow it, levels or another constraint do not
	Context    Kind = "context"    // a context that is not valid was asked for
	Rule       Kind = "rule"       // the policy has to be extended
)

// Fix is the answer for a group.
type Fix struct {
	Kind Kind `json:"kind"`
	// Text says it in one sentence.
	Text string `json:"text"`
	// Command does it, Config is the snippet that declares it in /etc/selinux-provision/config.yaml; at most one of them is
	// needed.
	Command string `json:"command,omitempty"`
	Config  string `json:"config,omitempty"`
	// Also says what must be done besides, or what to mind.
	Also string `json:"also,omitempty"`

	Booleans     []policydb.Setting     `json:"booleans,omitempty"`
	Alternatives []policydb.Alternative `json:"alternatives,omitempty"`
}

// Seen is a path and how often it was denied.
type Seen struct {
	Path  string `json:"path"`           // as the process sees it
	Host  string `json:"host,omitempty"` // as the host sees it, where that is known
	Count uint64 `json:"count"`
}

// Finding is a group of denials with what helps. Groups that differ in nothing but the path are one finding.
type Finding struct {
	// ID names the finding in the same way each time: it depends on who, what and on what, and not on times, counts and paths.
	ID string `json:"id"`
	avc.Group
	FileSystem string `json:"file_system,omitempty"` // type of the file system
	Paths      []Seen `json:"paths,omitempty"`       // the most frequent ones
	PathCount  int    `json:"path_count"`            // how many there are
	Fix        Fix    `json:"fix"`
}

// maxPaths is how many paths a finding lists.
const maxPaths = 20

// Judge judges groups. The findings come most frequent first.
func (e *Evidence) Judge(groups []*avc.Group) []*Finding {
	cases := make([]*oneCase, 0, len(groups))
	for _, g := range groups {
		if e.Policy != nil { // a record of another image may have a name that is an alias by now
			own := *g
			own.Domain, own.Target = e.Policy.Name(g.Domain), e.Policy.Name(g.Target)
			g = &own
		}
		c := e.open(g)
		c.fix = e.fix(c)
		cases = append(cases, c)
	}
	e.domains(cases)
	return merge(cases)
}

// oneCase is a group on its way to a finding.
type oneCase struct {
	*avc.Group
	host     string // path on the host
	expected string // context for that path
	mount    *attribution.MountPoint
	fix      Fix
}

func (e *Evidence) open(g *avc.Group) *oneCase {
	c := &oneCase{Group: g}
	if !fileClass(g.Class) {
		return c
	}
	var container *attribution.Container
	if e.Container != nil && (g.Subject.ID != "" || g.Subject.Pod != "") {
		container = e.Container(g.Subject)
	}
	switch {
	case container != nil && g.Path != "":
		c.host, _ = container.HostPath(g.Path)
	case container != nil && g.Ino != 0 && e.Inode != nil:
		c.host = e.search(container, g)
	case container == nil && g.Path != "" && !e.confined(g):
		c.host = g.Path
	}
	c.mount = e.Mounts.Of(g.Dev, c.host)
	if c.host != "" && e.Expected != nil {
		c.expected = e.Expected(g.Class, c.host)
	}
	return c
}

// confined tells whether a denial is a container's, whose paths are not the host's, even if nothing else is known of it.
func (e *Evidence) confined(g *avc.Group) bool {
	if g.Subject.ID != "" || g.Subject.Container != "" {
		return true
	}
	if g.Domain == avc.Context(e.ProcessContext).Type() {
		return true
	}
	return strings.Contains(g.Source.Level(), ":") && !strings.Contains(g.Source.Level(), "-")
}

// search looks for a file of which only name and inode are known: in the directories that the container has of the host, the
// directory itself and what lies directly in it.
func (e *Evidence) search(container *attribution.Container, g *avc.Group) string {
	for _, m := range container.Mounts {
		if e.Inode(m.Source) == g.Ino {
			return m.Source
		}
		if g.Name == "" || strings.Contains(g.Name, "/") || g.Name == ".." {
			continue
		}
		if name := path.Join(m.Source, g.Name); e.Inode(name) == g.Ino {
			return name
		}
	}
	return ""
}

func fileClass(class string) bool {
	switch class {
	case "file", "dir", "lnk_file", "chr_file", "blk_file", "sock_file", "fifo_file":
		return true
	}
	return false
}

func (c *oneCase) question() policydb.Question {
	return policydb.Question{Domain: c.Domain, Target: c.Target, Class: c.Class, Permissions: c.PermissionList()}
}

// fix finds what helps one case; what needs a look at all cases of a subject comes later.
func (e *Evidence) fix(c *oneCase) Fix {
	switch c.Kind {
	case avc.Granted:
		return Fix{Kind: Nothing, Text: "this was allowed, and a rule of the policy asks for it to be reported"}
	case avc.Invalid:
		return Fix{Kind: Context, Text: fmt.Sprintf("the context %s is not valid in the policy: its type, its role, or the type for that role is not declared",
			cmp.Or(c.Invalid, "that was computed"))}
	}
	if c.Raw != "" {
		return unknownLabel(c)
	}
	forbidden, known := policydb.Constraint{}, false
	allowed := false
	if e.Policy != nil {
		forbidden, known = e.Policy.Constraints(string(c.Source), string(c.Object), c.Class, c.PermissionList())
		missing, _ := e.Policy.Ioctl(c.question(), c.Ioctl)
		allowed = e.Policy.Allowed(c.question()) && len(missing) == 0
	} else if c.Outside {
		known, forbidden.Forbidden, forbidden.ByLevel = true, c.PermissionList(), true
	}
	blocked := known && len(forbidden.Forbidden) > 0
	if allowed && !blocked && known {
		return Fix{Kind: Nothing, Text: "the policy in force allows this by now"}
	}
	also := ""
	if blocked && forbidden.ByLevel {
		also = "the categories forbid it too: " + levelAdvice(c)
	}
	if f, ok := e.mislabelled(c, allowed); ok {
		return f
	}
	if !allowed {
		if f, ok := e.volume(c); ok {
			return f
		}
	}
	if e.Policy != nil && !allowed {
		if answers := e.Policy.Booleans(c.question()); len(answers) > 0 {
			return booleanFix(answers[0], also)
		}
	}
	if allowed && blocked || e.Policy == nil && c.Outside {
		return constraintFix(c, forbidden)
	}
	if !e.confined(c.Group) {
		return Fix{
			Kind: Rule, Text: fmt.Sprintf("no rule lets %s do this", c.Domain),
			Command: fmt.Sprintf("selinux-provision denials --module NAME --source %s --domain %s", c.Domain, c.Domain), Also: also,
		}
	}
	return Fix{
		Kind: Rule, Text: fmt.Sprintf("no rule lets %s do this; a domain of its own can have one, without giving it to others", c.Domain),
		Command: "selinux-provision denials --module NAME", Also: also,
	}
}

// unknownLabel is the answer for a file whose label the policy does not know: that of a module that is gone, or of another system.
func unknownLabel(c *oneCase) Fix {
	f := Fix{Kind: Context, Text: fmt.Sprintf("the target has the label %s, which the policy in force does not know, so that it counts as %s: install the module that declares %s, or give the file another label",
		c.Raw, c.Target, avc.Context(c.Raw).Type())}
	if c.host != "" {
		f.Command = "restorecon -RFv " + quote(c.host)
	}
	return f
}

// mislabelled recognises a target whose label is not the one of its path, if with that one the access is allowed. allowed says that the rules
// allow it with the label that it has: then only the level can be wrong.
func (e *Evidence) mislabelled(c *oneCase, allowed bool) (Fix, bool) {
	want := avc.Context(c.expected).Type()
	if want == "" {
		return Fix{}, false
	}
	command := "restorecon -RFv " + quote(c.host)
	if allowed {
		level := avc.Context(c.expected).Level()
		if want != c.Target || level == c.Object.Level() {
			return Fix{}, false
		}
		if v, known := e.Policy.Constraints(string(c.Source), c.expected, c.Class, c.PermissionList()); !known || len(v.Forbidden) > 0 {
			return Fix{}, false
		}
		return Fix{
			Kind: Relabel, Text: fmt.Sprintf("%s has the level %s, and by the policy's file contexts a path like this has %s, with which it is allowed", c.host, c.Object.Level(), level),
			Command: command,
		}, true
	}
	if want == c.Target {
		return Fix{}, false
	}
	if e.Policy != nil {
		q := c.question()
		q.Target = want
		if !e.Policy.Allowed(q) {
			return Fix{}, false
		}
	}
	return Fix{
		Kind: Relabel, Text: fmt.Sprintf("%s has the type %s, and by the policy's file contexts a path like this has %s, which %s may use", c.host, c.Target, want, c.Domain),
		Command: command,
	}, true
}

func quote(name string) string {
	if name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("/._-+:@,", r)
	}) {
		return name
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
}

// systemPath tells whether a directory belongs to the system, so that it must not become a container's. What lies below /etc can be made for
// one.
func systemPath(name string) bool {
	for _, dir := range []string{
		"/bin", "/boot", "/dev", "/etc/selinux", "/etc/selinux-provision", "/etc/ssl", "/home", "/lib", "/lib64", "/oem", "/proc", "/root", "/run", "/sbin", "/sys", "/tmp", "/usr", "/var/lib/docker", "/var/lib/containerd",
		"/var/lib/containers", "/var/lib/kubelet", "/var/lib/selinux", "/var/log", "/var/run", "/var/spool",
	} {
		if name == dir || strings.HasPrefix(name, dir+"/") {
			return true
		}
	}
	return slices.Contains([]string{"/", "/etc", "/opt", "/srv", "/mnt", "/media", "/var", "/var/lib", "/var/opt"}, name)
}

// volume recognises a target that is the host's and that no container could use: without a label, or with that of what the host has
// there, in a directory that somebody gave to the container.
func (e *Evidence) volume(c *oneCase) (Fix, bool) {
	if !fileClass(c.Class) || e.VolumeContext == "" || !e.confined(c.Group) {
		return Fix{}, false
	}
	volume := avc.Context(e.VolumeContext).Type()
	if c.Target == volume {
		return Fix{}, false
	}
	if e.Policy != nil {
		q := c.question()
		q.Target = volume
		if !e.Policy.Allowed(q) {
			return Fix{}, false
		}
	}
	unlabeled := "unlabeled_t"
	if e.Policy != nil && e.Policy.Unlabeled() != "" {
		unlabeled = e.Policy.Unlabeled()
	}
	dir := e.volumeOf(c)
	if c.Target != unlabeled && dir == "" {
		return Fix{}, false
	}
	state := "has the type " + c.Target + ", which is not for containers"
	if c.Target == unlabeled {
		state = "has no label"
	}
	if dir == "" {
		return Fix{
			Kind: Volume, Text: "the target " + state + "; it looks like a volume that nobody labelled",
			Also: "find it on the host, and declare it under volumes, or give it to the container with :z (shared) or :Z (its own)",
		}, true
	}
	if systemPath(dir) {
		if c.Target != unlabeled {
			return Fix{}, false
		}
		return Fix{
			Kind: Volume, Text: fmt.Sprintf("%s %s, and belongs to the system: give the container a directory of its own instead", dir, state),
		}, true
	}
	f := Fix{Kind: Volume, Text: fmt.Sprintf("%s %s", dir, state), Also: "or start the container with the volume option :z (shared) or :Z (its own)"}
	if strings.HasPrefix(dir, "/etc/") {
		f.Also = "it lies in /etc: if nothing but the container uses it, start the container with the volume option :z (shared) or :Z (its own); otherwise give it a directory of its own"
		return f, true
	}
	if c.mount != nil && c.mount.Path == dir && dir != "/" {
		f.Config = fmt.Sprintf("volumes:\n  - name: %s\n    match: {mountpoint: %s}\n    context: %s", scalar(path.Base(dir)), scalar(dir), e.VolumeContext)
	} else {
		f.Config = fmt.Sprintf("policy:\n  file_contexts:\n    - {path: '%s(/.*)?', context: '%s'}", expression(dir), e.VolumeContext)
	}
	return f, true
}

// scalar writes a name in YAML, in quotes if it needs them.
func scalar(name string) string {
	if quoted := quote(name); quoted != name || strings.ContainsAny(name, ",:@") {
		return "'" + strings.ReplaceAll(name, "'", "''") + "'"
	}
	return name
}

// expression makes a path into a regular expression for itself.
func expression(name string) string {
	var b strings.Builder
	for _, r := range name {
		if strings.ContainsRune(`.^$*+?()[]{}|\`, r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return strings.ReplaceAll(b.String(), "'", "''")
}

// volumeOf gives the directory that was given to the container, or the mount point of a file system that is no part of the root
// file system.
func (e *Evidence) volumeOf(c *oneCase) string {
	if c.host != "" && e.Container != nil {
		if container := e.Container(c.Subject); container != nil {
			best := ""
			for _, m := range container.Mounts {
				if (c.host == m.Source || strings.HasPrefix(c.host, strings.TrimSuffix(m.Source, "/")+"/")) && len(m.Source) > len(best) {
					best = m.Source
				}
			}
			if best != "" {
				return best
			}
		}
	}
	if c.mount != nil && c.mount.Path != "/" && c.mount.Block {
		return c.mount.Path
	}
	return ""
}

func booleanFix(settings []policydb.Setting, also string) Fix {
	var words, pairs []string
	for _, s := range settings {
		state := map[bool]string{true: "on", false: "off"}[s.Value]
		words = append(words, s.Boolean+" "+state)
		pairs = append(pairs, fmt.Sprintf("%s: %t", s.Boolean, s.Value))
	}
	return Fix{
		Kind: Boolean, Text: "the policy allows this with the boolean " + strings.Join(words, " and "),
		Config: "policy:\n  booleans: {" + strings.Join(pairs, ", ") + "}", Also: also, Booleans: settings,
	}
}

func constraintFix(c *oneCase, forbidden policydb.Constraint) Fix {
	if !forbidden.ByLevel {
		return Fix{Kind: Categories, Text: "the rules allow this, and a constraint on users, roles or types forbids it; no allow rule helps"}
	}
	return Fix{Kind: Categories, Text: "the rules allow this, the categories forbid it; no allow rule helps: " + levelAdvice(c)}
}

func levelAdvice(c *oneCase) string {
	source, target := cmp.Or(c.Source.Level(), "no level"), cmp.Or(c.Object.Level(), "no level")
	return fmt.Sprintf("%s is asked for %s: share the target at level s0 (volume option :z, or level: s0 in its volume rule), or run the container with its level (--security-opt label=level:%s)",
		source, target, target)
}

// domains looks for a domain that may do all that is left for a rule, for each subject. Another domain is an answer to all of a
// container's denials or to none.
func (e *Evidence) domains(cases []*oneCase) {
	if e.Policy == nil {
		return
	}
	type asker struct {
		subject avc.Subject
		domain  string
	}
	left := map[asker][]*oneCase{}
	for _, c := range cases {
		if c.fix.Kind == Rule && (e.confined(c.Group)) {
			s := c.Subject
			s.Evidence = ""
			left[asker{s, c.Domain}] = append(left[asker{s, c.Domain}], c)
		}
	}
	for who, these := range left {
		var questions []policydb.Question
		for _, c := range these {
			questions = append(questions, c.question())
		}
		answers := e.Policy.Alternatives(who.domain, questions)
		if len(answers) == 0 {
			continue
		}
		best := answers[0]
		for _, c := range these {
			if best.Loses > tolerable {
				c.fix.Alternatives = answers[:min(3, len(answers))]
				c.fix.Also = strings.TrimPrefix(c.fix.Also+fmt.Sprintf("; %s may do this, but not %.0f %% of what %s may", best.Domain, 100*best.Loses, who.domain), "; ")
				continue
			}
			c.fix = Fix{
				Kind: Domain, Text: fmt.Sprintf("the domain %s may already do this: run the container in it", best.Domain),
				Command: "docker run --security-opt label=type:" + best.Domain + " ...", Also: strings.TrimPrefix(c.fix.Also+"; in Kubernetes seLinuxOptions.type", "; "),
				Alternatives: answers[:min(3, len(answers))],
			}
		}
	}
}

// tolerable is the share of what a domain may do that may be lost with another one, for it to be a likely answer.
const tolerable = 0.1

type mergeKey struct{ what, cure string }

// merge makes findings.
func merge(cases []*oneCase) []*Finding {
	byKey := map[mergeKey]*Finding{}
	for _, c := range cases {
		key := mergeKey{c.what(), c.cure()}
		f := byKey[key]
		if f == nil {
			f = &Finding{Group: *c.Group, Fix: c.fix}
			f.Permissions = maps.Clone(c.Permissions)
			f.Serials = slices.Clone(c.Serials)
			if c.mount != nil {
				f.FileSystem = c.mount.Type
			}
			byKey[key] = f
		} else {
			f.merge(c)
		}
		if name := cmp.Or(c.Path, c.Name); name != "" {
			f.PathCount++
			if len(f.Paths) < maxPaths { // the cases come most frequent first
				f.Paths = append(f.Paths, Seen{name, c.host, c.Count})
			}
		}
	}
	name(byKey)
	return slices.SortedFunc(maps.Values(byKey), func(a, b *Finding) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.ID, b.ID)) })
}

func (f *Finding) merge(c *oneCase) {
	f.Count += c.Count
	f.Enforced += c.Enforced
	f.Permissive += c.Permissive
	for p, n := range c.Permissions {
		f.Permissions[p] += n
	}
	if c.First.Before(f.First) {
		f.First = c.First
	}
	if c.Last.After(f.Last) {
		f.Last, f.Source, f.Object, f.PID, f.Comm, f.Exe = c.Last, c.Source, c.Object, c.PID, c.Comm, c.Exe
	}
	f.Folded = f.Folded || c.Folded
	for _, s := range c.Serials {
		if len(f.Serials) < 4 {
			f.Serials = append(f.Serials, s)
		}
	}
	for _, command := range c.Ioctl {
		if at, found := slices.BinarySearch(f.Ioctl, command); !found {
			f.Ioctl = slices.Insert(slices.Clone(f.Ioctl), at, command)
		}
	}
	if f.Fix.Kind == Relabel && f.Fix.Command != c.fix.Command && len(f.Fix.Command) < 400 {
		f.Fix.Command += " " + quote(c.host)
	}
}

// what names what the groups of one finding have in common, their fix aside.
func (c *oneCase) what() string {
	who := cmp.Or(c.Subject.String(), c.Subject.ID)
	return strings.Join([]string{
		who, c.Kind.String(), c.Type.String(), c.Domain, c.Target, c.Class, c.Op, c.Invalid, c.Raw, strconv.FormatBool(c.Outside), c.Dev,
	}, "\x00")
}

// cure names the fix, as far as it has to be the same for all groups of a finding.
func (c *oneCase) cure() string {
	switch c.fix.Kind {
	case Relabel:
		return string(Relabel) + " " + avc.Context(c.expected).Type()
	case Volume, Boolean:
		return string(c.fix.Kind) + " " + c.fix.Config
	}
	return string(c.fix.Kind)
}

// name gives the findings their IDs, and the command for a module names its finding. One that differs from another by its fix alone has it in its ID; else the fix is no part of it, so that
// the ID stays when another rule or label changes what helps.
func name(findings map[mergeKey]*Finding) {
	taken := map[string]bool{}
	keys := slices.SortedFunc(maps.Keys(findings), func(a, b mergeKey) int { return cmp.Or(cmp.Compare(a.what, b.what), cmp.Compare(a.cure, b.cure)) })
	for _, key := range keys {
		text := key.what
		if taken[text] {
			text += "\x00" + key.cure
		}
		taken[key.what] = true
		sum := sha256.Sum256([]byte(text))
		f := findings[key]
		f.ID = hex.EncodeToString(sum[:3])
		if f.Fix.Kind == Rule {
			f.Fix.Command += " --only " + f.ID
		}
	}
}
