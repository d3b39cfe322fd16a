package main

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"

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
	var made []string // the directories that are missing, the innermost first
	for dir := path.Dir(abs); !root.Exists(dir) && dir != "/"; dir = path.Dir(dir) {
		made = append(made, dir)
	}
	err = root.MkdirAll(path.Dir(abs), 0o755)
	if err == nil {
		err = root.WriteFile(abs, []byte(text), hostfs.Attributes{Mode: 0o644})
	}
	if err == nil {
		return nil
	}
	for _, dir := range made {
		if rerr := root.Remove(dir); rerr != nil && !hostfs.Missing(rerr) {
			err = errors.Join(err, rerr)
		}
	}
	return fmt.Errorf("cannot write the module: %w: name another file with --output", err)
}
