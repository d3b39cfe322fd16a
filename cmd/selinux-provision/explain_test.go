package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/messages"
	"github.com/selinux-provision/selinux-provision/provision"
)

// A name is explained with the texts that the documents have; a wrong one gets the nearest.
func TestExplain(t *testing.T) {
	for args, c := range map[string]struct {
		code int
		want []string
	}{
		"dontaudit":                          {exitDone, []string{"audit.dontaudit: strip: log also what the policy hides. Default: keep.\n  default: keep\n  for example, below audit:\n    dontaudit: strip\n"}},
		"policy":                             {exitDone, []string{"at the top of the file:\n    policy:\n", "below it: policy.modules, policy.replace_vendor_modules"}},
		"dontaudits":                         {exitUsage, []string{`cannot explain "dontaudits": there is no such key: did you mean audit.dontaudit?`}},
		"colour":                             {exitUsage, []string{"selinux-provision explain lists the keys"}},
		"4":                                  {exitDone, []string{"exit code 4: not applicable here, SELinux is off or there is no vendor policy\n"}},
		"7":                                  {exitUsage, []string{"no exit code"}},
		"MESSAGE_ID=" + messages.Failed.ID(): {exitDone, []string{"MESSAGE_ID " + messages.Failed.ID() + ": ", "\n  do: "}},
		"mode audit":                         {exitUsage, []string{"takes one argument at most"}},
	} {
		got := call(t, append([]string{"explain"}, strings.Fields(args)...)...)
		if got.code != c.code {
			t.Errorf("%s: %+v", args, got)
		}
		reads(t, args, got.stdout+got.stderr, c.want...)
	}
	manual := strings.Join(strings.Fields(strings.ReplaceAll(manualOfConfig(), "# ", "")), " ")
	all := call(t, "explain")
	for _, k := range provision.Keys() {
		if !strings.Contains(all.stdout, k.Name+" ") || !strings.Contains(manual, strings.Join(strings.Fields(escape(k.Means)), " ")) {
			t.Errorf("%s: it is not listed, or the manual page says something else", k.Name)
		}
		one := call(t, "explain", k.Name)
		if one.code != exitDone || !strings.Contains("\n"+one.stdout, "\n"+k.Name+": "+k.Means+"\n") || !strings.Contains(one.stdout, "  for example, ") {
			t.Errorf("%s: %+v", k.Name, one)
		}
		if got := call(t, "explain", k.Name+"x"); got.code != exitUsage || !strings.Contains(got.stderr, "did you mean "+k.Name+"?") {
			t.Errorf("%s, misspelt: %+v", k.Name, got)
		}
	}
	var r struct {
		Command string
		Exit    *int
		Keys    []provision.Key
	}
	if got := call(t, "--json", "explain", "window"); json.Unmarshal([]byte(got.stdout), &r) != nil || r.Command != "explain" || r.Exit == nil || len(r.Keys) != 2 {
		t.Errorf("%+v: %s", r, got.stdout)
	}
	if got := call(t, "__complete", "explain", "audit."); !strings.Contains(got.stdout, "audit.dontaudit\n") {
		t.Errorf("completion: %s", got.stdout)
	}
	for code := exitDone; code <= exitUndoFailed; code++ {
		if e, err := explanation(string(rune('0' + code))); err != nil || e.Code == nil || e.Code.Means == "" {
			t.Errorf("exit code %d: %+v, %v", code, e, err)
		}
	}
}
