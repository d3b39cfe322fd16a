package ignition

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	types "github.com/coreos/ignition/v2/config/v3_7_experimental/types"

	"github.com/selinux-provision/selinux-provision/internal/glob"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/protected"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
	"github.com/selinux-provision/selinux-provision/internal/systemd"
	"github.com/selinux-provision/selinux-provision/provision"
)

// mount is a file system that the machine will mount.
type mount struct {
	what, where, fstype, options string
	at                           provision.Position
	key                          string
}

// mounts gives what is mounted by units and by /etc/fstab.
func (m *machine) mounts() (all []mount) {
	for _, u := range m.units() {
		if strings.HasSuffix(u.name, ".mount") && !u.masked {
			all = append(all, u.mount())
		}
	}
	if fstab := m.files["/etc/fstab"]; fstab.known {
		lines, _ := mounts.ParseFstab(strings.NewReader(fstab.content)) // what systemd does not understand it leaves out
		for _, line := range lines {
			one := mount{what: line.What, where: m.real(path.Clean("/" + line.Where)), fstype: line.Type, options: line.Options}
			one.at, one.key = fstab.line(line.Line)
			all = append(all, one)
		}
	}
	return all
}

// real gives the path that a path leads to through the links of the file: systemd mounts there.
func (m *machine) real(name string) string {
	links := m.links()
	for range 32 {
		at := ""
		for dir := name; dir != "/" && dir != "."; dir = path.Dir(dir) {
			if _, ok := links[dir]; ok {
				at = dir // the one nearest to the root counts
			}
		}
		if at == "" {
			return name
		}
		target := links[at]
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(at), target)
		}
		name = path.Join(target, strings.TrimPrefix(name, at))
	}
	return name
}

func (u *unitFile) mount() mount {
	one := mount{at: u.text.at, key: u.text.name, where: systemd.Mountpoint(u.name)}
	for _, o := range u.options {
		if o.section != "Mount" {
			continue
		}
		switch o.name {
		case "What":
			one.what = o.value
		case "Where":
			one.where = path.Clean(o.value)
		case "Type":
			one.fstype = o.value
		case "Options":
			one.options = o.value
			one.at, one.key = o.at, o.key
		}
	}
	return one
}

// option is one option of a mount, with what the quotes held together.
type option struct{ name, value string }

// mountOptions takes a string of mount options apart as mount(8) does: at commas outside double quotes.
func mountOptions(s string) (all []option, unbalanced bool) {
	quoted, begin := false, 0
	add := func(part string) {
		if part = strings.TrimSpace(part); part != "" {
			name, value, _ := strings.Cut(part, "=")
			all = append(all, option{name, value})
		}
	}
	for i := range len(s) {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == ',' && !quoted:
			add(s[begin:i])
			begin = i + 1
		}
	}
	add(s[begin:])
	return all, quoted
}

// context gives the context that a mount declares for all its files, without quotes.
func (m mount) context() string {
	all, _ := mountOptions(m.options)
	for _, o := range all {
		if o.name == "context" {
			return strings.Trim(o.value, `"`)
		}
	}
	return ""
}

func (m mount) has(name string) bool {
	all, _ := mountOptions(m.options)
	return slices.ContainsFunc(all, func(o option) bool { return o.name == name })
}

// takesNoContext gives the reason why context= does nothing or fails on a mount, "" if it works.
func (m mount) takesNoContext() (reason, remedy string) {
	const without = "remove context="
	switch {
	case m.fstype == "btrfs":
		return "Btrfs has one label for all its subvolumes, and a snapshot comes without one", "use ext4 or xfs"
	case m.fstype == "swap":
		return "swap holds no files", without
	case m.fstype == "none" || m.has("bind") || m.has("rbind"):
		return "a bind mount has the labels of the file system that it shows", "set context= where that file system is mounted"
	// One superblock for the whole machine, mounted without a context before.
	case slices.Contains([]string{"proc", "sysfs", "cgroup", "cgroup2", "devtmpfs", "securityfs", "selinuxfs", "debugfs", "tracefs",
		"bpf", "configfs", "fusectl", "pstore", "efivarfs", "autofs", "binfmt_misc", "mqueue"}, m.fstype):
		return "the kernel has one " + m.fstype + ", which is mounted already", without
	}
	return "", ""
}

