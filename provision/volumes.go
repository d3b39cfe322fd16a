package provision

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/selinux-provision/selinux-provision/internal/glob"
	"github.com/selinux-provision/selinux-provision/internal/kubelet"
	"github.com/selinux-provision/selinux-provision/internal/lazyregexp"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/protected"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

var (
	validVolume = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	validType   = lazyregexp.New(`^[a-z0-9_.*?\[\]!-]+$`)
	validDriver = lazyregexp.New(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)
	validPart   = lazyregexp.New(`^([A-Za-z0-9#+.:=@_*?\[\]!-]|[^\x00-\x7f])+$`)
	fstabEscape = lazyregexp.New(`\\[0-7]{3}`)
	validUUID   = lazyregexp.New(`^[0-9A-Fa-f*?\[\]!-]+$`)
)

const (
	maxVolume = 63 // bytes of a volume's name
	maxDriver = 63 // bytes of a driver's, as Kubernetes has it
)

// relabelLimits are RelabelLimits as one file gives them.
type relabelLimits struct{ workers, entriesPerSecond, cpuPercent *int }

func (p *parser) relabel(key string, n *yaml.Node) {
	p.mapping(key, n, keys{
		"workers": func(key string, n *yaml.Node) {
			p.doc.relabel.workers = p.number(key, n, "a number of workers", 1, 256)
		},
		"entries_per_second": func(key string, n *yaml.Node) {
			p.doc.relabel.entriesPerSecond = p.number(key, n, "a rate", 1, 10_000_000)
		},
		"cpu_percent": func(key string, n *yaml.Node) {
			p.doc.relabel.cpuPercent = p.number(key, n, "a share of one processor in percent", 1, 10_000)
		},
	})
}

func (p *parser) number(key string, n *yaml.Node, what string, least, most int) *int {
	value, err := strconv.Atoi(n.Value)
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || err != nil || value < least || value > most {
		p.complain(n.Line, key, "cannot use "+describe(n)+" as "+what, fmt.Sprintf("write a number from %d to %d, or remove the key", least, most))
		return nil
	}
	return &value
}

func (p *parser) volumes(key string, n *yaml.Node) {
	items, _ := p.sequence(key, n)
	lines := map[string]int{}
	for i, item := range items {
		key := fmt.Sprintf("%s[%d]", key, i)
		v := Volume{Strategy: Auto, Source: p.at(item.Line)}
		before := len(p.problems)
		strategyLine := 0
		seen, ok := p.mapping(key, item, keys{
			"name": func(key string, n *yaml.Node) {
				v.Name, _ = p.text(key, n, "the name of a volume")
				if v.Name != "" && (len(v.Name) > maxVolume || !validVolume().MatchString(v.Name)) {
					p.complain(n.Line, key, "cannot use "+quote(v.Name)+" as the name of a volume",
						"write up to 63 letters, digits and _ . -, the first a letter or a digit")
				}
				if first, twice := lines[v.Name]; twice {
					p.complain(n.Line, key, fmt.Sprintf("cannot use the name %s twice, it is in line %d already", quote(v.Name), first), "rename one of the two")
				}
				lines[v.Name] = n.Line
			},
			"match": func(key string, n *yaml.Node) { p.match(key, n, &v.Match) },
			"context": func(key string, n *yaml.Node) {
				v.Context, _ = p.text(key, n, "a context")
				if v.Context != "" && secontext.Context(v.Context).Check() != nil {
					p.complain(n.Line, key, "cannot use "+quote(v.Context)+" as a context",
						"write user:role:type:level, such as system_u:object_r:container_file_t:s0:c10,c20, or only a level with the key level")
				}
			},
			"level": func(key string, n *yaml.Node) {
				v.Level, _ = p.text(key, n, "a level")
				if _, err := secontext.ParseRange(v.Level); v.Level != "" && err != nil {
					p.complain(n.Line, key, "cannot use "+quote(v.Level)+" as a level", "write s0 for a volume that containers share, or s0:c10,c20")
				}
			},
			"strategy": func(key string, n *yaml.Node) {
				strategyLine = n.Line
				if s, ok := p.choice(key, n, "a strategy", string(Auto), string(ContextOption), string(RelabelFiles)); ok {
					v.Strategy = Strategy(s)
				}
			},
			"paths":    func(key string, n *yaml.Node) { v.Paths = p.subPaths(key, n) },
			"required": func(key string, n *yaml.Node) { set(&v.Required, p.boolean(key, n)) },
			"private":  func(key string, n *yaml.Node) { set(&v.Private, p.boolean(key, n)) },
		})
		for _, needed := range []string{"name", "match"} {
			if ok && !seen[needed] {
				p.complain(item.Line, key, fmt.Sprintf("cannot find the key %s", printable.Quote(needed)), "each volume needs a name and a match")
			}
		}
		for _, given := range []struct{ key, value string }{{"name", v.Name}, {"context", v.Context}, {"level", v.Level}} {
			if seen[given.key] && given.value == "" && len(p.problems) == before {
				p.complain(item.Line, join(key, given.key), "cannot use an empty value here", "write a value, or remove the key")
			}
		}
		if v.Context != "" && v.Level != "" {
			p.complain(item.Line, key, "cannot use a context and a level in one volume", "the level is the end of the context: remove one of the two")
		}
		if len(v.Paths) > 0 && v.Strategy == ContextOption {
			p.complain(strategyLine, join(key, "strategy"), `cannot use "context" for single paths: the mount option is for the whole volume`,
				`write "relabel", or remove the paths`)
		}
		if v.Private && v.Strategy == ContextOption {
			p.complain(strategyLine, join(key, "strategy"), `cannot use "context" for a private volume: with the mount option no runtime can give the files its container's level`,
				`write "relabel", or remove the key private`)
		}
		if v.Strategy == ContextOption && v.Match.KubeletsVolumes() {
			p.complain(strategyLine, join(key, "strategy"), `cannot use "context" for volumes of the kubelet: what it has mounted is never unmounted to be mounted again`,
				`remove the key, or have the driver mount them with the option: mountOptions in the StorageClass`)
		}
		if len(p.problems) == before {
			p.doc.volumes = append(p.doc.volumes, v)
		}
	}
}

