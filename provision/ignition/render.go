package ignition

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/coreos/butane/config/common"
	"go.yaml.in/yaml/v4"

	"github.com/selinux-provision/selinux-provision/internal/printable"
)

// SysextPath is where a system extension image is put, so that systemd-sysext merges it at every boot.
const SysextPath = "/etc/extensions/selinux-provision.raw"

// DefaultVersion is the version of Butane's variant flatcar that every release of Flatcar reads: it gives Ignition spec 3.3.0.
const DefaultVersion = "1.0.0"

// Delivery is what a rendered file brings to a machine.
type Delivery struct {
	// Version is one of Versions.
	Version string
	// Files are the configuration and the modules. They are written in this order.
	Files []File
	// Units are written to /etc/systemd/system, and those with an [Install] section are enabled. Nil: there are none, since the
	// system extension image brings them.
	Units fs.FS
	// Program is the binary, or the system extension image; nil if something else delivers it.
	Program *Program
}

// File is a file with its content.
type File struct {
	Path    string
	Content []byte
}

// Program is where a binary comes from: a server, or the rendered file itself.
type Program struct {
	// Path is where it is written.
	Path string
	// URL and Hash ("sha512-" or "sha256-" and hexadecimal digits) are those of a server. Without URL, Content is embedded.
	URL, Hash string
	Content   []byte
}

// Render gives a Butane file for a delivery. The same delivery gives the same bytes.
func Render(d Delivery) ([]byte, error) {
	top := mapping(pair{"variant", scalar("flatcar")}, pair{"version", scalar(d.Version)})
	var files, units []*yaml.Node
	if p := d.Program; p != nil {
		one, err := p.node()
		if err != nil {
			return nil, err
		}
		files = append(files, one)
	}
	for _, f := range d.Files {
		files = append(files, mapping(pair{"path", scalar(f.Path)}, pair{"mode", octal(0o644)}, pair{"contents", contents(f.Content)}))
	}
	if d.Units != nil {
		dropins, err := unitNodes(d.Units, &units)
		if err != nil {
			return nil, err
		}
		files = append(files, dropins...)
	}
	storage := mapping()
	if len(files) > 0 {
		add(storage, "files", sequence(files))
	}
	if d.Units != nil {
		add(storage, "links", sequence([]*yaml.Node{mapping(pair{"path", scalar(generatorPath)}, pair{"target", scalar(binary)})}))
	}
	if len(storage.Content) > 0 {
		add(top, "storage", storage)
	}
	if len(units) > 0 {
		add(top, "systemd", mapping(pair{"units", sequence(units)}))
	}
	var out bytes.Buffer
	out.WriteString("# Rendered by selinux-provision: use it as it is, or merge it into a Butane file of yours.\n")
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := errors.Join(encoder.Encode(top), encoder.Close()); err != nil {
		return nil, fmt.Errorf("cannot render: %w", err)
	}
	return out.Bytes(), nil
}

// Translate gives the Ignition config of a rendered Butane file.
func Translate(butane []byte, version string) ([]byte, error) {
	translate, ok := translators()[version]
	if !ok {
		return nil, fmt.Errorf("cannot translate to version %s of the variant flatcar: these are known: %s", printable.Quote(version), strings.Join(Versions(), ", "))
	}
	ignition, rep, err := translate(butane, common.TranslateBytesOptions{Pretty: true})
	if err != nil {
		return nil, fmt.Errorf("cannot translate to Ignition: %w\n%s", err, rep.String())
	}
	return append(ignition, '\n'), nil
}

func (p *Program) node() (*yaml.Node, error) {
	var from *yaml.Node
	if p.URL != "" {
		from = mapping(pair{"source", scalar(p.URL)}, pair{"verification", mapping(pair{"hash", scalar(p.Hash)})})
	} else {
		var packed bytes.Buffer
		w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(p.Content); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		from = mapping(pair{"compression", scalar("gzip")}, pair{"source", scalar("data:;base64," + base64.StdEncoding.EncodeToString(packed.Bytes()))})
	}
	mode := 0o755
	if p.Path == SysextPath {
		mode = 0o644
	}
	return mapping(pair{"path", scalar(p.Path)}, pair{"mode", octal(mode)}, pair{"contents", from}), nil
}

// unitNodes adds the units to the list, and gives the drop-ins as files: Butane has drop-ins for a unit, and not for all units whose
// names begin alike.
func unitNodes(from fs.FS, units *[]*yaml.Node) (dropins []*yaml.Node, err error) {
	err = fs.WalkDir(from, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := fs.ReadFile(from, name)
		if err != nil {
			return err
		}
		if path.Dir(name) != "." {
			dropins = append(dropins, mapping(pair{"path", scalar("/etc/systemd/system/" + name)}, pair{"mode", octal(0o644)}, pair{"contents", contents(content)}))
			return nil
		}
		unit := mapping(pair{"name", scalar(name)})
		if bytes.Contains(content, []byte("\n[Install]\n")) {
			add(unit, "enabled", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: "true"})
		}
		add(unit, "contents", literal(string(content)))
		*units = append(*units, unit)
		return nil
	})
	return dropins, err
}

// contents are text that a person can read, or data.
func contents(content []byte) *yaml.Node {
	text := string(content)
	if utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r == 0xfeff }) {
		return mapping(pair{"inline", literal(text)})
	}
	return mapping(pair{"source", scalar("data:;base64," + base64.StdEncoding.EncodeToString(content))})
}

func scalar(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
}

func literal(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Style: yaml.LiteralStyle}
}

func octal(mode int) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: fmt.Sprintf("%#o", mode)}
}

func sequence(items []*yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Content: items}
}

// pair is a key with its value.
type pair struct {
	key   string
	value *yaml.Node
}

func mapping(pairs ...pair) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for _, p := range pairs {
		add(n, p.key, p.value)
	}
	return n
}

func add(n *yaml.Node, key string, value *yaml.Node) {
	n.Content = append(n.Content, scalar(key), value)
}
