package declared

import (
	_ "embed"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/protected"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
	"github.com/selinux-provision/selinux-provision/mountwatch/judge"
)

// DropInName is the file name of every drop-in of ours.
const DropInName = "90-selinux-provision.conf"

// OptionsName is the file name of a drop-in that gives a mount unit options; see OptionsContent.
const OptionsName = "91-selinux-provision.conf"

// OptionsContent gives the drop-in that has systemd itself mount with these options. An automount is made by nobody else: whoever touches the
// mountpoint meanwhile, but systemd, waits for it (autofs).
func OptionsContent(options string) []byte {
	return []byte("# Written by selinux-provision, when the kernel had taken these options.\n[Mount]\nOptions=" + strings.ReplaceAll(options, "%", "%%") + "\n")
}

// FirstUnit is the unit that makes a mount with its label before systemd would make it without. Its instance is the mount unit's name.
const FirstUnit = "selinux-provision-mount@.service"

// FirstInstance gives the instance of FirstUnit for a mount unit.
func FirstInstance(mountUnit string) string {
	return strings.Replace(FirstUnit, "@", "@"+strings.TrimSuffix(mountUnit, ".mount"), 1)
}

// DropIn is a declared mount that is to have a context from the start.
type DropIn struct {
	Mount   Mount
	Rule    *judge.Rule
	Context string
}

// Path gives where the drop-in belongs below a directory of units.
func (d *DropIn) Path(dir string) string { return path.Join(dir, d.Mount.Unit+".d", DropInName) }

// Content gives the drop-in as a file. It changes nothing of the mount itself: if FirstUnit does not make it, systemd does so as if there were
// no drop-in.
func (d *DropIn) Content() []byte {
	return []byte("# Written by selinux-provision at every boot, for the volume " + oneLine(d.Rule.Name) + " of " + oneLine(d.Rule.Source) + ".\n" +
		"# It has what " + oneLine(d.Mount.Source) + " declares mounted with its label, or else as declared.\n" +
		"[Unit]\nWants=" + FirstInstance("%p.mount") + "\nAfter=" + FirstInstance("%p.mount") + "\n")
}