// mountChecks finds mounts whose label will not be what they say.
func (c *checker) mountChecks(m *machine, s *situation) {
	all := m.mounts()
	s.disks = map[string]disk{}
	for _, f := range m.config.Storage.Filesystems {
		one := disk{device: f.Device, label: value(f.Label), uuid: strings.ToLower(value(f.UUID)), format: value(f.Format)}
		s.disks[device(f.Device)] = one
		if one.label != "" {
			s.disks["/dev/disk/by-label/"+one.label] = one
		}
		if one.uuid != "" {
			s.disks["/dev/disk/by-uuid/"+one.uuid] = one
		}
	}
	for i, one := range all {
		if one.fstype == "" || one.fstype == "auto" {
			all[i].fstype = s.disks[device(one.what)].format
		}
	}
	s.containers, s.mounts = containerData(m), all
	for _, one := range all {
		c.mountOptions(one)
		c.btrfs(one.shown(all), s)
		c.volume(m, one, s)
	}
	c.twoLabels(m, all, s)
	c.throughLinks(m, s)
	for _, f := range m.config.Storage.Filesystems {
		node, l := m.find("filesystems", f.Device)
		at := l.place(lineOf(node))
		where := value(f.Path)
		if where == "" && (value(f.Label) == "ROOT" || strings.HasSuffix(f.Device, "/by-label/ROOT") || strings.HasSuffix(f.Device, "/by-partlabel/ROOT")) {
			where = "/"
		}
		// What a mount unit mounts was looked at with the unit.
		if !slices.ContainsFunc(all, func(m mount) bool { return s.device(m.what) == f.Device || m.where == where }) {
			one := mount{what: f.Device, where: where, fstype: value(f.Format), options: joined(f.MountOptions), at: at, key: l.inside}
			c.btrfs(one, s)
			c.mountOptions(one)
		}
	}
}

func joined(options []types.MountOption) string {
	var all []string
	for _, o := range options {
		all = append(all, string(o))
	}
	return strings.Join(all, ",")
}

func (c *checker) mountOptions(m mount) {
	all, unbalanced := mountOptions(m.options)
	if unbalanced {
		c.add(m.at, m.key, "cannot mount "+m.where+`: a double quote is not closed in "`+m.options+`"`, `write context="USER:ROLE:TYPE:LEVEL"`)
		return
	}
	found := map[string]string{}
	for i, o := range all {
		if meant := strings.ToLower(strings.Trim(o.name, `"'`)); meant != o.name && slices.Contains(labelOptions(), meant) {
			c.add(m.at, m.key, fmt.Sprintf("cannot mount %s with the option %s: it is not %s, and the kernel refuses it", m.where, o.name, meant), fmt.Sprintf(`write %s="USER:ROLE:TYPE:LEVEL"`, meant))
			continue
		}
		if !slices.Contains(labelOptions(), o.name) {
			continue
		}
		if before, twice := found[o.name]; twice && before != o.value {
			c.add(m.at, m.key, fmt.Sprintf("cannot mount %s with two options %s=, %s and %s", m.where, o.name, before, o.value), "remove one of the two")
			continue
		}
		found[o.name] = o.value
		label := strings.Trim(o.value, `"`)
		what := fmt.Sprintf("cannot mount %s with %s=%s", m.where, o.name, o.value)
		quoted := strings.HasPrefix(o.value, `"`)
		switch {
		case label == "":
			c.add(m.at, m.key, "cannot mount "+m.where+" with an empty "+o.name+"=", "remove "+o.name+"=, or write a whole context")
			continue
		case !quoted && i+1 < len(all) && isCategory(all[i+1]) && strings.Contains(label, ":c"):
			c.add(m.at, m.key, fmt.Sprintf("%s: the kernel takes %s for an option of its own, since there are no quotes", what, printable.Quote(all[i+1].name)),
				fmt.Sprintf(`write %s="%s,%s"`, o.name, label, all[i+1].name))
			continue
		}
		if secontext.Context(label).Check() != nil {
			c.add(m.at, m.key, what+": this is no context", "write USER:ROLE:TYPE:LEVEL, such as system_u:object_r:container_file_t:s0")
			continue
		}
		if name := unknownInLevel(secontext.Context(label).Level()); name != "" {
			c.add(m.at, m.key, what+": the policy has no "+name, levelRemedy)
			continue
		}
		if o.name != "context" {
			continue
		}
		if reason, remedy := m.takesNoContext(); reason != "" {
			c.add(m.at, m.key, what+": "+reason, remedy)
		}
	}
	if found["context"] != "" && found["defcontext"] != "" {
		c.add(m.at, m.key, "cannot mount "+m.where+" with context= and defcontext=", "remove defcontext=: context= is for every file")
	}
}

// labelOptions are the mount options that SELinux takes for itself (mount(8)).
func labelOptions() []string { return []string{"context", "fscontext", "defcontext", "rootcontext"} }

