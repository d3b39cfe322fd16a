package provision

import (
	"strings"
	"testing"
)

// Every key has a meaning of its own and an example; what it is by default is found in the text that the manual page has.
func TestKeys(t *testing.T) {
	all := Keys()
	defaults := map[string]string{}
	for _, k := range all {
		if !strings.HasSuffix(k.Means, ".") || k.Example == "" || strings.Contains(k.Example, "#") || !strings.HasPrefix(k.Example, k.Name[strings.LastIndexByte(k.Name, '.')+1:]+":") {
			t.Errorf("%+v", k)
		}
		defaults[k.Name] = k.Default
	}
	if len(all) < 40 {
		t.Errorf("only %d keys", len(all))
	}
	for name, want := range map[string]string{
		"mode": "unmanaged", "audit.log_denials": "false", "audit.dontaudit": "keep", "policy.file_contexts.type": "any", "enforce.guard": "off", "enforce.guard.window": "5m",
		"readiness.window": "24h", "volumes.strategy": "auto", "relabel.workers": "no limit", "version": "", "volumes.match.label": "",
	} {
		if got, known := defaults[name]; !known || got != want {
			t.Errorf("%s is %q by default, want %q", name, got, want)
		}
	}
}

func TestExplain(t *testing.T) {
	for name, want := range map[string]string{
		"audit.dontaudit": "audit.dontaudit", "dontaudit": "audit.dontaudit", "volumes[0].match.label": "volumes.match.label", "volumes[].match": "volumes.match", "mode:": "mode",
		"window": "enforce.guard.window, readiness.window", "policy.booleans.container_use_nfs": "policy.booleans",
		"audit.dontaudits": "near audit.dontaudit", "dontaudti": "near audit.dontaudit", "mod": "near mode", "audit.log_denial": "near audit.log_denials", "nothing_like_it": "near ", "": "near ",
	} {
		found, near := Explain(name)
		var got []string
		for _, k := range found {
			got = append(got, k.Name)
		}
		text := strings.Join(got, ", ")
		if text == "" {
			text = "near " + near
		}
		if text != want {
			t.Errorf("%q: got %s, want %s", name, text, want)
		}
	}
}
