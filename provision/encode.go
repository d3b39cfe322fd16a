package provision

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// Encode writes a config file that says what a state has of mode, policy, audit and permissive domains. What a config file would not be allowed to say is left out,
// a line for each in refused; said is the state without it. Modules are listed only if the state says so: else they are those in ModulesDir.
func Encode(s *State) (text []byte, said *State, refused []string) {
	kept := *s
	kept.Modules = nil
	for _, m := range s.Modules {
		if problem := nameProblem(m.Name); problem != "" {
			refused = append(refused, fmt.Sprintf("module %s: %s", quote(m.Name), problem))
			kept.ReplaceVendorModules = without(kept.ReplaceVendorModules, m.Name)
			continue
		}
		kept.Modules = append(kept.Modules, m)
	}
	for {
		lines := encode(&kept)
		if i := slices.IndexFunc(lines, func(l configLine) bool { return unprintable(l.text) && l.drop != nil }); i >= 0 { // YAML may not even name the line
			lines[i].drop()
			refused = append(refused, quote(strings.TrimSpace(lines[i].text))+": it has characters that are no text")
			continue
		}
		_, _, problems := parse("", []byte(textOf(lines)))
		before := len(refused)
		for _, p := range slices.Backward(problems) {
			if p.Line < 1 || p.Line > len(lines) || lines[p.Line-1].drop == nil {
				continue
			}
			lines[p.Line-1].drop()
			lines[p.Line-1].drop = nil // several problems of one line
			refused = append(refused, strings.TrimSpace(lines[p.Line-1].text)+": "+p.Problem)
		}
		if len(refused) == before {
			return []byte(textOf(lines)), &kept, refused
		}
	}
}

// configLine is a line of a config file, with what takes out of the state what the line says; nil where that is nothing by itself.
type configLine struct {
	text string
	drop func()
}

func textOf(lines []configLine) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l.text + "\n")
	}
	return b.String()
}

func encode(s *State) (lines []configLine) {
	section := func(heading string, below []configLine) {
		if len(below) > 0 {
			lines = append(append(lines, configLine{text: heading}), below...)
		}
	}
	lines = append(lines, configLine{text: "version: 1"})
	if s.Mode != Unmanaged {
		lines = append(lines, configLine{text: "mode: " + string(s.Mode)})
	}
	section("policy:", encodePolicy(s))
	var audit []configLine
	if s.LogDenials {
		audit = append(audit, configLine{text: "  log_denials: true"})
	}
	if s.StripDontaudit {
		audit = append(audit, configLine{text: "  dontaudit: strip"})
	}
	section("audit:", audit)
	var domains []configLine
	for i, d := range s.PermissiveDomains {
		if i == 0 {
			domains = append(domains, configLine{text: "  permissive_domains:"})
		}
		domains = append(domains, configLine{"    - " + quoted(d.Type), func() { s.PermissiveDomains = without(s.PermissiveDomains, d) }})
	}
	section("enforce:", domains)
	return lines
}

func encodePolicy(s *State) (lines []configLine) {
	list := func(heading string, n int, line func(i int) configLine) {
		for i := range n {
			if i == 0 {
				lines = append(lines, configLine{text: heading})
			}
			lines = append(lines, line(i))
		}
	}
	if s.ModulesListed {
		list("  modules:", len(s.Modules), func(i int) configLine {
			return configLine{text: "    - path: " + quoted(path.Join(ModulesDir, s.Modules[i].Name+"."+s.Modules[i].Lang))}
		})
	}
	replaced, roles := s.ReplaceVendorModules, s.Roles
	list("  replace_vendor_modules:", len(replaced), func(i int) configLine {
		return configLine{"    - " + quoted(replaced[i]), func() { s.ReplaceVendorModules = without(s.ReplaceVendorModules, replaced[i]) }}
	})
	list("  roles:", len(roles), func(i int) configLine {
		return configLine{"    - " + quoted(roles[i]), func() { s.Roles = without(s.Roles, roles[i]) }}
	})
	names := slices.Sorted(maps.Keys(s.Booleans))
	list("  booleans:", len(names), func(i int) configLine {
		return configLine{fmt.Sprintf("    %s: %t", quoted(names[i]), s.Booleans[names[i]]), func() { delete(s.Booleans, names[i]) }}
	})
	contexts, equivalences := s.FileContexts, s.Equivalences
	list("  file_contexts:", len(contexts), func(i int) configLine {
		c := contexts[i]
		return configLine{fmt.Sprintf("    - {path: %s, type: %s, context: %s}", quoted(c.Path), c.Type, quoted(c.Context)),
			func() { s.FileContexts = without(s.FileContexts, c) }}
	})
	list("  equivalences:", len(equivalences), func(i int) configLine {
		e := equivalences[i]
		return configLine{fmt.Sprintf("    - {path: %s, like: %s}", quoted(e.Path), quoted(e.Like)), func() { s.Equivalences = without(s.Equivalences, e) }}
	})
	return lines
}

// without gives the others, in a list of its own.
func without[T comparable](all []T, one T) []T {
	return slices.DeleteFunc(slices.Clone(all), func(each T) bool { return each == one })
}

// quoted writes a string of YAML in which nothing but the quote itself has a meaning.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
