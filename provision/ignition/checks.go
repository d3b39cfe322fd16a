package ignition

import (
	"bytes"
	"cmp"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"

	types "github.com/coreos/ignition/v2/config/v3_7_experimental/types"

	"github.com/selinux-provision/selinux-provision/internal/cil"
	"github.com/selinux-provision/selinux-provision/internal/filecontexts"
	"github.com/selinux-provision/selinux-provision/internal/kernel"
	"github.com/selinux-provision/selinux-provision/internal/lazyregexp"
	"github.com/selinux-provision/selinux-provision/internal/policypackage"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
	"github.com/selinux-provision/selinux-provision/provision"
)

const (
	configDir = "/etc/selinux-provision"
	target    = "selinux-provision.target"
	binary    = "/opt/bin/selinux-provision"
)

// situation is what the checks need to know of the machine as a whole.
type situation struct {
	// declared is what could be understood of the configuration that is in the file.
	declared *provision.State
	// delivered says that the file brings selinux-provision or its configuration.
	delivered bool
	mode      provision.Mode
	enforcing bool
	// disks are the file systems that Ignition makes, by each name that they have.
	disks map[string]disk
	// containers are the directories that containers run from.
	containers []string
	// mounts are all file systems that will be mounted.
	mounts []mount
	// contexts answers which label the declaration gives to a path.
	contexts *filecontexts.Contexts
}

// machine looks at the machine that the file makes.
func (c *checker) machine(m *machine) {
	s := &situation{}
	c.declared(m, s)
	c.ownership(m)
	c.vendorFiles(m, s)
	c.kernelArguments(m, s)
	c.mountChecks(m, s)
	c.unitChecks(m, s)
	c.byHand(m, s)
	c.notExecutable(m)
	c.directories(m, s)
}

// declared reads the configuration that is in the file.
func (c *checker) declared(m *machine, s *situation) {
	t := tree{m}
	for _, name := range m.fileNames() {
		below := strings.HasPrefix(name, configDir+"/")
		s.delivered = s.delivered || below || name == binary || path.Base(name) == target
		if f := m.files[name]; below && !f.known && path.Ext(name) == ".yaml" {
			c.note(f.at, name, "this file was not looked at: it comes from a server", "check it by itself")
		}
	}
	// What is wrong in it is said, and what follows from the rest, too: nobody wants to hear one thing at a time.
	state, err := provision.Survey(t, "")
	s.declared, s.mode = state, state.Mode
	s.enforcing = state.Mode == provision.Enforcing
	s.contexts = filecontexts.New()
	for _, f := range state.FileContexts {
		// An expression that is none was said, and is for no path.
		_ = s.contexts.Add(f.Source.File, strings.NewReader(f.Path+"\t"+f.Context+"\n"))
	}
	for _, e := range state.Equivalences {
		s.contexts.Equate(e.Path, e.Like)
	}
	there := func(p provision.Position) (provision.Position, string) { return m.files[p.File].line(p.Line) }
	c.levels(state, there)
	c.content(state, there)
	if err == nil {
		return
	}
	c.addErrors(err, func(e *provision.Error) (provision.Position, string) {
		f, there := m.files[e.File]
		if !there {
			return m.layers[0].place(0), e.File + keyed(e.Key)
		}
		at, key := f.line(e.Line)
		if strings.Contains(e.Problem, "cannot read the module") && strings.Contains(e.Problem, "does not exist") {
			e.Problem, e.Remedy = strings.Replace(e.Problem, "it does not exist", "no file of that path is written here", 1), "add it to storage.files, or correct the path"
		}
		return at, key + keyed(e.Key)
	})
}