// isCategory says whether an option looks like what follows the comma of a level.
func isCategory(o option) bool {
	rest := strings.TrimPrefix(o.name, "c")
	return rest != o.name && rest != "" && strings.Trim(rest, "0123456789.c") == "" && o.value == ""
}

// containerData is where the container runtimes keep what containers run from: where they do so by themselves, and where the file has
// them do so.
func containerData(m *machine) []string {
	all := []string{"/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/var/lib/kubelet", "/var/lib/rancher", "/var/lib/etcd"}
	for _, s := range protected.Settings() {
		if dir := s.Directory([]byte(m.files[s.File].content)); dir != "" {
			all = append(all, dir)
		}
	}
	return all
}

// shown gives, for a bind mount, the file system that it shows, in the place of the bind mount; any other mount as it is.
func (m mount) shown(all []mount) mount {
	if m.fstype != "none" && !m.has("bind") && !m.has("rbind") {
		return m
	}
	below := ""
	for _, other := range all {
		if other.where != m.where && len(other.where) > len(below) && (m.what == other.where || strings.HasPrefix(m.what, strings.TrimSuffix(other.where, "/")+"/")) {
			below, m.fstype = other.where, other.fstype
		}
	}
	return m
}

// btrfs finds Btrfs where an enforcing machine has containers or volumes.
func (c *checker) btrfs(m mount, s *situation) {
	if m.fstype != "btrfs" || m.where == "" {
		return
	}
	const reason = "Btrfs has one label for all its subvolumes, and a snapshot comes without one"
	if rule := s.rule(m); rule != nil {
		c.add(m.at, m.key, fmt.Sprintf("cannot label %s for the volume %s: %s", m.where, printable.Quote(rule.Name), reason), "format it with ext4 or xfs, or remove the volume")
		return
	}
	if !s.enforcing {
		return
	}
	for _, dir := range s.containers {
		if m.where == "/" || dir == m.where || strings.HasPrefix(dir, m.where+"/") || strings.HasPrefix(m.where, dir+"/") {
			c.add(m.at, m.key, fmt.Sprintf("cannot enforce with %s on Btrfs: %s", dir, reason),
				"format it with ext4 or xfs, or declare mode: permissive")
			return
		}
	}
}

// twoLabels finds mounts of one superblock with different contexts: the second one fails.
func (c *checker) twoLabels(m *machine, all []mount, s *situation) {
	first := map[string]mount{}
	for _, one := range all {
		id, remedy := s.superblock(one)
		if id == "" || !strings.HasPrefix(id, "/") && one.context() == "" && s.rule(one) != nil && m.generator() {
			continue // the generator gives network mounts the option that keeps them apart
		}
		before, again := first[id]
		if !again {
			first[id] = one
			continue
		}
		if x, y := s.label(before), s.label(one); x != y {
			c.add(one.at, one.key, fmt.Sprintf("cannot mount %s with %s: %s has %s, and the label belongs to the file system, not to the mount",
				one.where, y, before.where, x), remedy)
		}
	}
}

// label says which label a mount gets, from its options or from the volume that it is.
func (s *situation) label(m mount) string {
	if context := m.context(); context != "" {
		return "the context " + context
	}
	if rule := s.rule(m); rule != nil {
		return "the label of the volume " + quote(rule.Name)
	}
	return "no context"
}

// rule gives the declared volume that a mount is, nil if it is none. What is not known of a mount here, such as the UUID of a device
// that is named by its label, fits no pattern.
func (s *situation) rule(m mount) *provision.Volume {
	if s.declared == nil {
		return nil
	}
	from := func(dir string) string {
		if v, ok := strings.CutPrefix(device(m.what), "/dev/disk/"+dir+"/"); ok {
			return v
		}
		return ""
	}
	disk := s.disks[device(m.what)]
	label, uuid := cmp.Or(from("by-label"), disk.label), cmp.Or(from("by-uuid"), disk.uuid)
	var best *provision.Volume
	for i, v := range s.declared.Volumes {
		if v.Match.CSIDriver == "" && fits(v.Match.Mountpoint, m.where) && (fits(v.Match.Source, m.what) || fits(v.Match.Source, device(m.what))) && fitsType(v.Match.FSType, m) &&
			fits(v.Match.Label, label) && fits(strings.ToLower(v.Match.UUID), uuid) && (best == nil || moreSpecific(v.Match, best.Match, m)) {
			best = &s.declared.Volumes[i]
		}
	}
	return best
}

