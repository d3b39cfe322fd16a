package stages

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/findings"
	"github.com/selinux-provision/selinux-provision/avc/judge"
	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
)

// TestJudged: findings count without the policy if this program cannot read it, and not if another try may.
func TestJudged(t *testing.T) {
	t.Parallel()
	_, unreadable := policydb.Parse(strings.NewReader("a policy of the future"))
	for _, c := range []struct {
		err   error
		count int
	}{{nil, 1}, {unreadable, 1}, {syscall.EBUSY, 0}} {
		found, stats, err := judged(&findings.Report{Findings: []*judge.Finding{{}}, Stats: avc.Stats{Records: 3}, PolicyError: c.err})
		if len(found) != c.count || stats.Records != 3 || (err == nil) != (c.count > 0) || err != nil && !errors.Is(err, c.err) {
			t.Errorf("%v: %d findings, %+v, %v", c.err, len(found), stats, err)
		}
	}
}

// TestPolicyBuilt gives the time of the policy that the stage has built, and of nothing else.
func TestPolicyBuilt(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_700_000_000, 500)
	for file, want := range map[string]time.Time{"policy.33": at.Truncate(time.Second), "policy.34": {}, "": {}} {
		tree := flatcartest.Empty(t)
		const policy = "etc/selinux/mcs/policy/policy.33"
		tree.Write(policy, "x")
		if err := os.Chtimes(filepath.Join(tree.Dir, policy), at, at); err != nil {
			t.Fatal(err)
		}
		h := host(t, tree)
		s := LoadState(h.Root)
		s.Store.Type, s.Store.Policy.File = "mcs", file
		tree.Write("var/lib/selinux-provision/x", "")
		if err := s.save(h.Root); err != nil {
			t.Fatal(err)
		}
		if got := h.policyBuilt(); !got.Equal(want) {
			t.Errorf("%q: %v, want %v", file, got, want)
		}
	}
}
