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
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/attribution"
	"github.com/selinux-provision/selinux-provision/avc/danger"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/roles"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
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
	// Label gives the label that a file of the host has now, "" if nobody knows. It is nil where the denials are not this host's, or it does not run.
	Label func(name string) string
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
	Role       Kind = "role"       // a role that can be declared allows it
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
	// Role is the one that allows it.
	Role *roles.Offer `json:"role,omitempty"`

	dangers      []string // the names of those in what the booleans allow
	ofContainers bool     // the booleans are for a domain of containers
}

// step tells whether this is what comes first, and does not allow the access by itself.
func (f *Fix) step() bool { return f.Kind == Relabel && f.Config != "" }

// Seen is a path and how often it was denied.
type Seen struct {
	Path  string `json:"path"`           // as the process sees it
	Host  string `json:"host,omitempty"` // as the host sees it, where that is known
	Count uint64 `json:"count"`
}

// Finding is a group of denials with what helps. Groups that differ in nothing but the path are one finding.
type Finding struct {
	// ID names what was done to what by which kind of workload, the same way each time: it stays when the container is gone. Findings of several
	// containers can have the same.
	ID string `json:"id"`
	avc.Group
	FileSystem string `json:"file_system,omitempty"` // type of the file system
	Paths      []Seen `json:"paths,omitempty"`       // the most frequent ones
	PathCount  int    `json:"path_count"`            // how many there are
	Fix        Fix    `json:"fix"`
}

// maxPaths is how many paths a finding lists.
const maxPaths = 20

// Judge judges groups. What stopped most accesses comes first, then what was reported most.
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
	sameAct(e, cases)
	e.settled(cases)
	e.domains(cases)
	e.flips(cases)
	return merge(cases)
}

// oneCase is a group on its way to a finding.
type oneCase struct {
	*avc.Group
	host     string // path on the host
	expected string // context for that path
	mount    *attribution.MountPoint
	fix      Fix
	place    *oneCase // whose fix it has, of the same act; nil: its own
	cured    string   // the type that the target has by now, which was to help; "" if it has not
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
		if container.Several && (e.Inode == nil || g.Ino == 0 || e.Inode(c.host) != g.Ino) {
			c.host = "" // another container of the pod may have it there
		}
	case container != nil && g.Ino != 0 && e.Inode != nil:
		c.host = e.search(container, g)
	case container == nil && g.Path != "" && !e.confined(g):
		c.host = g.Path
	}
	if c.host == "" && e.confined(g) {
		c.host = e.podLog(g)
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
	if associates(g) {
		return false
	}
	if g.Domain == e.containers() {
		return true
	}
	return strings.Contains(g.Source.Level(), ":") && !strings.Contains(g.Source.Level(), "-")
}

