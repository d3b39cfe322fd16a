package ignition

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/unit"
	types "github.com/coreos/ignition/v2/config/v3_7_experimental/types"

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
		n := 0
		for line := range strings.Lines(fstab.content) {
			n++
			fields := strings.Fields(line)
			if len(fields) < 3 || strings.HasPrefix(fields[0], "#") {
				continue
			}
			one := mount{what: fields[0], where: fields[1], fstype: fields[2]}
			if len(fields) > 3 {
				one.options = fields[3]
			}
			one.at, one.key = fstab.line(n)
			all = append(all, one)
		}
	}
	return all
}

func (u *unitFile) mount() mount {
	one := mount{at: u.text.at, key: u.text.name, where: unit.UnitNamePathUnescape(strings.TrimSuffix(u.name, ".mount"))}
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
	for _, one := range all {
		c.mountOptions(one)
		c.btrfs(one.fstype, one.where, one.at, one.key, s)
	}
	c.twoLabels(all)
	for _, f := range m.config.Storage.Filesystems {
		node, l := m.find("filesystems", f.Device)
		at := l.place(lineOf(node))
		where := value(f.Path)
		if where == "" && (value(f.Label) == "ROOT" || strings.HasSuffix(f.Device, "/by-label/ROOT") || strings.HasSuffix(f.Device, "/by-partlabel/ROOT")) {
			where = "/"
		}
		// What a mount unit mounts was looked at with the unit.
		if !slices.ContainsFunc(all, func(m mount) bool { return m.what == f.Device || m.where == where }) {
			c.btrfs(value(f.Format), where, at, l.inside, s)
			c.mountOptions(mount{what: f.Device, where: where, fstype: value(f.Format), options: joined(f.MountOptions), at: at, key: l.inside})
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
	found := map[string]bool{}
	for i, o := range all {
		if !slices.Contains([]string{"context", "fscontext", "defcontext", "rootcontext"}, o.name) {
			continue
		}
		found[o.name] = true
		label := strings.Trim(o.value, `"`)
		what := fmt.Sprintf("cannot mount %s with %s=%s", m.where, o.name, o.value)
		quoted := strings.HasPrefix(o.value, `"`)
		switch {
		case label == "":
			c.add(m.at, m.key, "cannot mount "+m.where+" with an empty "+o.name+"=", "remove "+o.name+"=, or write a whole context")
			continue
		case !quoted && i+1 < len(all) && isCategory(all[i+1]) && strings.Contains(label, ":c"):
			c.add(m.at, m.key, fmt.Sprintf("%s: the kernel takes %q for an option of its own, since there are no quotes", what, all[i+1].name),
				fmt.Sprintf(`write %s="%s,%s"`, o.name, label, all[i+1].name))
			continue
		}
		if problem, _ := provision.CheckContext(label); problem != "" || label == "<<none>>" {
			c.add(m.at, m.key, what+": this is no context", "write USER:ROLE:TYPE:LEVEL, such as system_u:object_r:container_file_t:s0")
			continue
		}
		if o.name != "context" {
			continue
		}
		if reason, remedy := m.takesNoContext(); reason != "" {
			c.add(m.at, m.key, what+": "+reason, remedy)
		}
	}
	if found["context"] && found["defcontext"] {
		c.add(m.at, m.key, "cannot mount "+m.where+" with context= and defcontext=", "remove defcontext=: context= is for every file")
	}
}

// isCategory says whether an option looks like what follows the comma of a level.
func isCategory(o option) bool {
	rest := strings.TrimPrefix(o.name, "c")
	return rest != o.name && rest != "" && strings.Trim(rest, "0123456789.c") == "" && o.value == ""
}

// containerData is where the container runtimes keep what containers run from.
func containerData() []string {
	return []string{"/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/var/lib/kubelet", "/var/lib/rancher", "/var/lib/etcd"}
}

// btrfs finds Btrfs where an enforcing machine has containers or volumes.
func (c *checker) btrfs(fstype, where string, at provision.Position, key string, s *situation) {
	if fstype != "btrfs" || where == "" {
		return
	}
	const reason = "Btrfs has one label for all its subvolumes, and a snapshot comes without one"
	if rule := s.rule(where); rule != "" {
		c.add(at, key, fmt.Sprintf("cannot label %s for the volume rule %q: %s", where, rule, reason), "format it with ext4 or xfs, or remove the rule")
		return
	}
	if !s.enforcing {
		return
	}
	for _, dir := range containerData() {
		if where == "/" || dir == where || strings.HasPrefix(dir, where+"/") || strings.HasPrefix(where, dir+"/") {
			c.add(at, key, fmt.Sprintf("cannot enforce with %s on Btrfs: %s", dir, reason),
				"format it with ext4 or xfs, or declare mode: permissive")
			return
		}
	}
}

// twoLabels finds mounts of one superblock with different contexts: the second one fails.
func (c *checker) twoLabels(all []mount) {
	first := map[string]mount{}
	for _, one := range all {
		id, remedy := one.superblock()
		if id == "" {
			continue
		}
		before, again := first[id]
		if !again {
			first[id] = one
			continue
		}
		if x, y := before.context(), one.context(); x != y {
			c.add(one.at, one.key, fmt.Sprintf("cannot mount %s with %s: %s has %s, and the label belongs to the file system, not to the mount",
				one.where, orWithout(y), before.where, orWithout(x)), remedy)
		}
	}
}

func orWithout(context string) string {
	if context == "" {
		return "no context"
	}
	return "the context " + context
}

// superblock gives what two mounts have in common that share their labels, "" if they never do.
func (m mount) superblock() (id, remedy string) {
	switch {
	case m.has("bind") || m.has("rbind") || m.fstype == "none" || m.fstype == "swap" || m.fstype == "tmpfs" || m.fstype == "overlay":
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
	return device(m.what), "give both the same context, or use two file systems"
}

// device writes the two spellings of a device as one.
func device(what string) string {
	for key, dir := range map[string]string{"LABEL=": "by-label/", "UUID=": "by-uuid/", "PARTLABEL=": "by-partlabel/", "PARTUUID=": "by-partuuid/"} {
		if v, ok := strings.CutPrefix(what, key); ok {
			return "/dev/disk/" + dir + strings.Trim(v, `"`)
		}
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
func mountUnit(where string) string { return unit.UnitNamePathEscape(where) + ".mount" }
