package ignition

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/butane/config/common"
	flatcar10 "github.com/coreos/butane/config/flatcar/v1_0"
	flatcar11 "github.com/coreos/butane/config/flatcar/v1_1"
	flatcar12 "github.com/coreos/butane/config/flatcar/v1_2_exp"
	ign "github.com/coreos/ignition/v2/config"
	latest "github.com/coreos/ignition/v2/config/v3_7_experimental"
	types "github.com/coreos/ignition/v2/config/v3_7_experimental/types"
	"github.com/coreos/vcontext/report"
	"github.com/vincent-petithory/dataurl"
	"go.yaml.in/yaml/v4"

	"github.com/selinux-provision/selinux-provision/internal/lazyregexp"
	"github.com/selinux-provision/selinux-provision/provision"
)

// maxContent is the size in bytes of what is unpacked of one compressed file, maxContents that of all together: they are held in memory.
const (
	maxContent  = 128 << 20
	maxContents = 256 << 20
)

// maxMerges is how deep configs may be merged into each other.
const maxMerges = 20

// layer is one config: the file itself, or one that is merged into it.
type layer struct {
	kind   Kind
	root   *yaml.Node
	config types.Config
	place  func(line int) provision.Position
	// inside is what the config is in the file, empty for the file itself.
	inside string
}

// machine is what the file would make: all layers merged, with the files that are in it.
type machine struct {
	layers []layer // later ones beat earlier ones
	config types.Config
	files  map[string]text
	// more says that a config is merged which was not looked at, or that something was refused and left out: what is missing here may be
	// there.
	more bool
	// named are the items of lists by their names. A file has thousands of things, and each is looked for.
	named map[*yaml.Node]map[string]*yaml.Node
	// What follows is worked out when it is first asked for, and kept: many checks ask, and a file has thousands of things.
	made     []*unitFile
	byName   map[string]*unitFile
	started  map[*unitFile][]command
	scripted []command
	names    []string
	linked   map[string]string
}

// text is the content of something in the file, and where its lines are.
type text struct {
	content string
	known   bool // false: it comes from a server
	at      provision.Position
	name    string
	inside  string // that of the layer
	first   int    // line of the file in which the first line of the content is; 0: its lines are not lines of the file
	mode    int    // permissions, -1 if they are not said
	// replaces says that the file has a content of its own, and does not only add to one that is there; overwrites that it may do so
	// where there is one.
	replaces, overwrites bool
}

// line gives the place of a line of the content, counted from 1, and what to write before the message. Line 0 is the whole.
func (t text) line(n int) (provision.Position, string) {
	switch {
	case n <= 0:
		return t.at, t.name
	case t.first > 0:
		return provision.Position{File: t.at.File, Line: t.first + n - 1}, t.name
	}
	return t.at, t.name + ":" + strconv.Itoa(n)
}

// read gives the machine, or nil when the file is so wrong that there is none.
func (c *checker) read(name string, kind Kind, content []byte, root *yaml.Node) *machine {
	m := &machine{files: map[string]text{}, named: map[*yaml.Node]map[string]*yaml.Node{}}
	top := layer{kind: kind, root: root, place: func(line int) provision.Position { return provision.Position{File: name, Line: line} }}
	if !c.layer(m, top, content, 0) {
		return nil
	}
	for i, l := range m.layers {
		if i == 0 {
			m.config = l.config
			continue
		}
		m.config = latest.Merge(m.config, l.config)
	}
	c.collect(m)
	return m
}

