package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/stages"
)

// writeFeatures puts what nodes are chosen by where node-feature-discovery's local source reads it: one NAME=VALUE for each line, which
// becomes the node's label feature.node.kubernetes.io/NAME
// (https://kubernetes-sigs.github.io/node-feature-discovery/stable/usage/customization-guide.html#local-feature-source).
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
	if err := root.WriteFile(abs, []byte(features(s, r)), hostfs.Attributes{Mode: 0o644}); err != nil {
		return fmt.Errorf("cannot write the node's features: %w: make the directory, or name another file", err)
	}
	return nil
}

// features are few: a label is for choosing nodes, metrics are for watching them. A value keeps to what a label may be: letters,
// digits and -_. of at most 63.
func features(s *stages.Status, r *stages.Readiness) string {
	var b strings.Builder
	for _, f := range []struct{ name, value string }{
		{"mode", s.Mode.Running},
		{"as-declared", strconv.FormatBool(s.AsDeclared)},
		{"readiness", strings.ReplaceAll(string(r.Verdict), " ", "-")},
		{"vendor-policy", short(s.Store.Vendor)},
	} {
		fmt.Fprintf(&b, "selinux-provision.%s=%s\n", f.name, f.value)
	}
	return b.String()
}