func (p *parser) match(key string, n *yaml.Node, m *VolumeMatch) {
	before := len(p.problems)
	pattern := func(field *string, what string, check func(value string, exact bool) (problem, remedy string)) func(string, *yaml.Node) {
		return func(key string, n *yaml.Node) {
			value, ok := p.text(key, n, what)
			if !ok {
				return
			}
			problem := "cannot use " + quote(value) + " as " + what
			compiled, err := glob.Compile(value)
			switch {
			case value == "" || unprintable(value) || len(value) > maxPath:
				p.complain(n.Line, key, problem, "write text without control characters")
			case err != nil:
				p.complain(n.Line, key, problem, err.Error()+`: a \ before it takes the meaning from a character`)
			default:
				if wrong, remedy := check(value, compiled.Exact()); remedy != "" {
					p.complain(n.Line, key, problem+wrong, remedy)
					return
				}
				*field = value
			}
		}
	}
	driverLine, sourceLine := 0, 0
	const sourceIs = "what is mounted"
	seen, ok := p.mapping(key, n, keys{
		"mountpoint": pattern(&m.Mountpoint, "a mountpoint", checkMountpoint),
		"source": func(key string, n *yaml.Node) {
			sourceLine = n.Line
			pattern(&m.Source, sourceIs, func(string, bool) (string, string) { return "", "" })(key, n)
		},
		"fstype": pattern(&m.FSType, "a type of file system", checkType),
		"label":  pattern(&m.Label, "the label of a file system", func(string, bool) (string, string) { return "", "" }),
		"uuid": pattern(&m.UUID, "the UUID of a file system", func(value string, _ bool) (string, string) {
			if !validUUID().MatchString(value) {
				return "", "write it as blkid shows it, such as 8e55d011-9c83-473e-99c9-c716b1e508e6"
			}
			return "", ""
		}),
		"csi_driver": func(key string, n *yaml.Node) {
			driverLine = n.Line
			m.CSIDriver, _ = p.text(key, n, "the name of a CSI driver")
			if len(p.problems) == before && (len(m.CSIDriver) > maxDriver || !validDriver().MatchString(m.CSIDriver)) {
				p.complain(n.Line, key, "cannot use "+quote(m.CSIDriver)+" as the name of a CSI driver",
					`write the whole name of one, as "kubectl get csidrivers" shows it; for several drivers write several volumes`)
			}
		},
	})
	if problem, remedy := m.tagged(); problem != "" {
		p.complain(sourceLine, join(key, "source"), "cannot use "+quote(m.Source)+" as "+sourceIs+problem, remedy)
	}
	if m.CSIDriver != "" && m.Mountpoint != "" && len(p.problems) == before && !meetsKubelet(m.Mountpoint) {
		p.complain(driverLine, join(key, "csi_driver"), "cannot match a CSI driver's volumes at "+quote(m.Mountpoint)+": the kubelet has them mounted below "+kubelet.DefaultDir,
			"remove the mountpoint")
	}
	if ok && len(seen) == 0 && len(p.problems) == before {
		p.complain(n.Line, key, "cannot match without a key", "write at least one of mountpoint, source, fstype, label, uuid and csi_driver")
	}
}

