package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/flatcartest"
	"github.com/selinux-provision/selinux-provision/internal/policytest"
)

// On a sibling of Flatcar the same log and the same policy give the same denials, and the questions to the policy the same answers; also where the image
// has no module store, and the stages have nothing to do.
func TestDenialsOnASibling(t *testing.T) {
	for _, store := range []bool{true, false} {
		denialsOnASibling(t, store)
	}
}

func denialsOnASibling(t *testing.T, store bool) {
	t.Helper()
	trees := map[flatcartest.Layout]*flatcartest.Tree{}
	for _, layout := range []flatcartest.Layout{flatcartest.Today, flatcartest.Sibling} {
		tree := flatcartest.New(t, layout)
		policytest.AddTo(t, tree, nil)
		tree.Write("var/log/audit/audit.log", numbered(logDenial, "1")+numbered(nfsDenial, "2"))
		trees[layout] = tree
		for _, name := range []string{"usr/lib/selinux", "var/lib/selinux"} {
			if layout == flatcartest.Sibling && !store {
				if err := os.RemoveAll(filepath.Join(tree.Dir, name)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, command := range []string{"denials", "--json denials", "denials --may container_t --on etc_t", "denials --module site"} {
		ask := func(layout flatcartest.Layout) answer {
			got := call(t, append([]string{"--root", trees[layout].Dir}, strings.Fields(command)...)...)
			got.stdout, got.stderr = strings.ReplaceAll(got.stdout, trees[layout].Dir, ""), strings.ReplaceAll(got.stderr, trees[layout].Dir, "")
			got.stdout = strings.ReplaceAll(got.stdout, "/selinux/"+layout.Type(), "/selinux/TYPE")
			return got
		}
		flatcar, sibling := ask(flatcartest.Today), ask(flatcartest.Sibling)
		if flatcar != sibling || flatcar.code == exitFailed || len(flatcar.stdout) == 0 {
			t.Errorf("%s, with a store %t:\n%+v\non the sibling:\n%+v", command, store, flatcar, sibling)
		}
	}
}