// layer reads one config and then those that it merges, as Ignition does: each beats what comes before it, and one that replaces
// stands alone.
func (c *checker) layer(m *machine, l layer, content []byte, depth int) bool {
	if depth > maxMerges {
		c.add(l.place(0), l.inside, fmt.Sprintf("cannot follow configs that are merged more than %d levels deep", maxMerges), "merge them into one")
		return false
	}
	if l.kind == Butane {
		translated, ok := c.translate(m, l, content)
		if !ok {
			return false
		}
		content = translated
	}
	parsed, rep, err := ign.Parse(content)
	if l.kind != Butane { // what Ignition says of a translated file, Butane has said already, with the line
		c.report(l, rep, content)
	}
	if err != nil && len(rep.Entries) == 0 {
		c.refused(l, err)
		return false
	}
	if err != nil && l.kind != Butane {
		m.more = true
		parsed, err = without(l.root, rep, func(rest *yaml.Node) (config types.Config, rep report.Report, err error) {
			content, err := json.Marshal(plain(rest))
			if err != nil {
				return config, rep, err
			}
			return ign.Parse(content)
		})
	}
	if err != nil {
		return false
	}
	l.config = parsed
	from, key := parsed.Ignition.Config, []string{"ignition", "config"}
	if from.Replace.Source != nil {
		before := len(m.layers)
		c.child(m, l, from.Replace, get(l.root, append(key, "replace")...), "the config that replaces this one", depth)
		return len(m.layers) > before
	}
	m.layers = append(m.layers, l)
	for i, r := range from.Merge {
		var at *yaml.Node
		if list := items(get(l.root, append(key, "merge")...)); i < len(list) {
			at = resolve(list[i])
		}
		c.child(m, l, r, at, fmt.Sprintf("merged config %d", i+1), depth)
	}
	return true
}

// child reads a config that another one names. One that cannot be read was said: what is in it is not known, and the others are looked at.
func (c *checker) child(m *machine, parent layer, r types.Resource, at *yaml.Node, what string, depth int) {
	line := 0
	if at != nil {
		line = at.Line
	}
	content, known, err := c.fetch(r)
	switch {
	case err != nil:
		c.add(parent.place(line), parent.inside, "cannot read "+what+": "+err.Error(), correctSource)
		m.more = true
		return
	case !known:
		m.more = true
		c.note(parent.place(line), parent.inside, what+" was not looked at: it comes from "+origin(r), "check it by itself")
		return
	}
	root, err := readJSON([]byte(content))
	if err != nil {
		bad, problem, remedy := explain(err, []byte(content))
		c.add(parent.place(line), parent.inside, fmt.Sprintf("cannot read %s as JSON, line %d: %s", what, bad, problem), remedy)
		m.more = true
		return
	}
	l := layer{kind: Ignition, root: root, inside: what, place: func(int) provision.Position { return parent.place(line) }}
	if inline := get(at, "inline"); parent.kind == Butane && inline != nil && inline.Style&yaml.LiteralStyle != 0 {
		l.inside = ""
		l.place = func(n int) provision.Position { return parent.place(inline.Line + n) }
	}
	if !c.layer(m, l, []byte(content), depth+1) {
		m.more = true
	}
}

// translate gives the Ignition config of a Butane file.
func (c *checker) translate(m *machine, l layer, content []byte) (ignition []byte, ok bool) {
	at := func(key string) provision.Position {
		if n := get(l.root, key); n != nil {
			return l.place(n.Line)
		}
		return l.place(l.root.Line)
	}
	scalar := func(key string) string {
		if n := get(l.root, key); n != nil && n.Kind == yaml.ScalarNode {
			return n.Value
		}
		return ""
	}
	if variant := scalar("variant"); variant != "flatcar" {
		c.add(at("variant"), l.inside, "cannot read the variant "+quote(variant)+": it makes a machine with another operating system", "write \"variant: flatcar\" and \"version: 1.0.0\"")
		return nil, false
	}
	version := scalar("version")
	options := common.TranslateBytesOptions{}
	options.FilesDir = c.options.FilesDir
	// No text of a few lines becomes data that nobody can read.
	options.NoResourceAutoCompression = true
	translate, ok := translators()[version]
	if !ok {
		c.add(at("version"), l.inside, "cannot read version "+quote(version)+" of the variant flatcar", `write "version: 1.0.0", which every release of Flatcar reads; these are known: `+strings.Join(Versions(), ", "))
		return nil, false
	}
	ignition, rep, err := translate(content, options)
	c.report(l, rep, nil)
	if err == nil {
		return ignition, true
	}
	if len(rep.Entries) == 0 {
		c.refused(l, err)
		return nil, false
	}
	m.more = true
	ignition, err = without(l.root, rep, func(rest *yaml.Node) ([]byte, report.Report, error) {
		content, err := yaml.Marshal(rest)
		if err != nil {
			return nil, report.Report{}, err
		}
		return translate(content, options)
	})
	return ignition, err == nil
}