// ownership finds configurations, modules and their directories that somebody else than root might write: they are not obeyed.
func (c *checker) ownership(m *machine) {
	look := func(list string, node types.Node, mode *int) {
		name := path.Clean(node.Path)
		if name != configDir && !strings.HasPrefix(name, configDir+"/") {
			return
		}
		var problem, remedy string
		user := node.User
		switch {
		case user.ID != nil && *user.ID != 0, user.ID == nil && user.Name != nil && *user.Name != "" && *user.Name != "root":
			problem, remedy = "another user owns it", `remove "user"`
		case mode != nil && *mode&0o022 != 0:
			problem, remedy = "others may write it", fmt.Sprintf("write mode: %#o", *mode&^0o022&0o7777)
		default:
			return
		}
		at, l := m.find(list, node.Path)
		c.add(l.place(lineOf(at)), l.inside, "cannot obey "+name+": "+problem+", which would make them root", remedy)
	}
	for _, f := range m.config.Storage.Files {
		look("files", f.Node, f.Mode)
	}
	for _, d := range m.config.Storage.Directories {
		look("directories", d.Node, d.Mode)
	}
	for _, l := range m.config.Storage.Links {
		look("links", l.Node, nil)
	}
}

// content looks at what a configuration that is right in itself asks for.
func (c *checker) content(state *provision.State, place func(provision.Position) (provision.Position, string)) {
	c.levels(state, place)
	c.packages(state, place)
	c.texts(state, place)
	c.vendorsModules(state, place)
	c.contexts(state, place)
	if state.Mode == provision.Permissive && len(state.PermissiveDomains) > 0 {
		at, key := place(state.PermissiveDomains[0].Source)
		c.note(at, key, "enforce.permissive_domains has no effect yet: with mode: permissive every domain is permissive", "leave it: it counts from the moment on when the mode is enforcing")
	}
}

// packages looks into the .pp modules: one that is no policy package would be left out, and one has the name that stands in it.
func (c *checker) packages(state *provision.State, place func(provision.Position) (provision.Position, string)) {
	for _, m := range state.Modules {
		if m.Lang != "pp" || string(m.Content) == Unknown {
			continue
		}
		at, key := place(m.Source)
		what := "this module"
		if m.Source.File != m.Path {
			what = "the module " + m.Path
		}
		if _, err := policypackage.Read(m.Content); err != nil {
			c.add(at, key, "cannot use "+what+": "+err.Error(), "compile it: checkmodule -m, then semodule_package; a text in CIL is called .cil")
		} else if m.NamedInside() {
			c.note(at, key, fmt.Sprintf("%s is installed as %s, the name that stands in it", what, m.Name), "look for that name in status and in semodule -l")
		}
	}
}

// texts finds modules in CIL that cannot be read, wherever they are used.
func (c *checker) texts(state *provision.State, place func(provision.Position) (provision.Position, string)) {
	for _, m := range state.Modules {
		if m.Lang != "cil" || string(m.Content) == Unknown || bytes.HasPrefix(m.Content, []byte("BZh")) {
			continue
		}
		line, problem := cil.Check(string(m.Content))
		if problem == "" {
			continue
		}
		at, key := place(m.Source)
		what := "this module"
		if m.Source.File == m.Path {
			at, key = place(provision.Position{File: m.Path, Line: line})
		} else {
			what = fmt.Sprintf("line %d of the module %s", line, m.Path)
		}
		c.add(at, key, "cannot read "+what+" as CIL: "+problem, "correct it; a compiled module is called .pp")
	}
}

// vendorsModules finds modules that would take the place of the vendor's without being meant to.
func (c *checker) vendorsModules(state *provision.State, place func(provision.Position) (provision.Position, string)) {
	names := c.options.VendorModules
	if names == nil {
		names = strings.Fields(flatcarModules)
	}
	for _, m := range state.Modules {
		if slices.Contains(names, m.Name) && !slices.Contains(state.ReplaceVendorModules, m.Name) {
			at, key := place(m.Source)
			c.add(at, key, fmt.Sprintf("cannot use a module named %s: the vendor's policy has one of this name, and all that is in that one would be gone", m.Name),
				"give yours another name, or, if it is to replace the vendor's, write "+m.Name+" under policy.replace_vendor_modules")
		}
	}
}