// containers gives the domain that containers have by default, "" if nobody knows.
func (e *Evidence) containers() string {
	base := avc.Context(e.ProcessContext).Type()
	if e.Policy != nil {
		return e.Policy.Name(base)
	}
	return base
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

// The places where the kubelet keeps the logs of pods, and links to them.
const podLogs, containerLogs = "/var/log/pods", "/var/log/containers"

// logsAbove gives the one of them that a path is at or below, "" if it is none's.
func logsAbove(name string) string {
	for _, dir := range []string{containerLogs, podLogs} {
		if name == dir || strings.HasPrefix(name, dir+"/") {
			return dir
		}
	}
	return ""
}

// podLog recognises the directories of logs, and the links in one of them, by name and inode: a record has no path of a link, and a container that has
// ended has no mounts any more.
func (e *Evidence) podLog(g *avc.Group) string {
	if e.Inode == nil || g.Ino == 0 || g.Name == "" || strings.Contains(g.Name, "/") {
		return ""
	}
	for _, name := range []string{podLogs, containerLogs, path.Join(containerLogs, g.Name)} {
		if path.Base(name) == g.Name && e.Inode(name) == g.Ino {
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
		return e.invalid(c)
	}
	switch {
	case c.RawSource != "":
		return e.unknownDomain(c)
	case c.Raw != "":
		return unknownLabel(c)
	}
	switch {
	case c.Op == avc.OpValidate:
		return validated(c)
	case associates(c.Group):
		return Fix{Kind: Context, Text: fmt.Sprintf("a file with the label %s may not be on the file system %s, which has the label %s: give that file system a label for it with the mount option context= or fscontext=, or the file another label",
			c.Source, c.Dev, c.Object)}
	}
	if f, ok := e.otherPolicy(c); ok {
		return f
	}
	if f, ok := e.bounded(c); ok {
		return f
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
	if f, ok := e.kubelets(c, allowed); ok {
		return f
	}
	if f, ok := e.logs(c); ok {
		return f
	}
	if f, ok := e.mislabelled(c, allowed); ok {
		return f
	}
	if !allowed {
		if f, ok := e.rolesPath(c); ok {
			return f
		}
		if f, ok := e.socket(c); ok {
			return f
		}
		if f, ok := e.vendors(c); ok {
			return f
		}
		if f, ok := e.image(c); ok {
			return f
		}
		if f, ok := e.volume(c); ok {
			return f
		}
	}
	if e.Policy != nil && !allowed {
		if answers := e.Policy.Booleans(c.question()); len(answers) > 0 {
			return booleanFix(answers[0], also)
		}
	}
	if f, ok := e.commands(c); ok && !allowed {
		return f
	}
	if c.Class == "process2" && !allowed {
		return e.noNewPrivs(c)
	}
	if allowed && blocked || e.Policy == nil && c.Outside {
		return constraintFix(c, forbidden)
	}
	if f, ok := e.unlabelled(c); ok {
		return f
	}
	f := Fix{Kind: Rule, Text: fmt.Sprintf("no rule lets %s do this", c.Domain), Command: e.ruleCommand(c), Also: also}
	if e.confined(c.Group) {
		f.Text += "; a domain of its own can have one, without giving it to others"
	}
	return f
}

// ruleCommand gives the command that writes a rule: for a program of the host in its own domain, for a container in a new one, since what its domain may
// all containers may.
func (e *Evidence) ruleCommand(c *oneCase) string {
	if e.confined(c.Group) {
		return "selinux-provision denials --module NAME"
	}
	return fmt.Sprintf("selinux-provision denials --module NAME --source %s --domain %s", c.Domain, c.Domain)
}

// invalid is the answer for a context that was not valid when it was computed or asked for.
func (e *Evidence) invalid(c *oneCase) Fix {
	if c.Invalid == "" {
		return Fix{Kind: Context, Text: "a context was computed that is not valid, and the record does not name it"}
	}
	if e.Policy == nil {
		return Fix{Kind: Context, Text: fmt.Sprintf("the context %s was not valid: its type or role is not declared, the role may not have the type, or the user may not have the role or the level", c.Invalid)}
	}
	if why := e.Policy.Refuses(c.Invalid); why != "" {
		return Fix{Kind: Context, Text: fmt.Sprintf("the context %s is not valid: %s", c.Invalid, why)}
	}
	return Fix{Kind: Nothing, Text: fmt.Sprintf("the policy that is asked takes the context %s by now", c.Invalid)}
}

// validated is the answer for a label that may not follow the one that the file has.
func validated(c *oneCase) Fix {
	old := ""
	for _, f := range c.Fields {
		if f.Key == "oldcontext" {
			old = f.Value
		}
	}
	return Fix{Kind: Categories, Text: fmt.Sprintf("a constraint on labels (validatetrans) forbids %s to change the label of a %s from %s to %s; no allow rule helps: have a domain do it that may change levels, such as the container runtime, or selinux-provision relabel",
		c.Domain, c.Class, old, c.Object)}
}

// bounded recognises what a type may not because the one that bounds it may not: from the kernel's own word, or from a policy that allows it otherwise.
func (e *Evidence) bounded(c *oneCase) (Fix, bool) {
	parent := "another type"
	switch {
	case e.Policy != nil:
		if parent = e.Policy.Bounded(c.question()); parent == "" {
			return Fix{}, false
		}
	case c.Op != avc.OpBounds:
		return Fix{}, false
	}
	return Fix{Kind: Categories, Text: fmt.Sprintf("the type %s is bounded by %s (typebounds), which may not do this, and so it may not either; no allow rule for it alone helps: allow it to both, or do not bound it", c.Domain, parent)}, true
}

// associates tells whether a denial is that of a file on a file system. No domain stands in such a record: the source is the file's label.
func associates(g *avc.Group) bool { return g.Class == "filesystem" && g.Permissions["associate"] > 0 }

// noNewPrivs is the answer for a transition of a process that may not get more rights than it has.
func (e *Evidence) noNewPrivs(c *oneCase) Fix {
	f := Fix{
		Kind: Rule, Text: fmt.Sprintf("a process with no_new_privs, or from a mount with nosuid, may not go from %s to %s", c.Domain, c.Target),
		Command: e.ruleCommand(c),
	}
	if strings.Contains(c.Object.Level(), ":") || c.Target == e.containers() {
		f.Also = "or start the container without no_new_privs: no --security-opt no-new-privileges, in Kubernetes allowPrivilegeEscalation: true"
	}
	return f
}

// otherPolicy recognises a record of a host whose policy is not the one that is asked: the kernel writes no context that its own does not have.
func (e *Evidence) otherPolicy(c *oneCase) (Fix, bool) {
	if e.Policy == nil {
		return Fix{}, false
	}
	f := Fix{Kind: Context, Also: "name the policy of that host with --policy FILE: on that host it is /sys/fs/selinux/policy"}
	_, err := e.Policy.Resolve(c.question())
	if err == nil && !e.Policy.Has(c.Domain) {
		err = &policydb.UnknownError{What: "domain", Name: c.Domain}
	}
	if err != nil {
		f.Text = fmt.Sprintf("%v: the record is of a host with another policy, or of a module that is gone", err)
		return f, true
	}
	for _, context := range []avc.Context{c.Source, c.Object} {
		if why := e.Policy.Refuses(string(context)); why != "" {
			f.Text = fmt.Sprintf("the record is of a host with another policy, or of a time when this one was another: %s is not valid in it: %s", context, why)
			return f, true
		}
	}
	return Fix{}, false
}

// kubelets recognises a volume of a pod that the runtime should have labelled, and did not.
func (e *Evidence) kubelets(c *oneCase, allowed bool) (Fix, bool) {
	dir := e.volumeOf(c)
	if allowed || !strings.HasPrefix(dir, "/var/lib/kubelet/pods/") || c.Target == avc.Context(e.VolumeContext).Type() {
		return Fix{}, false
	}
	return Fix{
		Kind: Volume, Text: fmt.Sprintf("%s is a volume of a pod and has the type %s: the container runtime did not label it", dir, c.Target),
		Also: "containerd labels volumes with enable_selinux = true in its configuration (plugins, cri), CRI-O by itself; restart the runtime and the pod then",
	}, true
}

// logs recognises the logs of pods where the kubelet made their directories without the label that the policy has for them. With another label they
// are like the host's own logs, and a rule for that type would open these.
func (e *Evidence) logs(c *oneCase) (Fix, bool) {
	if e.Expected == nil || logsAbove(c.host) == "" {
		return Fix{}, false
	}
	want := c.expected
	if typ := avc.Context(want).Type(); typ == "" || typ == c.Target {
		return Fix{}, false
	}
	line := "    - {path: '%s(/.+)?', context: '" + want + "'}"
	return Fix{
		Kind: Relabel, Text: fmt.Sprintf("the kubelet made %s and %s with the type %s, and by the policy's file contexts they have %s", podLogs, containerLogs, c.Target, avc.Context(want).Type()),
		Config: fmt.Sprintf("policy:\n  file_contexts:\n"+line+"\n"+line, containerLogs, podLogs),
		Also:   "declared, they have it before the kubelet starts, and what is made in them inherits it; what is denied after that is another question",
	}, true
}

// unlabelled recognises a file of the host without a label.
func (e *Evidence) unlabelled(c *oneCase) (Fix, bool) {
	if e.Policy == nil || c.Target != e.Policy.Unlabeled() || !fileClass(c.Class) {
		return Fix{}, false
	}
	f := Fix{Kind: Relabel, Text: "the target has no label"}
	switch {
	case c.host != "":
		f.Text = c.host + " has no label"
		f.Command = "restorecon -RFv " + quote(c.host)
	case c.mount != nil && c.mount.Path != "" && c.Ino != 0:
		f.Command = fmt.Sprintf("find %s -xdev -inum %d -exec restorecon -RFv {} +", quote(c.mount.Path), c.Ino)
	}
	f.Also = "a file system without labels of its own gets one with the mount option context="
	return f, true
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

// unknownDomain is the answer for a process whose domain the policy does not have any more: it started before the policy was loaded that lacks it.
func (e *Evidence) unknownDomain(c *oneCase) Fix {
	if e.Policy != nil && e.Policy.Refuses(c.RawSource) == "" { // with it the kernel takes the label again for what it is
		return Fix{Kind: Nothing, Text: fmt.Sprintf("the process had the label %s, which the policy did not know when this was denied; the policy that is asked has it", c.RawSource)}
	}
	return Fix{
		Kind: Context, Text: fmt.Sprintf("the process has the label %s, which the policy in force does not know any more, so that it counts as %s: install the module that declares %s, or start it again in a domain that exists",
			c.RawSource, c.Domain, avc.Context(c.RawSource).Type()),
		Also: fmt.Sprintf("a module goes with a revert, or is set apart when it does not build with the policy of another release: see selinux-provision status; a rule for %s would be for all that has no label", c.Domain),
	}
}

// mislabelled recognises a target whose label is not the one of its path, if with that one the access is allowed. allowed says that the rules
// allow it with the label that it has: then only the level can be wrong.
func (e *Evidence) mislabelled(c *oneCase, allowed bool) (Fix, bool) {
	want := avc.Context(c.expected).Type()
	if want == "" {
		return Fix{}, false
	}
	command := "restorecon -RFv " + quote(e.lasting(c, want))
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

// lasting gives what is to be relabelled: the directory rather than the file, which the next rotation replaces, if all in it should have the same type.
func (e *Evidence) lasting(c *oneCase, want string) string {
	dir := path.Dir(c.host)
	if c.Class == "file" && !systemPath(dir) && avc.Context(e.Expected("dir", dir)).Type() == want {
		return dir
	}
	return c.host
}

func quote(name string) string {
	if name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("/._-+:@,", r)
	}) {
		return name
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
}

// systemPath tells whether a directory belongs to the system, so that it must not become a container's. What lies below /etc, or in a
// directory of a home, of /tmp or of /var/log, can be made for one.
func systemPath(name string) bool {
	for _, dir := range []string{
		"/bin", "/boot", "/dev", "/etc/selinux", "/etc/selinux-provision", "/etc/ssl", "/lib", "/lib64", "/oem", "/proc", "/run", "/sbin", "/sys", "/usr", "/var/lib/docker", "/var/lib/containerd",
		"/var/lib/containers", "/var/lib/kubelet", "/var/lib/selinux", "/var/log/audit", "/var/log/containers", "/var/log/journal", "/var/log/pods", "/var/run", "/var/spool",
	} {
		if name == dir || strings.HasPrefix(name, dir+"/") {
			return true
		}
	}
	return path.Dir(name) == "/home" || slices.Contains([]string{
		"/", "/etc", "/home", "/media", "/mnt", "/opt", "/root", "/root/.ssh", "/srv", "/tmp", "/var", "/var/lib", "/var/log", "/var/opt", "/var/tmp",
	}, name)
}

// hostDirectory tells whether a type is what directories and files of the host have by default. A container that meets it was given a
// directory of the host's: nothing that a runtime makes for a container has it.
func hostDirectory(name string) bool {
	return slices.Contains([]string{
		"admin_home_t", "default_t", "home_root_t", "mnt_t", "root_t", "src_t", "tmp_t", "user_home_dir_t", "user_home_t", "user_tmp_t", "var_lib_t", "var_t",
	}, name)
}

// hostContent tells whether a type is what the host's programs, settings and logs have by default. Containers may read most of it; what one is to write
// there is a directory that was given to it, such as that of network plugins below /opt, and needs a label of its own.
func hostContent(name string) bool {
	return slices.Contains([]string{"bin_t", "etc_t", "lib_t", "run_t", "usr_t", "var_log_t", "var_run_t"}, name)
}

// changes tells whether a denial is one of changing what is there.
func (c *oneCase) changes() bool {
	return slices.ContainsFunc(c.PermissionList(), func(permission string) bool {
		return slices.Contains([]string{"add_name", "append", "create", "link", "remove_name", "rename", "reparent", "rmdir", "setattr", "unlink", "write"}, permission)
	})
}

// rolesPath recognises a path for which a role has a label, and a domain that may do this there.
func (e *Evidence) rolesPath(c *oneCase) (Fix, bool) {
	if e.Policy == nil || c.host == "" || e.containers() != c.Domain {
		return Fix{}, false
	}
	offer, ok := roles.ForPath(e.Policy, c.Domain, c.host, c.question())
	if !ok {
		return Fix{}, false
	}
	f := roleFix(offer)
	f.Text = fmt.Sprintf("%s is what the role %s is for: with it the directory has a label of its own, and the domain %s may do this there", c.host, offer.Role, offer.Domain)
	return f, true
}

// roleFix says how a role is declared and used.
func roleFix(offer roles.Offer) Fix {
	f := Fix{
		Kind: Role, Text: fmt.Sprintf("the role %s allows this: it %s", offer.Role, roles.Does(offer.Role)),
		Config: "policy:\n  roles: [" + offer.Role + "]", Role: &offer,
		Also: fmt.Sprintf("then run the container in its domain: docker run --security-opt label=type:%s ..., in Kubernetes seLinuxOptions.type", offer.Domain),
	}
	if offer.Boolean != "" {
		f.Text += ", with the boolean " + offer.Boolean
		f.Config += "\n  booleans: {" + offer.Boolean + ": true}"
	}
	return f
}

// image recognises a program or a library of the container's own, which has the label of what surrounds it on the host: the runtime's storage has lost
// its labels, and no volume was given there.
func (e *Evidence) image(c *oneCase) (Fix, bool) {
	if c.host != "" || !fileClass(c.Class) || !e.confined(c.Group) || !hostDirectory(c.Target) || !slices.ContainsFunc([]string{"/bin/", "/lib/", "/lib32/", "/lib64/", "/sbin/", "/usr/"}, func(dir string) bool {
		return strings.HasPrefix(c.Path, dir)
	}) {
		return Fix{}, false
	}
	f := Fix{
		Kind: Relabel, Text: fmt.Sprintf("%s is of the container's image and has the type %s: the storage of the container runtime has lost its labels", c.Path, c.Target),
		Also: "stop its containers first, since their files get the labels of the file contexts too; if the policy has none for the storage, remove the image and pull it again",
	}
	switch c.Subject.Runtime {
	case "docker":
		f.Command = "restorecon -Rv /var/lib/docker"
	case "containerd":
		f.Command = "restorecon -Rv /var/lib/containerd"
	default:
		f.Command = "restorecon -Rv /var/lib/containers"
	}
	return f, true
}

// commands recognises a connection to what starts containers, or to another program of its domain: whoever commands it is what it is, and no domain
// of its own confines the container.
func (e *Evidence) commands(c *oneCase) (Fix, bool) {
	if e.Policy == nil || c.Class != "unix_stream_socket" || c.Permissions["connectto"] == 0 || !e.confined(c.Group) || !slices.Contains(e.Policy.EnteredBy(c.Domain), c.Target) {
		return Fix{}, false
	}
	free := e.Policy.Unconfined(c.Domain, []policydb.Question{c.question()})
	if len(free) == 0 {
		return Fix{}, false
	}
	return Fix{
		Kind: Domain, Text: fmt.Sprintf("programs in %s start containers, and whoever may connect to them commands the host: run this container as part of the host, in %s, or do not give it the socket", c.Target, free[0]),
		Command: "docker run --security-opt label=type:" + free[0] + " ...", Also: "in Kubernetes seLinuxOptions.type; it is not confined then",
	}, true
}

// socket recognises a connection to a program of the host: the kernel asks for write on the socket's file. With a label for containers all of them could
// connect.
func (e *Evidence) socket(c *oneCase) (Fix, bool) {
	if c.Class != "sock_file" || c.Permissions["write"] == 0 || !e.confined(c.Group) || c.Target == avc.Context(e.VolumeContext).Type() {
		return Fix{}, false
	}
	name := path.Base(cmp.Or(c.host, c.Path, c.Name))
	runtime := slices.Contains([]string{"buildkitd.sock", "containerd.sock", "cri-dockerd.sock", "crio.sock", "docker.sock", "podman.sock"}, name)
	if dir := e.volumeOf(c); !runtime && (dir != "" && dir != c.host && !systemPath(dir) || dir == "" && c.Target == e.unlabeledType()) {
		return Fix{}, false // in a volume, where another container may have made it
	}
	if !runtime {
		return Fix{
			Kind: Rule, Text: fmt.Sprintf("the container connects to a program of the host, through a socket with the type %s: do not give it the socket, or give it a domain of its own that may; with :z every container could connect", c.Target),
			Command: e.ruleCommand(c),
		}, true
	}
	f := Fix{Kind: Domain, Text: "the container connects to a container runtime, and whoever commands that is root on the host: do not give it the socket, or run it as part of the host; with :z every container could connect"}
	if e.Policy != nil {
		if free := e.Policy.Unconfined(c.Domain, []policydb.Question{c.question()}); len(free) > 0 {
			f.Command, f.Also = "docker run --security-opt label=type:"+free[0]+" ...", "in Kubernetes seLinuxOptions.type; it is not confined then"
		}
	}
	return f, true
}

// vendors recognises a file of the host's /usr that a runtime, or somebody, has mounted into the container: it is read-only, and where it has no labels it
// gets none.
func (e *Evidence) vendors(c *oneCase) (Fix, bool) {
	if !fileClass(c.Class) || c.changes() || !e.confined(c.Group) || c.Target != e.unlabeledType() {
		return Fix{}, false
	}
	// Where docker and podman mount the program of --init (inContainerInitPath in moby's daemon/oci_linux.go, ContainerInitPath in podman's libpod/define).
	if slices.Contains([]string{"/sbin/docker-init", "/run/podman-init", "/dev/init"}, c.Path) {
		return Fix{
			Kind: Volume, Text: fmt.Sprintf("%s is the host's program for --init, which the runtime mounted into the container; it lies in /usr, which is read-only and has no labels: run the container without --init, or have an init in its image", c.Path),
			Command: "docker run --init=false ...",
		}, true
	}
	modules := slices.ContainsFunc([]string{"/lib/modules", "/usr/lib/modules"}, func(dir string) bool { return c.Path == dir || strings.HasPrefix(c.Path, dir+"/") })
	if c.host != "" && c.host != "/usr" && !strings.HasPrefix(c.host, "/usr/") || c.host == "" && !modules && (c.mount == nil || c.mount.Path != "/usr") {
		return Fix{}, false
	}
	return Fix{
		Kind: Volume, Text: fmt.Sprintf("%s is in the host's /usr, which is read-only and has no labels, and no volume option gives it one: give the container a copy, or do without", cmp.Or(c.host, c.Path, c.Name)),
		Also: "a domain of its own with a rule for what has no label reads all of the host that has none: selinux-provision denials --module NAME --allow-dangerous unlabeled",
	}, true
}

// unlabeledType gives the type of files without a label.
func (e *Evidence) unlabeledType() string {
	if e.Policy == nil {
		return "unlabeled_t"
	}
	return cmp.Or(e.Policy.Unlabeled(), "unlabeled_t")
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
	unlabeled := e.unlabeledType()
	dir := e.volumeOf(c)
	if c.Target != unlabeled && dir == "" && !hostDirectory(c.Target) && (!hostContent(c.Target) || !c.changes()) {
		return Fix{}, false
	}
	state := "has the type " + c.Target + ", which is not for containers"
	if c.Target == unlabeled {
		state = "has no label"
	}
	if dir == "" && hostContent(c.Target) {
		return Fix{
			Kind: Volume, Text: fmt.Sprintf("the target has the type %s, which no container may write; it looks like a directory of the host that was given to the container without a label for it", c.Target),
			Also: "find it on the host: if nothing but containers uses it, declare it under policy.file_contexts, or give it to the container with :z (shared) or :Z (its own); otherwise give the container a directory of its own",
		}, true
	}
	if dir == "" {
		return Fix{
			Kind: Volume, Text: "the target " + state + "; it looks like a volume that nobody labelled",
			Also: "find it on the host, and declare it under volumes or policy.file_contexts, or give it to the container with :z (shared) or :Z (its own)",
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
	if strings.HasPrefix(dir, "/tmp/") || strings.HasPrefix(dir, "/var/tmp/") {
		return f, true // it does not outlive what made it, and a declaration would
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

// sameAct has the records of one act judged as one. Of an access some records have a path and some have none: what is found out about the
// place of one holds for the others, if the label that it should have allows them.
func sameAct(e *Evidence, cases []*oneCase) {
	type place struct {
		subject        avc.Subject
		domain, target string
	}
	of := func(c *oneCase) place {
		s := c.Subject
		s.Evidence = ""
		return place{s, c.Domain, c.Target}
	}
	found := map[place][]*oneCase{}
	for _, c := range cases {
		if (c.fix.Kind == Volume || c.fix.Kind == Relabel) && c.host != "" {
			found[of(c)] = append(found[of(c)], c)
		}
	}
	for _, c := range cases {
		if c.fix.Kind != Rule && (c.fix.Kind != Volume || c.host != "") || !fileClass(c.Class) {
			continue
		}
		var likeliest []*oneCase
		most := 0
		for _, other := range found[of(c)] {
			if c.Dev != "" && other.Dev != "" && c.Dev != other.Dev { // what is being made has no file system in its record
				continue
			}
			switch n := c.like(other); {
			case n > most:
				likeliest, most = []*oneCase{other}, n
			case n == most:
				likeliest = append(likeliest, other)
			}
		}
		if len(likeliest) > 0 && !differ(likeliest) && (e.allows(c, likeliest[0]) || likeliest[0].fix.step() && most > 0 && c.host == "") {
			c.fix, c.expected, c.place = likeliest[0].fix, likeliest[0].expected, likeliest[0]
		}
	}
}

// settled finds the cases whose target has got the label since that was to help: nothing is left to do.
func (e *Evidence) settled(cases []*oneCase) {
	if e.Label == nil || e.Policy == nil {
		return
	}
	for _, c := range cases {
		if c.RawSource != "" {
			continue
		}
		now := e.labelByNow(c)
		if now == "" {
			continue
		}
		had, has := "the type "+c.Target, "the type "+now.Type()
		switch {
		case c.Raw != "":
			had, has = "the label "+c.Raw, string(now)
		case c.Target == e.Policy.Unlabeled():
			had = "no label"
		case c.Target == e.Policy.Name(now.Type()):
			had, has = "the level "+c.Object.Level(), now.Level()
		}
		c.fix = Fix{Kind: Nothing, Text: fmt.Sprintf("the label is right by now: %s had %s when this was denied, and has %s, with which the policy allows it", cmp.Or(c.place, c).host, had, has)}
		c.cured = now.Type()
	}
}

// labelByNow gives the label that a target has today, if it is the one that was to help, and the access is allowed with it; else "". It has to be on all
// that was to get it, and not on the one file alone.
func (e *Evidence) labelByNow(c *oneCase) (now avc.Context) {
	at := cmp.Or(c.place, c)
	if at.host == "" {
		return ""
	}
	want, names := avc.Context(c.expected).Type(), []string{at.host}
	switch {
	case c.fix.Kind == Volume:
		want = avc.Context(e.VolumeContext).Type()
		if dir := e.volumeOf(at); dir != "" {
			names = append(names, dir)
		}
	case want == "":
		return ""
	case c.fix.step():
		names = append(names, logsAbove(at.host))
	case c.fix.Kind == Relabel || c.Raw != "":
		names = append(names, e.lasting(at, want))
	default:
		return ""
	}
	for _, name := range names {
		label := avc.Context(e.Label(name))
		if label == "" || e.Policy.Name(label.Type()) != e.Policy.Name(want) {
			return ""
		}
		now = cmp.Or(now, label)
	}
	q := c.question()
	q.Target = e.Policy.Name(now.Type())
	missing, _ := e.Policy.Ioctl(q, c.Ioctl)
	forbidden, known := e.Policy.Constraints(string(c.Source), string(now), c.Class, c.PermissionList())
	if now == c.Object || !e.Policy.Allowed(q) || len(missing) > 0 || !known || len(forbidden.Forbidden) > 0 {
		return ""
	}
	return now
}

// like says how much speaks for two groups being of one act: the same event, the same file, the same process in the same second.
func (c *oneCase) like(other *oneCase) (n int) {
	if slices.ContainsFunc(c.Serials, func(serial uint64) bool { return slices.Contains(other.Serials, serial) }) {
		n += 4
	}
	if c.Ino != 0 && c.Ino == other.Ino {
		n += 2
	}
	if c.PID != 0 && c.PID == other.PID && c.Last.Sub(other.Last).Abs() <= time.Second {
		n++
	}
	return n
}

// differ tells whether the places have different answers, so that nobody knows which one is meant.
func differ(cases []*oneCase) bool {
	return slices.ContainsFunc(cases, func(c *oneCase) bool { return c.cure() != cases[0].cure() })
}

// allows tells whether an access is allowed once the place has the label that the answer gives it.
func (e *Evidence) allows(c, place *oneCase) bool {
	if e.Policy == nil {
		return true
	}
	q := c.question()
	if q.Target = avc.Context(e.VolumeContext).Type(); place.fix.Kind == Relabel && place.expected != "" {
		q.Target = avc.Context(place.expected).Type()
	}
	return e.Policy.Allowed(q)
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

// flips says what booleans do besides: they are for a whole domain, and what they allow can be dangerous.
func (e *Evidence) flips(cases []*oneCase) {
	type flip struct{ domain, config string }
	said := map[flip]Fix{}
	for _, c := range cases {
		if c.fix.Kind != Boolean {
			continue
		}
		key := flip{c.Domain, c.fix.Config}
		what, known := said[key]
		if !known {
			var reasons []string
			for _, d := range e.Policy.Adds(c.Domain, c.fix.Booleans) {
				for _, permission := range d.Permissions {
					if name, reason := danger.Of(cmp.Or(strings.TrimPrefix(d.Target, policydb.Self), c.Domain), d.Class, permission, d.Target == policydb.Self); name != "" && !slices.Contains(what.dangers, name) {
						what.dangers, reasons = append(what.dangers, name), append(reasons, reason)
					}
				}
			}
			what.Also = "it is so for every process in " + c.Domain + " then"
			if e.confined(c.Group) {
				what.Also = "it is so for every container in " + c.Domain + " then"
			}
			if len(reasons) > 0 {
				what.Also += ", with what is dangerous: " + few(reasons)
			}
			said[key] = what
		}
		c.fix.dangers, c.fix.ofContainers = what.dangers, e.confined(c.Group)
		c.fix.Also = strings.TrimPrefix(c.fix.Also+"; "+what.Also, "; ")
	}
}

// few names the first of many.
func few(all []string) string {
	const shown = 4
	if len(all) <= shown {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:shown-1], ", "), len(all)-shown+1)
}

func constraintFix(c *oneCase, forbidden policydb.Constraint) Fix {
	if !forbidden.ByLevel {
		return Fix{Kind: Categories, Text: "the rules allow this, and a constraint on users, roles or types forbids it; no allow rule helps"}
	}
	return Fix{Kind: Categories, Text: "the rules allow this, the categories forbid it; no allow rule helps: " + levelAdvice(c)}
}

// levelAdvice says what to do about levels. A level with a range or with many categories opens the files of every container that has one of them: it is
// the host's, and never one for a container.
func levelAdvice(c *oneCase) string {
	source, target := cmp.Or(c.Source.Level(), "no level"), cmp.Or(c.Object.Level(), "no level")
	asked := fmt.Sprintf("%s is asked for %s: ", source, target)
	level, file := categoriesOf(target), c.Object.Role() == "object_r"
	run := fmt.Sprintf("--security-opt label=level:%s", target)
	switch {
	case !file && level == some: // a process, or what one has made
		return asked + "two that work together run with one level: containers of one pod do, others with the same " + run
	case !file:
		return asked + "that is a process of the host, whose level is for no container: do without it, or run this one in a domain that categories do not bind"
	case level == some:
		return asked + "share the target at level s0 (volume option :z, or level: s0 in its volume rule), or run the container with its level (" + run + ")"
	case level == none:
		return asked + "run the container with its level (" + run + ")"
	}
	return asked + "share the target at level s0 (volume option :z, or level: s0 in its volume rule)"
}

// amount is how many categories a level has.
type amount uint8

const (
	none amount = iota
	some        // as a container has, or a pod
	many        // or a range, or nobody can read it
)

func categoriesOf(level string) amount {
	const most = 4 // runtimes give two
	r, err := secontext.ParseRange(level)
	if err != nil || r.Low.String() != r.High.String() {
		return many
	}
	count := 0
	for _, span := range r.Low.Categories {
		count += int(span.Last-span.First) + 1
	}
	switch {
	case count == 0:
		return none
	case count <= most:
		return some
	}
	return many
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
		if len(answers) == 0 || answers[0].Loses > tolerable {
			if e.containers() == who.domain {
				if offer, ok := roles.Allowing(e.Policy, who.domain, questions); ok {
					for _, c := range these {
						also := c.fix.Also
						c.fix = roleFix(offer)
						c.fix.Also = strings.TrimPrefix(also+"; "+c.fix.Also, "; ")
						c.fix.Alternatives = answers[:min(3, len(answers))]
					}
					continue
				}
			}
		}
		if len(answers) == 0 {
			if free := e.Policy.Unconfined(who.domain, questions); len(free) > 0 {
				for _, c := range these {
					c.fix.Also = strings.TrimPrefix(c.fix.Also+fmt.Sprintf("; %s may do this, and is not confined: it is for containers that administer the host", free[0]), "; ")
				}
			}
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
	for _, f := range byKey {
		f.name()
	}
	return slices.SortedFunc(maps.Values(byKey), func(a, b *Finding) int {
		return cmp.Or(cmp.Compare(b.Enforced, a.Enforced), cmp.Compare(b.Count, a.Count), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Subject.String(), b.Subject.String()), cmp.Compare(a.Fix.Text, b.Fix.Text))
	})
}

func (f *Finding) merge(c *oneCase) {
	f.Join(c.Group)
	if f.Fix.Kind == Relabel && f.Fix.Command != c.fix.Command && len(f.Fix.Command) < 400 {
		f.Fix.Command += " " + quote(c.host)
	}
}

// what names what the groups of one finding have in common, their fix aside.
func (c *oneCase) what() string {
	who := cmp.Or(c.Subject.String(), c.Subject.ID)
	return strings.Join([]string{
		who, c.Kind.String(), c.Type.String(), c.Domain, c.Target, c.Class, c.Op, c.Invalid, c.Raw, c.RawSource, strconv.FormatBool(c.Outside), c.Dev,
	}, "\x00")
}

// cure names the fix, as far as it has to be the same for all groups of a finding.
func (c *oneCase) cure() string {
	switch c.fix.Kind {
	case Relabel:
		return string(Relabel) + " " + avc.Context(c.expected).Type() + " " + c.fix.Config
	case Volume, Boolean, Role:
		return string(c.fix.Kind) + " " + c.fix.Config + c.fix.Command
	}
	return string(c.fix.Kind) + " " + c.cured
}

// name gives a finding its ID: what was done to what by which kind of workload. Nothing is in it that ends with a container or changes with a boot
// (docs/adr/0035-what-identifies-a-finding.md), so several lines can have one ID.
func (f *Finding) name() {
	parts := []string{
		f.Kind.String(), f.Type.String(), f.Domain, f.Target, f.Class, f.Op, avc.Context(f.Invalid).Type(), avc.Context(f.Raw).Type(), strconv.FormatBool(f.Outside),
	}
	if f.RawSource != "" {
		parts = append(parts, avc.Context(f.RawSource).Type())
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	f.ID = hex.EncodeToString(sum[:3])
	only := " --only " + f.ID
	if f.Subject.Pod != "" {
		only += " --pod " + quote(f.Subject.Pod)
	}
	if f.Subject.Container != "" {
		only += " --container " + quote(f.Subject.Container)
	}
	switch {
	case f.Fix.Kind == Rule:
		f.Fix.Command += only
	case len(f.Fix.dangers) > 0 && f.Fix.ofContainers:
		f.Fix.Also += "; a domain of its own gives what was denied to this container alone: selinux-provision denials --module NAME" + only
		if own := f.dangers(); len(own) > 0 {
			f.Fix.Also += " --allow-dangerous " + strings.Join(own, ",")
		}
	}
}

// dangers gives the names of the dangers in what was denied.
func (f *Finding) dangers() (names []string) {
	for _, permission := range f.PermissionList() {
		if name, _ := danger.Of(f.Target, f.Class, permission, f.Target == f.Domain); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