// without reads a config again and again without the items of its lists that are refused, so that one of them does not hide what is to be
// said of all others. The error is the last one, when what is refused is no item of a list.
func without[T any](root *yaml.Node, rep report.Report, read func(rest *yaml.Node) (T, report.Report, error)) (config T, err error) {
	err = errors.New("nothing to leave out")
	for range maxRefused {
		var refused []*yaml.Node
		for _, e := range rep.Entries {
			if item := itemAt(root, e.Context.Path); e.Kind == report.Error && item != nil {
				refused = append(refused, item)
			}
		}
		if len(refused) == 0 {
			return config, err
		}
		root = pruned(root, refused)
		if config, rep, err = read(root); err == nil {
			return config, nil
		}
	}
	return config, err
}

// maxRefused is how often a config is read again without what was refused.
const maxRefused = 20

type translator func([]byte, common.TranslateBytesOptions) ([]byte, report.Report, error)

// translators are Butane's for Flatcar. Its package config knows those for other operating systems too, and makes the program a
// tenth larger.
func translators() map[string]translator {
	return map[string]translator{
		"1.0.0":              flatcar10.ToIgn3_3Bytes,
		"1.1.0":              flatcar11.ToIgn3_4Bytes,
		"1.2.0-experimental": flatcar12.ToIgn3_7Bytes,
	}
}

// Versions are the versions of Butane's variant flatcar that can be read and written.
func Versions() []string { return slices.Sorted(maps.Keys(translators())) }

var yamlLine = lazyregexp.New(`line ([0-9]+): ([^\n]*)`)

// refused adds an error that comes without a report.
func (c *checker) refused(l layer, err error) {
	at := func(keys ...string) provision.Position {
		if n := get(l.root, keys...); n != nil {
			return l.place(n.Line)
		}
		return l.place(1)
	}
	if lines := yamlLine().FindAllStringSubmatch(err.Error(), -1); lines != nil {
		for _, found := range lines {
			n, _ := strconv.Atoi(found[1])
			c.add(l.place(n), l.inside, fmt.Sprintf("%s refuses this: %s", l.kind, found[2]), "write a value of the type that this key takes")
		}
		return
	}
	if l.kind == Butane {
		c.add(at("variant"), l.inside, "Butane refuses this: "+err.Error(), remedyFor(err.Error(), Butane))
		return
	}
	version, remedy := "none", `write "version": "3.3.0", which every release of Flatcar reads`
	if n := get(l.root, "ignition", "version"); n != nil {
		version = n.Value
	}
	if strings.HasPrefix(version, "2.") {
		c.note(at("ignition", "version"), l.inside, fmt.Sprintf("an Ignition config of version %s was not looked at: Flatcar translates it at boot, this program cannot", version),
			"translate it to version 3.3.0 (ign-converter), and check that")
		return
	}
	c.add(at("ignition", "version"), l.inside, fmt.Sprintf("cannot read an Ignition config of version %s: %s", cmp.Or(version, `""`), err), remedy)
}

// report adds what Butane or Ignition say, their warnings too: what they warn of is not done.
func (c *checker) report(l layer, rep report.Report, content []byte) {
	decimal := map[string]bool{} // modes of which it was said that they should be in octal
	for _, e := range rep.Entries {
		if strings.Contains(e.Message, "specified in octal") {
			decimal[e.Context.String()] = true
		}
	}
	for _, e := range rep.Entries {
		if strings.HasPrefix(e.Message, "skipping validation") {
			continue // of a merged config of another version, which is read here like every config
		}
		special := strings.Contains(e.Message, "setuid/setgid/sticky")
		if special && decimal[e.Context.String()] {
			continue // the bits come from the wrong digits
		}
		if strings.HasPrefix(e.Message, "context tree does not match content tree") {
			e.Kind, e.Message = report.Info, "it has no value, or is an alias: keys below it that nobody knows are not found"
		}
		line := 0
		if e.Marker.StartP != nil {
			line = int(e.Marker.StartP.Line)
			if line == 0 && content != nil {
				line = lineAt(content, e.Marker.StartP.Index)
			}
		}
		if e.Kind == report.Info {
			c.note(l.place(line), l.inside, fmt.Sprintf("%s says: %s", l.kind, e.Message), "")
			continue
		}
		verb := map[report.EntryKind]string{report.Error: "refuses this", report.Warn: "warns"}[e.Kind]
		remedy := remedyFor(e.Message, l.kind)
		if special || strings.Contains(e.Message, "specified in octal") {
			if value := nodeAt(l.root, e.Context.Path); value != nil {
				remedy = cmp.Or(modeRemedy(value.Value, l.kind), remedy)
			}
		}
		c.add(l.place(line), l.inside, fmt.Sprintf("%s %s: %s", l.kind, verb, e.Message), remedy)
	}
}