// contexts finds file contexts that no file would get.
func (c *checker) contexts(state *provision.State, place func(provision.Position) (provision.Position, string)) {
	for _, f := range state.FileContexts {
		at, key := place(f.Source)
		add := func(problem, remedy string) {
			c.add(at, key, "cannot give any file the context for "+quote(f.Path)+": "+problem, remedy)
		}
		if problem, remedy := filecontexts.Mistake(f.Path); problem != "" {
			add(problem, remedy)
			continue
		}
		literal, _ := filecontexts.Beginning(f.Path)
		for _, e := range state.Equivalences {
			if literal == e.Path || strings.HasPrefix(literal, e.Path+"/") {
				add("what is at and below "+e.Path+" is declared to be like "+e.Like, "declare it below "+e.Like)
			}
		}
		for from, to := range flatcarSubstitutions() {
			if literal == from || strings.HasPrefix(literal, from+"/") {
				add(fmt.Sprintf("the policy has what is at and below %s looked up as if it were at %s", from, to), "write "+to+strings.TrimPrefix(f.Path, from))
			}
		}
	}
}

// flatcarSubstitutions are those of file_contexts.subs_dist in the policy of Flatcar's stable release 4593 that people declare contexts below.
// On a host it is the file that counts.
func flatcarSubstitutions() map[string]string {
	return map[string]string{
		"/bin": "/usr/bin", "/lib": "/usr/lib", "/lib32": "/usr/lib", "/lib64": "/usr/lib", "/sbin": "/usr/sbin", "/usr/lib64": "/usr/lib", "/usr/local/lib": "/usr/lib",
		"/etc/systemd/system": "/usr/lib/systemd/system", "/etc/systemd/user": "/usr/lib/systemd/user", "/etc/init.d": "/etc/rc.d/init.d",
		"/var/run": "/run", "/run/lock": "/var/lock", "/var/lib/private": "/var/lib", "/var/cache/private": "/var/cache", "/var/log/private": "/var/log",
	}
}

// flatcarModules are the modules of the policy of Flatcar's stable release 4593.
const flatcarModules = `application authlogin base bootloader clock consoletype container cron dbus dmesg fstools getty hostname init iptables
libraries locallogin logging lvm miscfiles modutils mount mta netutils nscd policykit portage raid rsync selinuxutil setrans ssh sssd staff storage
su sysadm sysnetwork systemd tmpfiles udev unconfined unprivuser userdomain usermanage xdg`

// levels finds what Flatcar's policy has not: it has one sensitivity, s0, and the categories c0 to c1023.
func (c *checker) levels(state *provision.State, place func(provision.Position) (provision.Position, string)) {
	for _, v := range state.Volumes {
		if name := unknownInLevel(cmp.Or(v.Level, secontext.Context(v.Context).Level())); name != "" {
			at, key := place(v.Source)
			c.add(at, key, fmt.Sprintf("cannot label the volume %s with %s: the policy has no %s", printable.Quote(v.Name), cmp.Or(v.Context, v.Level), name), levelRemedy)
		}
	}
	for _, f := range state.FileContexts {
		if name := unknownInLevel(secontext.Context(f.Context).Level()); name != "" {
			at, key := place(f.Source)
			c.add(at, key, fmt.Sprintf("cannot label %s with %s: the policy has no %s", f.Path, f.Context, name), levelRemedy)
		}
	}
}

const levelRemedy = "write s0, or s0 with categories from c0 to c1023"

// unknownInLevel gives a sensitivity or category of a level that the policy has not, "" if there is none.
func unknownInLevel(level string) string {
	const highestCategory = 1023
	r, err := secontext.ParseRange(level)
	if err != nil {
		return "" // said already
	}
	for _, l := range []secontext.Level{r.Low, r.High} {
		if l.Sensitivity != 0 {
			return fmt.Sprintf("s%d", l.Sensitivity)
		}
		if n := len(l.Categories); n > 0 && l.Categories[n-1].Last > highestCategory {
			return fmt.Sprintf("c%d", l.Categories[n-1].Last)
		}
	}
	return ""
}

func keyed(key string) string {
	if key == "" {
		return ""
	}
	return ": " + key
}

// tree shows the files of the machine to provision.Load.
type tree struct{ m *machine }

