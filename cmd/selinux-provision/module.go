package main

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// writeModule puts the text of a module at a file, or into a directory under its name, in one step. Directories that are missing are made.
// If it fails, nothing of that is left behind.
func writeModule(to, module, text string) error {
	abs, err := filepath.Abs(to)
	if err != nil {
		return err
	}
	root, err := hostfs.Open("/")
	if err != nil {
		return err
	}
	defer root.Close()
	if filepath.Ext(to) != ".cil" {
		abs = filepath.Join(abs, module+".cil")
	}
	if err := writeFiles(root, []string{abs}, [][]byte{[]byte(text)}); err != nil {
		return fmt.Errorf("cannot write the module: %w: name another file with --output", err)
	}
	return nil
}

// writeFiles puts files in place, each in one step, and makes the directories that are missing. If one cannot be written, those before it, which
// must be new, and the directories are taken away again.
func writeFiles(root *hostfs.Root, names []string, content [][]byte) error {
	var made []string // the directories that were missing, the innermost first
	for i, name := range names {
		var missing []string
		for dir := path.Dir(name); !root.Exists(dir) && dir != "/"; dir = path.Dir(dir) {
			missing = append(missing, dir)
		}
		made = append(missing, made...)
		err := root.MkdirAll(path.Dir(name), 0o755)
		if err == nil {
			err = root.WriteFile(name, content[i], hostfs.Attributes{Mode: 0o644})
		}
		if err == nil {
			continue
		}
		for _, left := range append(slices.Clone(names[:i]), made...) {
			if rerr := root.Remove(left); rerr != nil && !hostfs.Missing(rerr) {
				err = errors.Join(err, rerr)
			}
		}
		return err
	}
	return nil
}