// remedies are those for the commonest messages of the two libraries: the first whose words are in a message counts.
func remedies() []struct{ words, remedy string } {
	const filesDir = "give the directory that it is in with --files-dir"
	return []struct{ words, remedy string }{
		{"unused key", "correct its spelling and its indentation"},
		{"specified in octal", "write it in octal, such as 0644"},
		{"setuid/setgid/sticky", "leave the first digit out, and set the mode with a line of tmpfiles.d(5), such as: d /var/spool 1777"},
		{"install section", "write [Install] with WantedBy=, or leave \"enabled\" out"},
		{"unit extension", "end its name in .service, .mount, .target or the like"},
		{"malformed hash", "write sha256- or sha512- and the whole sum in hexadecimal: see sha512sum(1)"},
		{"hash", "write sha256- or sha512- and the whole sum in hexadecimal: see sha512sum(1)"},
		{"files-dir", filesDir},
		{"local file", filesDir},
		{"no such file", "create it, or give the directory with --files-dir"},
		{"cannot be used", "remove one of the two"},
		{"path not absolute", "begin it with /"},
		{"duplicate", "remove one of the two"},
	}
}

// remedyFor gives the remedy for a message of the two libraries, for one that nobody knows the place where the rule stands.
func remedyFor(message string, kind Kind) string {
	message = strings.ToLower(message)
	for _, r := range remedies() {
		if strings.Contains(message, r.words) {
			return r.remedy
		}
	}
	const spec = "see https://coreos.github.io/ignition/configuration-v3_3/"
	if kind == Butane {
		return spec + ", and write its keys as Butane does: should_exist for shouldExist"
	}
	return spec
}

// modeRemedy gives the remedy for a mode that has more bits than nine, if its digits are meant in octal and were read in decimal.
func modeRemedy(digits string, kind Kind) string {
	meant, err := strconv.ParseUint(digits, 8, 32)
	switch {
	case err != nil || strings.HasPrefix(digits, "0"):
		return ""
	case kind == Butane:
		return "write it in octal: 0" + digits
	case meant <= 0o777:
		return fmt.Sprintf("JSON has no octal: write %d, which is 0%s", meant, digits)
	}
	return ""
}

const correctSource = "correct its source, compression and hash"

// fetch gives the content of a resource, if it is in the config itself.
func (c *checker) fetch(r types.Resource) (content string, known bool, err error) {
	if r.Source == nil {
		return "", true, nil
	}
	if !strings.HasPrefix(*r.Source, "data:") {
		return "", false, nil
	}
	data, err := dataurl.DecodeString(*r.Source)
	if err != nil {
		return "", true, errors.New("it is no data URL: " + err.Error())
	}
	unpacked := data.Data
	if r.Compression != nil && *r.Compression == "gzip" {
		if unpacked, err = gunzip(unpacked, min(maxContent, maxContents-c.unpacked)); err != nil {
			return "", true, err
		}
	}
	c.unpacked += len(unpacked)
	if declared := r.Verification.Hash; declared != nil && !hasHash(unpacked, *declared) {
		return "", true, errors.New("it does not have the hash that is declared for it, so Ignition stops the boot")
	}
	return string(unpacked), true, nil
}