// ReadFile gives the content of a file. What is not known is taken for a module that is there, or for a file that is not.
func (t tree) ReadFile(name string) ([]byte, error) {
	f, ok := t.m.files[name]
	switch {
	case !ok && (!t.m.more || path.Ext(name) == ".yaml"):
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ENOENT}
	case f.known:
		return []byte(f.content), nil
	case path.Ext(name) == ".yaml":
		return []byte("version: 1\n"), nil
	}
	return []byte(Unknown), nil
}

// ReadDir lists what the file writes into a directory.
func (t tree) ReadDir(name string) ([]fs.DirEntry, error) {
	var all []fs.DirEntry
	for _, file := range t.m.fileNames() {
		if path.Dir(file) == name {
			all = append(all, entry(path.Base(file)))
		}
	}
	if all == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ENOENT}
	}
	return all, nil
}

// entry is a file in a directory, of which provision.Load asks the name alone.
type entry string

func (e entry) Name() string               { return string(e) }
func (e entry) IsDir() bool                { return false }
func (e entry) Type() fs.FileMode          { return 0 }
func (e entry) Info() (fs.FileInfo, error) { return nil, fs.ErrInvalid }

var policyFile = lazyregexp.New(`(?s)^/etc/selinux/[^/]+/.+$`)

// inImage are the files about SELinux that every image has: Ignition stops the boot rather than write over one (its files
// stage: "A file exists there already and overwrite is false").
func inImage() []string {
	return []string{seconfig.Path, "/etc/selinux/semanage.conf", "/etc/audit/rules.d/00-clear.rules", "/etc/audit/rules.d/80-selinux.rules",
		"/etc/audit/rules.d/99-default.rules"}
}

// vendorFiles finds what stands in the place of the files that the OS and this program keep.
func (c *checker) vendorFiles(m *machine, s *situation) {
	c.selinuxConfig(m, s)
	for _, name := range inImage() {
		if f, ok := m.files[name]; ok && f.replaces && !f.overwrites {
			c.add(f.at, f.inside, "cannot write "+name+": the image has this file, and Ignition stops the boot rather than write over it", `write "overwrite: true", or remove it`)
		}
	}
	const copied = "an OS update does not reach it any more, and the containers fail when it does not fit the new image"
	const instead = "remove it: selinux-provision brings the policy of each OS image; declare modules and file_contexts for what is yours"
	seen := map[string]bool{}
	once := func(what string, at provision.Position, key, problem, remedy string) {
		if !seen[what] {
			seen[what] = true
			c.add(at, key, problem, remedy)
		}
	}
	for _, name := range m.fileNames() {
		f := m.files[name]
		switch {
		case strings.HasSuffix(name, "/contexts/files/file_contexts.subs") && policyFile().MatchString(name):
			once(name, f.at, f.inside, "cannot write "+name+": on older releases its directory is a link, which Ignition refuses", "remove it, and declare policy.equivalences in "+provision.ConfigFile)
		case strings.HasSuffix(name, "/contexts/files/file_contexts.local") && policyFile().MatchString(name):
			once(name, f.at, f.inside, "cannot write "+name+": libsemanage writes it anew whenever the policy is built", "remove it, and declare policy.file_contexts in "+provision.ConfigFile)
		case policyFile().MatchString(name):
			dir := strings.Join(strings.Split(name, "/")[:4], "/")
			once(dir, f.at, f.inside, "cannot write a copy of the policy to "+dir+": "+copied, instead)
		case strings.HasPrefix(name, "/var/lib/selinux/"):
			once("/var/lib/selinux", f.at, f.inside, "cannot write a copy of the policy store to /var/lib/selinux: "+copied, instead)
		case strings.HasPrefix(name, "/usr/"):
			shipped := func(layer string) bool { return strings.HasPrefix(name, layer+"/selinux") }
			if shipped("/usr/lib") || slices.ContainsFunc(seconfig.LowerLayers(), shipped) {
				c.add(f.at, f.inside, "cannot write below /usr: it is read-only", instead)
			}
		}
	}
	for _, d := range m.config.Storage.Directories {
		name := path.Clean(d.Path)
		if name == "/etc/selinux" || policyFile().MatchString(name+"/x") && name != configDir || name == "/var/lib/selinux" || strings.HasPrefix(name, "/var/lib/selinux/") {
			node, l := m.find("directories", d.Path)
			if d.Overwrite != nil && *d.Overwrite {
				once(name, l.place(lineOf(node)), l.inside, "cannot put a directory in place of "+name+": the machine boots without the policy that was there", "remove it")
			} else if name != "/etc/selinux" {
				once(name, l.place(lineOf(node)), l.inside, "cannot make the directory "+name+": Flatcar has it, and in older releases it is a link, which Ignition refuses", "remove it")
			}
		}
	}
	for _, link := range m.config.Storage.Links {
		name := path.Clean(link.Path)
		node, l := m.find("links", link.Path)
		at := l.place(lineOf(node))
		switch {
		case name == seconfig.Path:
			once(name, at, l.inside, "cannot use a link in place of "+name+": an OS update can leave it dangling, and then no policy is found", "remove it, and declare mode: in "+provision.ConfigFile)
		case name == "/etc/selinux" || policyFile().MatchString(name+"/x") && strings.HasPrefix(name, "/etc/selinux/"):
			once(name, at, l.inside, "cannot use a link in place of "+name+": PID 1 freezes when it is enforcing and finds no policy behind it", "remove it")
		case name == "/var/lib/selinux":
			once(name, at, l.inside, "cannot use a link in place of "+name+": selinux-provision makes it a directory", "remove it")
		}
	}
}

