package policystore

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/cil"
	"github.com/selinux-provision/selinux-provision/internal/lazyregexp"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

// The kinds of parts.
const (
	policyModule = "module"
	fileContext  = "file context"
	localFile    = "local file"

	permissiveDomain = "permissive domain"
)

// origin tells whose a part is and where it is.
type origin int

const (
	declared origin = iota // ours to install
	inStore                // the operator's, in the store
	onShelf                // the operator's, in quarantine: a candidate to come back
)

// part is what a policy has beyond the vendor's modules and can be built without.
type part struct {
	kind     string
	origin   origin
	priority int    // of a module
	name     string // of a file context its path, of a local file its name
	lang     string // of a module: cil or pp
	context  string // of a file context
	text     []byte // of a declared module the file, of a file context one statement of CIL
	from     string // where it was declared, for messages

	declared []string        // the names that it gives to others, if it is CIL
	used     map[string]bool // and all that it uses
}

// key is the module's place in a store.
func (p part) key() string { return fmt.Sprintf("%d/%s", p.priority, p.name) }

// module names the module that carries a declared part.
func (p part) module() string {
	if carrier := carriers()[p.kind]; carrier != "" {
		return carrier
	}
	return p.name
}

// carriers are the modules that carry parts of one kind, each in a line of its own.
func carriers() map[string]string {
	return map[string]string{fileContext: contextsModule, permissiveDomain: domainsModule}
}

// sharedVolumes makes new files take the level of their directory, so that a container finds readable what another one wrote
// into a volume at s0 that both share. By default a new file takes the level of the process that makes it.
const sharedVolumes = `(defaultrange dir target low)
(defaultrange file target low)
(defaultrange lnk_file target low)
(defaultrange sock_file target low)
(defaultrange fifo_file target low)
`

// beside gives the modules that stand beside the vendor's, and those that are refused: a module hides every other one of its name that has
// a lower priority, with all its types, rules and file contexts, so that has to be asked for.
func beside(vendors map[string]string, modules []Module) (use []Module, refused []Quarantined) {
	names := map[string]bool{}
	for key := range vendors {
		if _, name, ok := splitKey(key); ok {
			names[name] = true
		}
	}
	for _, m := range modules {
		if names[m.Name] && !m.ReplacesVendor {
			refused = append(refused, Quarantined{Kind: policyModule, Name: m.Name, Priority: Priority, From: m.From,
				Reason: "the vendor's policy has a module of this name, and all that is in that one would be gone: give yours another name, " +
					"or write " + m.Name + " under policy.replace_vendor_modules"})
			continue
		}
		use = append(use, m)
	}
	return use, refused
}

// declaredParts gives the parts of a declaration, in its order.
func declaredParts(want Declared) []part {
	var parts []part
	module := func(name, lang string, text []byte, from string) {
		p := part{kind: policyModule, priority: Priority, name: name, lang: lang, text: text, from: from}
		if lang == "cil" {
			p.declared, p.used = cilNames(string(text))
		}
		parts = append(parts, p)
	}
	for _, m := range want.Modules {
		module(m.Name, m.Lang, m.Content, m.From)
	}
	if want.SharedVolumes {
		module(sharedModule, "cil", []byte(sharedVolumes), "policy.shared_volumes")
	}
	for _, d := range want.Permissive {
		p := part{kind: permissiveDomain, priority: Priority, name: d.Type, lang: "cil", text: []byte(typepermissive(d)), from: d.From}
		_, p.used = cilNames(string(p.text))
		parts = append(parts, p)
	}
	for _, c := range want.FileContexts {
		p := part{kind: fileContext, priority: Priority, name: c.Path, lang: "cil", context: c.Context, text: []byte(filecon(c)), from: c.From}
		_, p.used = cilNames(string(p.text))
		parts = append(parts, p)
	}
	return parts
}

// operatorsParts gives the parts that the operator made by hand: what is in the store and what is in quarantine, unless the store has a newer one.
func operatorsParts(have map[string]string, rec *Record, locals []string, shelf []string) []part {
	var parts []part
	add := func(key string, o origin) {
		if priority, name, ok := splitKey(key); ok {
			parts = append(parts, part{kind: policyModule, origin: o, priority: priority, name: name, from: installedByHand})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(have)) {
		if priority, _, _ := splitKey(key); priority != Priority && rec.VendorModules[key] != have[key] {
			add(key, inStore)
		}
	}
	for _, key := range shelf {
		if name, ok := strings.CutPrefix(key, local+"/"); ok {
			if name != booleansFile && !slices.Contains(locals, name) {
				parts = append(parts, part{kind: localFile, origin: onShelf, name: name, from: writtenByHand})
			}
			continue
		}
		if digest, there := have[key]; !there || rec.VendorModules[key] == digest {
			add(key, onShelf)
		}
	}
	for _, name := range locals {
		parts = append(parts, part{kind: localFile, origin: inStore, name: name, from: writtenByHand})
	}
	return parts
}

var cilGiving = lazyregexp.New(`^(block|type|typealias|typeattribute|role|roleattribute|user|boolean|tunable|macro|classmap|classpermission)$`)

// cilNames gives the names that a module in CIL declares for everybody, those in its blocks left out, and all words that it uses. It is
// an estimate: with a wrong one it takes a build more to find a culprit.
func cilNames(text string) (declared []string, used map[string]bool) {
	used = map[string]bool{}
	depth, previous, giving := 0, "", false
	for t := range cil.Tokens(text) {
		token := t.Text
		switch {
		case t.Quoted():
			continue
		case token == "(":
			depth++
		case token == ")":
			depth--
		default:
			if giving && depth == 1 {
				declared = append(declared, token)
			}
			for word := range strings.SplitSeq(token, ".") {
				used[word] = true
			}
		}
		giving = previous == "(" && cilGiving().MatchString(token)
		previous = token
	}
	return declared, used
}

// filecon gives the CIL statement of a file context. The parts were validated with the configuration.
func filecon(c FileContext) string {
	return fmt.Sprintf("(filecon \"%s\" %s %s)\n", c.Path, c.Type, secontext.Context(c.Context).CIL())
}