func gunzip(packed []byte, most int) ([]byte, error) {
	in, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, errors.New("it is not compressed with gzip")
	}
	unpacked, err := io.ReadAll(io.LimitReader(in, int64(most)+1))
	switch {
	case err != nil:
		return nil, errors.New("it is damaged: " + err.Error())
	case len(unpacked) > most:
		return nil, fmt.Errorf("it is larger than %d MiB, or all that is in this file is larger than %d MiB", maxContent>>20, maxContents>>20)
	}
	return unpacked, nil
}

// hasHash compares a content, unpacked, with a hash that Ignition would compare it with. A hash of a kind that Ignition does not know is
// refused elsewhere.
func hasHash(content []byte, declared string) bool {
	kind, sum, _ := strings.Cut(declared, "-")
	switch kind {
	case "sha512":
		return strings.EqualFold(sum, fmt.Sprintf("%x", sha512.Sum512(content)))
	case "sha256":
		return strings.EqualFold(sum, fmt.Sprintf("%x", sha256.Sum256(content)))
	}
	return true
}

// origin names a server, without what may be secret in the address.
func origin(r types.Resource) string {
	address := *r.Source
	address, _, _ = strings.Cut(address, "?")
	if scheme, rest, ok := strings.Cut(address, "://"); ok {
		if user, host, ok := strings.Cut(rest, "@"); ok && !strings.Contains(user, "/") {
			address = scheme + "://" + host
		}
	}
	return address
}

// collect makes the files of the machine out of the merged config.
func (c *checker) collect(m *machine) {
	for _, f := range m.config.Storage.Files {
		node, l := m.find("files", f.Path)
		t := text{name: f.Path, at: l.place(lineOf(node)), mode: -1, inside: l.inside}
		if f.Mode != nil {
			t.mode = *f.Mode & 0o7777
		}
		var err error
		if t.content, t.known, err = c.fetch(f.Contents); err != nil {
			c.add(t.at, f.Path, "cannot read the content: "+err.Error(), correctSource)
			continue
		}
		for _, r := range f.Append {
			more, known, err := c.fetch(r)
			if err != nil {
				c.add(t.at, f.Path, "cannot read what is appended: "+err.Error(), correctSource)
			}
			t.known = t.known && known && err == nil
			t.content += more
		}
		t.replaces = f.Contents.Source != nil
		t.overwrites = f.Overwrite != nil && *f.Overwrite
		if len(f.Append) == 0 && l.kind == Butane {
			t.first = firstLine(l, get(node, "contents", "inline"))
		}
		m.files[path.Clean(f.Path)] = t
	}
}

// find gives the node of the thing of this name in a list of "storage", and the layer that has it: the last one that does. A thing
// that stands in no list, since Butane makes it out of something else, gets what it is made of.
func (m *machine) find(list, name string) (*yaml.Node, layer) {
	key := map[string]string{"filesystems": "device"}[list]
	if key == "" {
		key = "path"
	}
	for _, l := range slices.Backward(m.layers) {
		if n := m.item(get(l.root, "storage", list), key, name); n != nil {
			return n, l
		}
		for _, tree := range items(get(l.root, "storage", "trees")) {
			root := "/"
			if p := get(tree, "path"); p != nil {
				root = p.Value
			}
			if l.kind == Butane && (root == "/" || name == root || strings.HasPrefix(name, strings.TrimSuffix(root, "/")+"/")) {
				return resolve(tree), l
			}
		}
	}
	return nil, m.layers[0]
}

// item is where, for a list in which many items are looked for.
func (m *machine) item(list *yaml.Node, key, value string) *yaml.Node {
	if list == nil {
		return nil
	}
	byName, known := m.named[list]
	if !known {
		byName = map[string]*yaml.Node{}
		for _, item := range items(list) {
			if v := get(item, key); v != nil {
				byName[v.Value] = resolve(item)
			}
		}
		m.named[list] = byName
	}
	return byName[value]
}

// firstLine gives the line of the file in which the first line of a block of text is, 0 if its lines are not lines of the file.
func firstLine(l layer, block *yaml.Node) int {
	if block == nil || block.Style&yaml.LiteralStyle == 0 || l.inside != "" {
		return 0
	}
	return l.place(block.Line + 1).Line
}

func lineOf(n *yaml.Node) int {
	if n == nil {
		return 0
	}
	return n.Line
}