// moreSpecific tells which of two rules for one mount the watcher follows: that with more exact keys, then that with more keys, then that which
// has the type itself and not its family.
func moreSpecific(a, b provision.VolumeMatch, m mount) bool {
	count := func(v provision.VolumeMatch) (exact, keys int) {
		for i, pattern := range []string{v.Mountpoint, v.Source, v.Label, v.UUID, v.FSType} {
			if pattern == "" {
				continue
			}
			keys++
			if p, err := glob.Compile(pattern); err == nil && p.Exact() && i < 4 {
				exact++
			}
		}
		return exact, keys
	}
	exactA, keysA := count(a)
	exactB, keysB := count(b)
	if exactA == exactB && keysA == keysB {
		kind := mounts.KernelType(m.fstype, m.options)
		return fits(a.FSType, kind) && !fits(b.FSType, kind)
	}
	return exactA > exactB || exactA == exactB && keysA > keysB
}

// fitsType says whether a pattern is for the type of a mount, or for another name of it.
func fitsType(pattern string, m mount) bool {
	return slices.ContainsFunc(mounts.TypeNames(mounts.KernelType(m.fstype, m.options)), func(name string) bool { return fits(pattern, name) })
}

// disk is a file system that Ignition makes.
type disk struct{ device, label, uuid, format string }

// device gives the name under which Ignition makes a file system that is mounted by another one, such as its label; a name of
// something else as it is, in one spelling.
func (s *situation) device(what string) string {
	if disk, ok := s.disks[device(what)]; ok {
		return disk.device
	}
	return device(what)
}

// hidden says that a rule knows a mount by something that the mount itself does not tell: systemd is to mount another name of the device.
// The generator, which runs before there are devices, cannot know that it is the same.
func (s *situation) hidden(rule *provision.Volume, m mount) bool {
	what := device(m.what)
	return rule.Match.Label != "" && !strings.HasPrefix(what, "/dev/disk/by-label/") || rule.Match.UUID != "" && !strings.HasPrefix(what, "/dev/disk/by-uuid/")
}

// fits says whether a name has a pattern; an empty pattern asks for nothing.
func fits(pattern, name string) bool {
	if pattern == "" {
		return true
	}
	p, err := glob.Compile(pattern)
	return err == nil && name != "" && p.Match(name)
}

// onlyOption are file systems whose files have no labels of their own (policy: genfscon), so that only context= labels them.
func onlyOption() []string {
	return []string{"vfat", "exfat", "msdos", "ntfs", "iso9660", "udf", "fuse", "cifs", "smb3", "nfs", "nfs4", "squashfs", "erofs"}
}

// volume finds a mount that its declared volume does not get along with.
func (c *checker) volume(m *machine, one mount, s *situation) {
	rule := s.rule(one)
	if rule == nil || one.fstype == "btrfs" {
		return
	}
	have := one.context()
	key, its, excludes := mounts.ExcludesContext(one.options)
	files := rule.Strategy == provision.RelabelFiles || len(rule.Paths) > 0
	switch {
	case excludes && key != "context" && !files:
		c.add(one.at, one.key, fmt.Sprintf("cannot mount %s with the label of the volume %s: it has %s=%s, which does not go with the option context=", one.where, printable.Quote(rule.Name), key, its),
			"remove "+key+"=, or write \"strategy: relabel\" in the volume")
	case have != "" && files:
		c.add(one.at, one.key, fmt.Sprintf("cannot label the files of %s for the volume %s: it is mounted with context=%s, and then its files take no labels", one.where, printable.Quote(rule.Name), have),
			"remove context=, or the strategy and the paths of the volume")
	case have != "" && rule.Level != "" && !secontext.Same(have, string(secontext.Context(have).WithLevel(rule.Level))):
		c.add(one.at, one.key, fmt.Sprintf("cannot mount %s with the context %s: the volume %s declares the level %s", one.where, have, printable.Quote(rule.Name), rule.Level), "remove one of the two")
	case have != "" && rule.Context != "" && have != rule.Context:
		c.add(one.at, one.key, fmt.Sprintf("cannot mount %s with the context %s: the volume %s declares %s", one.where, have, printable.Quote(rule.Name), rule.Context),
			"remove one of the two")
	case rule.Strategy == provision.RelabelFiles && slices.Contains(onlyOption(), one.fstype):
		c.add(one.at, one.key, fmt.Sprintf("cannot relabel %s for the volume %s: the files of %s have no labels of their own", one.where, printable.Quote(rule.Name), one.fstype),
			"write \"strategy: context\", or remove the key")
	case have == "" && rule.Strategy != provision.RelabelFiles && len(rule.Paths) == 0 && m.generator() && s.hidden(rule, one):
		c.add(one.at, one.key, fmt.Sprintf("cannot mount %s with the label of the volume %s at once: the volume is told by the label or UUID of the file system, and it is mounted as %s, so the watcher would have to unmount it and mount it again",
			one.where, printable.Quote(rule.Name), one.what), fmt.Sprintf("match: {mountpoint: %s}, or mount it by that label or UUID", one.where))
	case have == "" && rule.Strategy != provision.RelabelFiles && len(rule.Paths) == 0 && !m.generator():
		context := rule.Context
		if context == "" {
			context = "USER:ROLE:TYPE:" + cmp.Or(rule.Level, "s0")
		}
		remedy := fmt.Sprintf(`write the option context="%s"`, context)
		if m.extension() == "" {
			remedy += fmt.Sprintf(", or add the link %s to %s", generatorPath, binary)
		}
		c.add(one.at, one.key, fmt.Sprintf("cannot mount %s with the label of the volume %s at once: nothing here gives the unit its context=, so the watcher would have to unmount it and mount it again",
			one.where, printable.Quote(rule.Name)), remedy)
	}
}