// FirstUnitContent gives FirstUnit as a file, for this program.
func FirstUnitContent(program string) []byte {
	return []byte(strings.Replace(firstUnit, "PROGRAM", strings.NewReplacer("%", "%%", `\`, `\\`, `"`, `\"`, "$", "$$").Replace(program), 1))
}

//go:embed mount@.service
var firstUnit string

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// Options gives the options for mount(8) that make a mount as it is declared, and with this context.
//
// A context with categories has a comma and is quoted, or else mount(8) would take "c2" for an option of its own. Two mounts of one
// NFS or SMB server share a superblock, and so a context, unless they are told not to: nfs(5) "nosharecache", mount.cifs(8) "nosharesock".
func Options(m *Mount, context string) string {
	var options []string
	for o := range mounts.SplitOptions(m.Options) {
		// These are for systemd and mount -a; systemd removes them too.
		if !slices.Contains([]string{"auto", "noauto", "nofail"}, o) {
			options = append(options, o)
		}
	}
	for _, more := range alone(m.Type) {
		if !slices.Contains(options, more) {
			options = append(options, more)
		}
	}
	return strings.Join(append(options, secontext.Context(context).MountOption()), ",")
}

// alone gives the options that keep a mount's superblock to itself.
func alone(fsType string) []string {
	switch fsType {
	case "nfs", "nfs4":
		return []string{"nosharecache"}
	case "cifs", "smb3":
		return []string{"nosharesock"}
	}
	return nil
}

// Host is what Plan needs to know besides the files.
type Host struct {
	// DefaultContext is the image's: "file" in its lxc_contexts.
	DefaultContext string
	// Refused says why the kernel's policy would not let a file system be mounted with a context, "" if it would.
	Refused func(context string) string
	// Device gives one name for all names of a device or file, which need not be there yet; nil: each name is one of its own.
	Device func(name string) string
	// Mounted gives the context of the superblock of a device that is mounted already, and not only where it belongs, "" for none; ok says
	// whether it is. A second mount with another context fails.
	Mounted func(what, where string) (context string, ok bool)
}

// Skipped is a declared mount that a rule is meant for and that gets no drop-in. The watcher sees to it once it is mounted.
type Skipped struct {
	Mount  Mount
	Rule   *judge.Rule
	Reason string
}

// Plan gives the drop-ins that the rules ask for. A mount gets one only if nothing else about it is in doubt.
func Plan(rules *judge.Rules, host Host, all []Mount) (plan []DropIn, skipped []Skipped) {
	contexts := map[string][]string{} // wanted, by device; "" for one that gets no option
	type candidate struct {
		DropIn
		device, reason string
	}
	var candidates []candidate
	for _, m := range all {
		c := candidate{DropIn: DropIn{Mount: m}, device: device(m.What)}
		if host.Device != nil {
			c.device = host.Device(c.device)
		}
		if mounts.SharesNothing(m.Type) || len(alone(m.Type)) > 0 {
			c.device = m.Where // no other mount has its superblock, whatever the two are called
		}
		matching := rules.Matching(m.asMounted())
		if len(matching) == 1 {
			c.Rule = matching[0]
			c.Context, c.reason = wants(c.Rule, host, &m)
		}
		if len(matching) == 0 || c.reason != "" {
			contexts[c.device] = append(contexts[c.device], "")
		} else {
			contexts[c.device] = append(contexts[c.device], c.Context)
		}
		if len(matching) == 1 {
			candidates = append(candidates, c)
		}
	}
	for _, c := range candidates {
		if c.reason == "" {
			c.reason = conflict(host, &c.Mount, c.Context, contexts[c.device])
		}
		if c.reason != "" {
			skipped = append(skipped, Skipped{c.Mount, c.Rule, c.reason})
			continue
		}
		plan = append(plan, c.DropIn)
	}
	return plan, skipped
}

// conflict says why a context would keep this or another mount of the device from being made.
func conflict(host Host, m *Mount, context string, wanted []string) string {
	for _, other := range wanted {
		if other == "" || !secontext.Same(other, context) {
			return "the same device is declared twice, and not with one label"
		}
	}
	if host.Mounted != nil && !mounts.SharesNothing(m.Type) {
		if now, mounted := host.Mounted(device(m.What), m.Where); mounted && !secontext.Same(now, context) {
			return "the device is mounted already, with another label"
		}
	}
	return ""
}

// wants gives the context for a mount, or why there is none.
func wants(r *judge.Rule, host Host, m *Mount) (context, reason string) {
	if reason := Excluded(m); reason != "" {
		return "", reason
	}
	if r.Strategy == judge.Relabel || len(r.Paths) > 0 {
		return "", "its files are to be labelled"
	}
	if protected.Path(m.Where) {
		return "", "it is a directory of the operating system"
	}
	if owner := protected.Mount(m.Where); owner != "" {
		return "", "it is " + owner + "'s"
	}
	if reason := cannotTake(m.Type, r.Strategy); reason != "" {
		return "", reason
	}
	context, err := r.Want(host.DefaultContext)
	if err != nil {
		return "", err.Error()
	}
	return context, host.Refused(context)
}

// Excluded says which of a mount's options do not go with a context= beside them.
func Excluded(m *Mount) string {
	if key, value, ok := mounts.ExcludesContext(m.Options); ok {
		return "it has " + key + "=" + value + " of its own"
	}
	_, bind := m.Option("bind")
	_, rbind := m.Option("rbind")
	switch {
	case bind, rbind:
		return "it is a bind mount"
	case strings.ContainsFunc(m.Options, unicode.IsControl):
		return "its options have a line break or the like"
	case strings.Count(m.Options, `"`)%2 != 0, strings.HasSuffix(m.Options, `\`):
		return "its options end within quotes or with a backslash" // and would take the label's in
	case len(FirstInstance(m.Unit)) > maxUnitName:
		return "the name of its unit is too long"
	}
	return ""
}

// maxUnitName is how long the name of a unit may be, UNIT_NAME_MAX less the zero byte.
const maxUnitName = 255

// cannotTake says why a type of file system gets no context= before anybody has looked at what is mounted.
func cannotTake(fsType string, strategy judge.Strategy) string {
	switch fsType {
	case "ext2", "ext3", "ext4", "xfs", "f2fs", "vfat", "msdos", "exfat", "ntfs3", "iso9660", "udf", "squashfs", "erofs", "tmpfs", "overlay",
		"nfs", "nfs4", "cifs", "smb3":
		return ""
	case "", "auto":
		return "its type is not declared, and it might be Btrfs: write the type"
	case "btrfs":
		return "it is Btrfs"
	}
	if strategy == judge.Context {
		return "" // the operator says that its helper knows the option
	}
	return "it is not known whether a " + fsType + " takes the option: write strategy: context if it does"
}

// asMounted gives what the rules are matched with: as much of the line in mountinfo as can be told before.
func (m *Mount) asMounted() (*mounts.Mount, judge.Facts) {
	what := m.What
	mounted := &mounts.Mount{Root: "/", Mountpoint: m.Where, FSType: mounts.KernelType(m.Type, m.Options), Source: what, Options: "rw", SuperOptions: "rw"}
	var names mounts.Names
	key, value, _ := mounts.Tag(what)
	by, name := path.Split(what)
	switch {
	case key == "LABEL", key == "UUID":
		names.Paths = append(names.Paths, "/dev/disk/by-"+strings.ToLower(key)+"/"+escaped(value))
	case by == "/dev/disk/by-label/", by == "/dev/disk/by-uuid/":
		key, value = strings.ToUpper(strings.TrimSuffix(strings.TrimPrefix(by, "/dev/disk/by-"), "/")), unescapedName(name)
	case key == "PARTUUID", key == "PARTLABEL":
		names.Paths = append(names.Paths, "/dev/disk/by-"+strings.ToLower(key)+"/"+escaped(value))
	}
	if strings.HasPrefix(what, "/dev/") {
		names.Paths = append(names.Paths, what)
	}
	switch key {
	case "LABEL":
		names.Labels = []string{value}
	case "UUID":
		names.UUIDs = []string{value}
	}
	return mounted, judge.Facts{Names: names}
}

// device gives one name for the ways to write the same device.
func device(what string) string {
	if key, value, tagged := mounts.Tag(what); tagged {
		return "/dev/disk/by-" + strings.ToLower(key) + "/" + escaped(value)
	}
	return what
}

// escaped writes a name as udev does in /dev/disk/by-label.
func escaped(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 0x80, c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', strings.IndexByte("#+-.:=@_", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

// unescapedName takes the escapes of escaped back.
func unescapedName(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		var c byte
		if strings.HasPrefix(s[i:], `\x`) && i+4 <= len(s) {
			if n, err := fmt.Sscanf(s[i+2:i+4], "%02x", &c); err == nil && n == 1 {
				b.WriteByte(c)
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
