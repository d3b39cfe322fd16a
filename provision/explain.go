package provision

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/selinux-provision/selinux-provision/internal/lazyregexp"
	"github.com/selinux-provision/selinux-provision/internal/spelling"
)

// Key is one key of the configuration, as the annotated configuration describes it.
type Key struct {
	// Name is the key with those that it stands below: volumes.match.label. Of a list each item has it.
	Name string `json:"key"`
	// Means says what it does, and in which unit.
	Means string `json:"means"`
	// Default is what counts without it, as far as that is one value; "" where nothing does.
	Default string `json:"default,omitempty"`
	// Example is the key as it stands below the others.
	Example string `json:"example"`
	// Below are the keys that stand below this one.
	Below []string `json:"below,omitempty"`
}

var (
	saidDefault = lazyregexp.New(`Default: ([^.;]+)`)
	itsDefault  = lazyregexp.New(`([^\s,]+) \(the default\)`)
	listIndex   = lazyregexp.New(`\[[0-9]*\]`)
)

// Keys gives every key of the configuration, in the order of the annotated one.
func Keys() (all []Key) {
	lines := strings.Split(annotated, "\n")
	at := map[string]int{}
	eachKey(func(place, name string, key *yaml.Node) {
		full := join(place, name)
		if _, known := at[full]; known || place == "policy.booleans" { // whose names are the policy's
			return
		}
		k := Key{Name: full, Means: comment(lines, key.Line), Example: example(lines, key)}
		if said := saidDefault().FindStringSubmatch(k.Means); said != nil {
			k.Default = said[1]
		} else if its := itsDefault().FindStringSubmatch(k.Means); its != nil {
			k.Default = its[1]
		}
		at[full] = len(all)
		all = append(all, k)
		if above, known := at[place]; known {
			all[above].Below = append(all[above].Below, full)
		}
	})
	return all
}

// comment gives the comment that ends in front of a line, which is counted from 1, as one paragraph.
func comment(lines []string, line int) string {
	var words []string
	for i := line - 2; i >= 0; i-- {
		text, is := strings.CutPrefix(strings.TrimSpace(lines[i]), "#")
		if !is {
			break
		}
		words = append(words, strings.TrimSpace(text))
	}
	slices.Reverse(words)
	return strings.Join(words, " ")
}

// example gives the lines of a key and of what is below it, without comments.
func example(lines []string, key *yaml.Node) string {
	indent := key.Column - 1
	text := []string{lines[key.Line-1][indent:]}
	for _, line := range lines[key.Line:] {
		bare := strings.TrimLeft(line, " ")
		if strings.HasPrefix(bare, "#") {
			continue
		}
		if bare == "" || len(line)-len(bare) <= indent {
			break
		}
		text = append(text, line[indent:])
	}
	return strings.Join(text, "\n")
}

// Explain gives the keys that a person may mean by a name: that very one, or else all whose last part it is. If there is none, near is the
// one that is spelt like it, "" if there is none either.
func Explain(name string) (found []Key, near string) {
	name = listIndex().ReplaceAllString(strings.Trim(name, ". :"), "")
	all := Keys()
	var names []string
	for _, k := range all {
		if k.Name == name || strings.HasPrefix(name, "policy.booleans.") && k.Name == "policy.booleans" {
			return []Key{k}, ""
		}
		if strings.HasSuffix(k.Name, "."+name) {
			found = append(found, k)
		}
		names = append(names, k.Name)
	}
	if len(found) > 0 {
		return found, ""
	}
	if near = spelling.Nearest(name, names); near != "" {
		return nil, near
	}
	for _, k := range all { // a last part that is misspelt, alone or below something
		last := k.Name[strings.LastIndexByte(k.Name, '.')+1:]
		if spelling.Nearest(name[strings.LastIndexByte(name, '.')+1:], []string{last}) != "" {
			return nil, k.Name
		}
	}
	return nil, ""
}