// throughLinks finds mountpoints that are written by way of a link.
func (c *checker) throughLinks(m *machine, s *situation) {
	for _, u := range m.units() {
		if one := u.mount(); strings.HasSuffix(u.name, ".mount") && !u.masked && m.real(one.where) != one.where {
			c.add(one.at, one.key, fmt.Sprintf("cannot mount %s: the path leads through a link to %s, and systemd mounts no unit there", one.where, m.real(one.where)),
				"name the unit "+mountUnit(m.real(one.where))+", and write Where="+m.real(one.where))
		}
	}
	if s.declared == nil {
		return
	}
	for _, v := range s.declared.Volumes {
		pattern, err := glob.Compile(v.Match.Mountpoint)
		if err != nil || !pattern.Exact() || !path.IsAbs(v.Match.Mountpoint) {
			continue
		}
		if target := m.real(path.Clean(v.Match.Mountpoint)); target != path.Clean(v.Match.Mountpoint) {
			at, key := m.files[v.Source.File].line(v.Source.Line)
			c.add(at, key, fmt.Sprintf("cannot label the volume %s: its mountpoint %s leads through a link to %s, and the kernel knows mounts by the real path only", printable.Quote(v.Name), v.Match.Mountpoint, target),
				"write: match: {mountpoint: "+target+"}")
		}
	}
}

// generatorPath is where systemd finds the generator that gives mount units the label of their volume. It has to be there before
// anything is mounted: a system extension image comes too late.
const generatorPath = "/etc/systemd/system-generators/selinux-provision-generator"

// generator says whether the file brings the generator, or may do so.
func (m *machine) generator() bool {
	_, file := m.files[generatorPath]
	_, link := m.links()[generatorPath]
	return file || link || m.more
}

// superblock gives what two mounts have in common that share their labels, "" if they never do.
func (s *situation) superblock(m mount) (id, remedy string) {
	switch {
	case m.has("bind") || m.has("rbind") || m.fstype == "none" || m.fstype == "swap" || mounts.SharesNothing(m.fstype):
		return "", ""
	case strings.HasPrefix(m.fstype, "nfs"):
		host, _, _ := strings.Cut(m.what, ":/")
		if m.has("nosharecache") || host == m.what {
			return "", ""
		}
		return "nfs " + host, "add nosharecache to the options of both"
	case m.fstype == "cifs" || m.fstype == "smb3":
		if m.has("nosharesock") {
			return "", ""
		}
		host, _, _ := strings.Cut(strings.TrimPrefix(m.what, "//"), "/")
		return "cifs " + host, "add nosharesock to the options of both"
	case m.what == "" || !strings.HasPrefix(m.what, "/") && !strings.Contains(m.what, "="):
		return "", ""
	}
	return s.device(m.what), "give both the same context, or use two file systems"
}

// device writes the two spellings of a device as one.
func device(what string) string {
	if key, value, ok := mounts.Tag(what); ok {
		what = "/dev/disk/by-" + strings.ToLower(key) + "/" + value
	}
	if uuid, ok := strings.CutPrefix(what, "/dev/disk/by-uuid/"); ok {
		return "/dev/disk/by-uuid/" + strings.ToLower(uuid)
	}
	return what
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// mountUnit gives the name of the unit that mounts a directory.
func mountUnit(where string) string { return systemd.MountUnitName(where) }