// tagged reads a source such as LABEL=data, as fstab and mount units have it, for what it means: once it is mounted, the kernel shows the
// name of the device.
func (m *VolumeMatch) tagged() (problem, remedy string) {
	tag, value, ok := mounts.Tag(m.Source)
	if !ok {
		return "", ""
	}
	also := func(key string) (problem, remedy string) {
		return ": there is the key " + key + " beside it", "remove one of the two"
	}
	switch {
	case value == "":
		return ": it names nothing", "write what comes behind " + tag + "="
	case tag == "LABEL" && m.Label != "":
		return also("label")
	case tag == "LABEL":
		m.Label, m.Source = value, ""
	case tag == "UUID" && m.UUID != "":
		return also("uuid")
	case tag == "UUID" && !validUUID().MatchString(value):
		return ": it is no UUID", "write it as blkid shows it, such as UUID=8e55d011-9c83-473e-99c9-c716b1e508e6"
	case tag == "UUID":
		m.UUID, m.Source = value, ""
	case !validPart().MatchString(value):
		return ": udev writes some of its characters otherwise", `write the path that "ls /dev/disk/by-` + strings.ToLower(tag) + `" shows, with \\ for each \ in it`
	case tag == "PARTUUID":
		m.Source = "/dev/disk/by-partuuid/" + strings.ToLower(value)
	default:
		m.Source = "/dev/disk/by-partlabel/" + value
	}
	return "", ""
}

// checkMountpoint warns early of what the watcher would refuse or leave alone for ever.
func checkMountpoint(value string, exact bool) (problem, remedy string) {
	switch {
	case !strings.HasPrefix(value, "/"):
		return "", "begin it with /"
	case path.Clean(value) != value:
		return "", "write " + clip(path.Clean(value))
	case fstabEscape().MatchString(value):
		return ": what fstab writes with a backslash and three digits is written as it is here", "write " + quote(mounts.Unescape(value))
	case exact && protected.Path(value):
		return ": it is a directory of the operating system", "mount the volume elsewhere"
	case exact && kubelet.MeansCSI(value):
		if _, volume := kubelet.CSIMount(value); !volume {
			return ": no CSI volume is mounted there", "write where one is: " + kubelet.DefaultDir + "/plugins/kubernetes.io/csi/DRIVER/HASH/globalmount, or a pattern such as " +
				kubelet.DefaultDir + "/plugins/kubernetes.io/csi/DRIVER/**"
		}
	case exact && protected.Owner(value) != "":
		return ": what is mounted there is " + protected.Owner(value) + "'s, which labels it by itself", "remove this volume"
	}
	return "", ""
}

// meetsKubelet tells whether a pattern for mountpoints can fit one below the kubelet's directory.
func meetsKubelet(mountpoint string) bool {
	p, err := glob.Compile(mountpoint)
	return err != nil || kubelet.MeansCSI(p.Prefix()) || strings.HasPrefix(p.Prefix(), kubelet.DefaultDir+"/") || !p.Exact() && strings.HasPrefix(kubelet.DefaultDir+"/", p.Prefix())
}

func checkType(value string, _ bool) (problem, remedy string) {
	switch {
	case value == "btrfs":
		return ": one label would hold for all its subvolumes", "use ext4 or xfs for volumes"
	case !validType().MatchString(value):
		return "", "write it as /proc/filesystems has it, such as ext4, xfs, nfs4 or fuse.sshfs"
	}
	return "", ""
}

func (p *parser) subPaths(key string, n *yaml.Node) []string {
	items, _ := p.sequence(key, n)
	var all []string
	for i, item := range items {
		key := fmt.Sprintf("%s[%d]", key, i)
		sub, ok := p.text(key, item, "a path in a volume")
		if !ok {
			continue
		}
		problem := "cannot use " + quote(sub) + " as a path in a volume"
		switch {
		case sub == "" || unprintable(sub) || len(sub) > maxPath:
			p.complain(item.Line, key, problem, "write the name of a directory or file, or several with / between them")
		case strings.HasPrefix(sub, "/"):
			p.complain(item.Line, key, problem, "write it from the root of the volume on, without the / at its beginning")
		case slices.Contains(strings.Split(sub, "/"), ".."):
			p.complain(item.Line, key, problem, `write it without ".."`)
		case sub == ".":
			p.complain(item.Line, key, problem, "remove the paths: then the whole volume is labelled")
		case path.Clean(sub) != sub:
			p.complain(item.Line, key, problem, "write "+clip(path.Clean(sub)))
		case slices.Contains(all, sub):
			p.complain(item.Line, key, problem+": it is there already", "remove one of the two")
		default:
			all = append(all, sub)
		}
	}
	return all
}

// volumes keeps of those with one name the last, and finds those that no mount could tell apart.
func (l *loader) volumes() {
	last := map[string]int{}
	for i, v := range l.state.Volumes {
		last[v.Name] = i
	}
	var kept []Volume
	matches := map[VolumeMatch]Volume{}
	for i, v := range l.state.Volumes {
		if last[v.Name] != i {
			continue
		}
		if first, twice := matches[v.Match]; twice {
			l.complain(v.Source, "volumes", fmt.Sprintf("cannot use the match of %s for a second volume: %s has the same (%s)", printable.Quote(v.Name), printable.Quote(first.Name), first.Source),
				"make one of them more specific, or remove it", nil)
		}
		matches[v.Match] = v
		kept = append(kept, v)
	}
	l.state.Volumes = kept
}
