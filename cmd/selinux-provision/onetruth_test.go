package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/judge"
	"github.com/selinux-provision/selinux-provision/stages"
)

// number finds the number that the group of a pattern matches, -1 if it is not there.
func number(t *testing.T, text, pattern string) int {
	t.Helper()
	found := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if found == nil {
		return -1
	}
	n, err := strconv.Atoi(found[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A list of denials has the same counts and the same exit code for a person as for a program, whatever the flags leave out.
func TestDenialsAreTheSameAsTextAndAsJSON(t *testing.T) {
	tree := denialTree(t, numbered(logDenial, "3")+numbered(nfsDenial, "4")+numbered(nfsDenial, "7"))
	for _, flags := range []string{"", "--source container_t", "--source sshd_t", "--container web", "--pod web", "--namespace shop", "--since 2023-11-15", "--unit x"} {
		args := append([]string{"--root", tree.Dir, "denials"}, strings.Fields(flags)...)
		text := call(t, args...)
		object := call(t, append([]string{"--json"}, args...)...)
		var r struct {
			Exit     int
			Others   int
			Notes    []string
			Findings []struct {
				ID                          string
				Count, Enforced, Permissive int
			}
		}
		if err := json.Unmarshal([]byte(object.stdout), &r); err != nil {
			t.Fatal(err)
		}
		count, enforced, permissive := 0, 0, 0
		for _, f := range r.Findings {
			count, enforced, permissive = count+f.Count, enforced+f.Enforced, permissive+f.Permissive
			if !strings.Contains(text.stdout, "\n"+f.ID+"  "+strconv.Itoa(f.Count)+" ") {
				t.Errorf("%q: the text has no finding %s with %d\n%s", flags, f.ID, f.Count, text.stdout)
			}
		}
		want := fmt.Sprintf("%d denials in ", count)
		if count == 0 {
			want = "No denials in "
		} else if number(t, text.stdout, `(\d+) stopped something`) != enforced || number(t, text.stdout, `(\d+) only reported`) != permissive {
			t.Errorf("%q: %d stopped and %d reported in\n%s", flags, enforced, permissive, text.stdout)
		}
		if count == 0 && max(0, number(t, text.stdout, `but (\d+) that these flags leave out`)) != r.Others {
			t.Errorf("%q: %d others in\n%s", flags, r.Others, text.stdout)
		}
		if !strings.HasPrefix(text.stdout, want) || text.code != object.code || r.Exit != text.code {
			t.Errorf("%q: want %q and exit code %d, %d: %+v", flags, want, object.code, r.Exit, text)
		}
		for _, note := range r.Notes {
			if !strings.Contains(text.stdout, "! "+note+"\n") {
				t.Errorf("%q: the text lacks %q", flags, note)
			}
		}
	}
}

// What readiness says is the same as text, as JSON, as metrics and as features of the node, in each verdict and with any number of denials.
func TestReadinessIsTheSameEverywhere(t *testing.T) {
	for _, verdict := range []stages.Verdict{stages.Ready, stages.NotEnough, stages.NotReady} {
		for denied := range 3 {
			for _, enforcing := range []bool{false, true} {
				r := &stages.Readiness{Verdict: verdict, Enforcing: enforcing, Boots: 2 + denied, Lost: uint64(denied), Covered: time.Hour, Window: 2 * time.Hour, Checks: []stages.Check{
					{Name: "evidence", Verdict: stages.Ready, Found: "it is there"}, {Name: "denials", Verdict: verdict, Found: "found this", Remedy: "do that"},
				}}
				for n := range denied {
					r.Denials = append(r.Denials, &judge.Finding{Group: avc.Group{Count: uint64(n + 1)}})
				}
				var text, metrics strings.Builder
				printReadiness(&text, r)
				metricsText(&metrics, r, &stages.Status{}, time.Unix(1, 0))
				features := features(&stages.Status{}, r, time.Unix(1, 0))
				content, err := json.Marshal(r)
				if err != nil {
					t.Fatal(err)
				}
				var object struct {
					Verdict     string
					Enforcing   bool
					Boots, Lost int
					Checks      []struct {
						Name    string `json:"check"`
						Verdict string
					}
					Denials []struct{ Count int }
				}
				if err := json.Unmarshal(content, &object); err != nil {
					t.Fatal(err)
				}
				accesses := 0
				for _, d := range object.Denials {
					accesses += d.Count
				}
				headline := map[string]string{"ready": "Ready to enforce.", "not ready": "NOT ready to enforce.", "not enough evidence": "Not enough evidence to enforce."}[object.Verdict]
				against := 0
				for _, c := range object.Checks {
					speaksFor := 0
					if c.Verdict == "ready" {
						speaksFor = 1
					} else {
						against++
					}
					if !strings.Contains(metrics.String(), fmt.Sprintf("readiness_check{check=%q} %d\n", c.Name, speaksFor)) {
						t.Errorf("the metrics lack the check %+v", c)
					}
				}
				switch {
				case headline == "" || !strings.HasPrefix(text.String(), headline), strings.Contains(text.String(), "enforces already") != object.Enforcing,
					strings.Count(text.String(), "\n  - ") != against:
					t.Errorf("%+v, and as text\n%s", object, text.String())
				case !strings.Contains(metrics.String(), fmt.Sprintf("readiness{verdict=%q} 1\n", object.Verdict)), strings.Count(metrics.String(), "readiness{verdict=") != 3,
					number(t, metrics.String(), `denied_accesses (\d+)`) != accesses, number(t, metrics.String(), `denied_findings (\d+)`) != len(object.Denials),
					number(t, metrics.String(), `evidence_boots (\d+)`) != object.Boots, number(t, metrics.String(), `evidence_lost_records (\d+)`) != object.Lost:
					t.Errorf("%+v, and as metrics\n%s", object, metrics.String())
				case !strings.Contains(features, "readiness="+strings.ReplaceAll(object.Verdict, " ", "-")+"\n"), strings.Contains(features, "may-enforce=true") != (object.Verdict == "ready"):
					t.Errorf("%+v, and as features\n%s", object, features)
				}
			}
		}
	}
}