// selinuxConfig looks at a file /etc/selinux/config that is in the file.
func (c *checker) selinuxConfig(m *machine, s *situation) {
	f, ok := m.files[seconfig.Path]
	if !ok || !f.known {
		return
	}
	line := func(prefix string) (provision.Position, string) {
		n := 0
		for l := range strings.Lines(f.content) {
			n++
			if strings.HasPrefix(l, prefix) {
				return f.line(n)
			}
		}
		return f.line(0)
	}
	parsed, err := seconfig.Parse(bytes.NewReader([]byte(f.content)))
	if err != nil {
		return
	}
	at, key := line("SELINUX=")
	const declare = "remove the file, and declare mode: in " + provision.ConfigFile
	if !f.replaces { // the image's stands before what is appended
		if parsed.Mode != "" {
			c.add(at, key, "cannot set the mode with a line behind the image's own: of two lines SELINUX= the first one counts", declare)
		}
		if parsed.Type != "" && parsed.Type != "mcs" {
			at, key := line("SELINUXTYPE=")
			c.add(at, key, "cannot use SELINUXTYPE="+parsed.Type+": Flatcar has the policy mcs alone, and PID 1 freezes without one when it is enforcing", "remove the line")
		}
		return
	}
	switch {
	case parsed.Mode == "":
		n := 0
		for l := range strings.Lines(f.content) {
			n++
			if strings.HasPrefix(strings.ToUpper(strings.TrimSpace(l)), "SELINUX") && !strings.HasPrefix(l, "SELINUXTYPE=") {
				at, key = f.line(n)
				c.add(at, key, "cannot find SELINUX= in "+quote(strings.TrimSpace(l))+": it has to stand at the very beginning of a line, in capitals, without spaces", "write SELINUX=enforcing, or "+declare)
				return
			}
		}
		c.add(at, key, "cannot find the line SELINUX= in this file: the machine boots permissive", declare)
	case !slices.Contains([]string{"enforcing", "permissive", "disabled"}, parsed.Mode):
		c.add(at, key, "cannot use SELINUX="+parsed.Mode+": the machine boots permissive", "write enforcing or permissive, or "+declare)
	case parsed.Mode == "disabled":
		c.add(at, key, "cannot switch SELinux off with SELINUX=disabled: kernels since 6.4 ignore it and boot without a policy that is loaded", "write SELINUX=permissive, or add the kernel argument selinux=0")
	case s.mode == provision.Enforcing && parsed.Mode != "enforcing", s.mode == provision.Permissive && parsed.Mode != "permissive":
		c.add(at, key, fmt.Sprintf("cannot have SELINUX=%s here and mode: %s in %s: the first boot begins with one and ends with the other", parsed.Mode, s.mode, provision.ConfigFile), declare)
	}
	s.enforcing = s.enforcing || parsed.Mode == "enforcing"
	if parsed.Type != "mcs" {
		at, key := line("SELINUXTYPE=")
		if parsed.Type == "" {
			c.add(at, key, "cannot find the line SELINUXTYPE= in this file: no policy is found without it", "write SELINUXTYPE=mcs, or "+declare)
		} else {
			c.add(at, key, "cannot use SELINUXTYPE="+parsed.Type+": Flatcar has the policy mcs alone, and PID 1 freezes without one when it is enforcing", "write SELINUXTYPE=mcs, or "+declare)
		}
	}
}

