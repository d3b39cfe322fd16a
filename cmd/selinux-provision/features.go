package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/provision"
	"github.com/selinux-provision/selinux-provision/stages"
)

// writeFeatures puts what nodes are chosen by where node-feature-discovery's local source reads it: one NAME=VALUE for each line, which
// becomes a label of the node. The labels expire, so that a node that nobody looks at any more does not go on to be called ready
// (https://kubernetes-sigs.github.io/node-feature-discovery/stable/usage/customization-guide.html#local-feature-source; to versions that
// do not know it, the line that says so is a comment).
func writeFeatures(name string, s *stages.Status, r *stages.Readiness) error {
	abs, err := filepath.Abs(name)
	if err != nil {
		return fmt.Errorf("cannot write the node's features: %w", err)
	}
	root, err := hostfs.Open("/")
	if err != nil {
		return fmt.Errorf("cannot write the node's features: %w", err)
	}
	defer root.Close()
	// In one rename: the reader never sees a part of it.
	if err := root.WriteFile(abs, []byte(features(s, r, time.Now())), hostfs.Attributes{Mode: 0o644}); err != nil {
		return fmt.Errorf("cannot write the node's features: %w: make the directory, or name another file", err)
	}
	return nil
}

// featuresLast is how long labels are good for: a host is looked at every ten minutes.
const featuresLast = time.Hour

// features are few: a label is for choosing nodes, metrics are for watching them. A value keeps to what a label may be: letters,
// digits and -_. of at most 63.
func features(s *stages.Status, r *stages.Readiness, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# +expiry-time=%s\n", now.Add(featuresLast).UTC().Format(time.RFC3339))
	// What a rollout chooses nodes by: it must not change while the rollout is at work on the node, whatever comes out.
	mayEnforce := r.Verdict == stages.Ready || s.Mode.Declared == string(provision.Enforcing)
	for _, f := range []struct{ name, value string }{
		{"mode", s.Mode.Running},
		{"as-declared", strconv.FormatBool(s.AsDeclared)},
		{"may-enforce", strconv.FormatBool(mayEnforce)},
		{"readiness", strings.ReplaceAll(string(r.Verdict), " ", "-")},
		{"vendor-policy", short(s.Store.Vendor)},
	} {
		// With its namespace: features without one are to be refused by a version to come.
		fmt.Fprintf(&b, "feature.node.kubernetes.io/selinux-provision.%s=%s\n", f.name, labelValue(f.value))
	}
	return b.String()
}

// labelValue gives what of a text may stand in the value of a label.
func labelValue(text string) string {
	kept := strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-_.", r)) {
			return r
		}
		return '_'
	}, text)
	return strings.Trim(kept[:min(len(kept), 63)], "-_.")
}
