package judge_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/judge"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/policytest"
)

// notAsAnswered are the threads whose answer was another one than the judge's. The file system's label is what the reader of a record can change; the
// change that was made there let files without a label be on every tmpfs.
func notAsAnswered() []string {
	return []string{"https://github.com/flatcar-archive/coreos-overlay/pull/1426"}
}

// publicPolicy is testdata/public.cil as a policy, with all categories.
func publicPolicy(t *testing.T) *policydb.Policy {
	t.Helper()
	rest, err := os.ReadFile("testdata/public.cil")
	if err != nil {
		t.Fatal(err)
	}
	var levels strings.Builder
	levels.WriteString("(sensitivity s0) (sensitivityorder (s0))\n")
	order := "(categoryorder ("
	for n := range 1024 {
		fmt.Fprintf(&levels, "(category c%d)\n", n)
		order += fmt.Sprintf(" c%d", n)
	}
	levels.WriteString(order + "))\n(sensitivitycategory s0 (range c0 c1023)) (level low (s0)) (level high (s0 (range c0 c1023))) (levelrange lowlow (low low)) (levelrange lowhigh (low high))\n")
	in, err := os.Open(policytest.BuildBase(t, levels.String()+string(rest)))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	p, err := policydb.Parse(in)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A log of which nothing is known but the policy gets the answer that people got who asked in public.
//
// Proves V19: public denials and what was right.
func TestPublicDenials(t *testing.T) {
	content, err := os.ReadFile("testdata/public.txt")
	if err != nil {
		t.Fatal(err)
	}
	e := &judge.Evidence{Policy: publicPolicy(t), VolumeContext: volumeContext, ProcessContext: processContext}
	all, compared, right := 0, 0, 0
	for block := range strings.SplitSeq(string(content), "\n\n") {
		head, records, _ := strings.Cut(strings.TrimSpace(block), "\n")
		if strings.HasPrefix(head, "#") {
			continue
		}
		want, rest, _ := strings.Cut(head, " ")
		says, thread, found := strings.Cut(strings.TrimPrefix(rest, `"`), `" `)
		if !found || !strings.HasPrefix(thread, "https://") || records == "" {
			t.Fatalf("no case: %s", block)
		}
		all++
		reader := avc.NewReader(avc.NewDecoder(strings.NewReader(records + "\n")))
		groups := avc.NewGroups(avc.Nobody{})
		for d, err := reader.Next(); err == nil; d, err = reader.Next() {
			groups.Add(d)
		}
		findings := e.Judge(groups.List())
		if len(findings) != 1 {
			t.Errorf("%s: %d findings", thread, len(findings))
			continue
		}
		if want == "-" {
			continue
		}
		compared++
		fix := findings[0].Fix
		answered := string(fix.Kind) == want && strings.Contains(strings.Join([]string{fix.Text, fix.Command, fix.Config, fix.Also}, "\n"), says)
		if answered {
			right++
		}
		if answered == slices.Contains(notAsAnswered(), thread) {
			t.Errorf("%s: answered %v, want %s %q, got %+v", thread, answered, want, says, fix)
		}
	}
	t.Logf("%d public denials, %d to compare, %d answered rightly", all, compared, right)
	if all < 40 || right*38 < compared*36 {
		t.Errorf("of %d public denials %d can be compared, and %d were answered rightly", all, compared, right)
	}
}