// kernelArguments finds arguments that contradict what is declared, in the file and in Flatcar's grub.cfg.
func (c *checker) kernelArguments(m *machine, s *situation) {
	for _, a := range m.config.KernelArguments.ShouldExist {
		at, key := m.argument(string(a))
		c.kernelLine(string(a), at, key, s)
	}
	for _, a := range m.config.KernelArguments.ShouldNotExist {
		at, key := m.argument(string(a))
		if s.mode == provision.Enforcing && (a == "enforcing=1" || a == "selinux=1" || a == "security=selinux") {
			c.add(at, key, fmt.Sprintf("cannot take the kernel argument %s away and declare mode: enforcing", a), "remove one of the two")
		}
	}
	for _, name := range []string{"/oem/grub.cfg", "/usr/share/oem/grub.cfg"} {
		f := m.files[name]
		n := 0
		for line := range strings.Lines(f.content) {
			n++
			if strings.HasPrefix(strings.TrimSpace(line), "set linux_") {
				at, key := f.line(n)
				c.kernelLine(strings.NewReplacer(`"`, " ", "'", " ", "=\"", " ").Replace(line), at, key, s)
			}
		}
	}
}

// argument finds where a kernel argument stands.
func (m *machine) argument(name string) (provision.Position, string) {
	for _, l := range slices.Backward(m.layers) {
		for _, key := range [][]string{{"kernelArguments", "shouldExist"}, {"kernel_arguments", "should_exist"},
			{"kernelArguments", "shouldNotExist"}, {"kernel_arguments", "should_not_exist"}} {
			for _, item := range items(get(l.root, key...)) {
				if item.Value == name {
					return l.place(item.Line), l.inside
				}
			}
		}
	}
	return m.layers[0].place(0), ""
}

func (c *checker) kernelLine(line string, at provision.Position, key string, s *situation) {
	parsed, err := kernel.ParseCommandLine(strings.NewReader(line))
	if err != nil {
		return
	}
	if on := parsed.SELinux; on != nil && !*on {
		if s.delivered || s.enforcing {
			c.add(at, key, "cannot provision SELinux with the kernel argument selinux=0: it switches SELinux off", "remove the argument")
		}
		return
	}
	if on := parsed.Enforcing; on != nil {
		switch {
		case s.mode == provision.Enforcing && !*on:
			c.add(at, key, "cannot have the kernel argument "+word(line, "enforcing=")+" with mode: enforcing: the argument wins at every boot", "remove the argument")
		case s.mode == provision.Permissive && *on:
			c.add(at, key, "cannot have the kernel argument "+word(line, "enforcing=")+" with mode: permissive: the argument wins at every boot", "remove the argument")
		case *on && s.mode == provision.Unmanaged:
			s.enforcing = true
		}
	}
	if s.mode != provision.Enforcing && !s.delivered {
		return
	}
	for _, w := range strings.Fields(line) {
		switch name, v, _ := strings.Cut(w, "="); {
		case name == "security" && v != "selinux", name == "lsm" && !slices.Contains(strings.Split(v, ","), "selinux"):
			c.add(at, key, "cannot provision SELinux with the kernel argument "+w+": it leaves SELinux out", "remove the argument")
		case name == "audit" && (v == "0" || v == "off") && s.declared != nil && s.declared.LogDenials:
			c.add(at, key, "cannot log denials with the kernel argument "+w+": it switches the audit system off", "remove the argument, or log_denials")
		}
	}
}

func word(line, prefix string) string {
	for _, w := range strings.Fields(line) {
		if strings.HasPrefix(w, prefix) {
			return w
		}
	}
	return prefix
}
