package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/stages"
)

// handmadeFile is where the export says what was changed by hand, below the directory that looks like /etc/selinux-provision.
const handmadeFile = "config.d/50-by-hand.yaml"

// export writes what was changed by hand as a configuration that makes the same.
func (a *app) export(ctx context.Context, to string) error {
	h, closeHost, err := a.host()
	if err != nil {
		return err
	}
	defer closeHost()
	found, err := h.Handmade(ctx)
	if err != nil {
		return err
	}
	names, content := []string{}, [][]byte{}
	add := func(name string, text []byte) { names, content = append(names, name), append(content, text) }
	if len(found.Config) > 0 {
		add(handmadeFile, found.Config)
	}
	for _, m := range found.Modules {
		add("modules/"+m.Name+"."+m.Lang, m.Content)
	}
	if err := writeSite(to, names, content); err != nil {
		return err
	}
	if len(found.Other)+len(found.Replaced) > 0 {
		a.code = exitPartly
	}
	if a.answer(struct {
		header
		Directory string   `json:"directory"` // what it looks like is /etc/selinux-provision
		Files     []string `json:"files"`     // written below it; none: there is nothing to declare
		Other     []string `json:"other"`     // what no configuration can say, and stays as it is
		Replaced  []string `json:"replaced"`  // what the next apply puts this OS image's own in the place of; copies are kept
	}{a.header(), to, names, append([]string{}, found.Other...), append([]string{}, found.Replaced...)}) {
		return nil
	}
	w := a.screen()
	if len(names) == 0 {
		fmt.Fprintln(w, "Nothing that a configuration can say was changed by hand.")
	} else {
		fmt.Fprintln(w, "What was changed by hand is in:")
		for _, name := range names {
			fmt.Fprintf(w, "  %s\n", printable.Text(filepath.Join(to, name)))
		}
		fmt.Fprintf(w, "To have it declared:\n  cp -r %s %s/\n  selinux-provision apply\n", printable.Text(filepath.Join(to, ".")+"/."), configDir)
	}
	if len(found.Other) > 0 {
		fmt.Fprintln(w, "No configuration can say this. It stays as it is, and OS updates keep it:")
		for _, line := range found.Other {
			fmt.Fprintf(w, "  - %s\n", printable.Text(line))
		}
	}
	if len(found.Replaced) > 0 {
		fmt.Fprintf(w, "The next apply puts the OS image's own in place of this, and keeps copies in %s:\n", stages.KeptDir)
		for _, line := range found.Replaced {
			fmt.Fprintf(w, "  - %s\n", printable.Text(line))
		}
	}
	return nil
}

// writeSite puts files into a directory that is new, or empty. If it fails, nothing of them is left behind.
func writeSite(to string, names []string, content [][]byte) error {
	failed := func(err error) error { return fmt.Errorf("cannot write what was changed by hand: %w", err) }
	abs, err := filepath.Abs(to)
	if err != nil {
		return failed(err)
	}
	root, err := hostfs.Open("/")
	if err != nil {
		return failed(err)
	}
	defer root.Close()
	have, err := root.ReadDir(abs)
	switch {
	case err == nil && len(have) > 0:
		return usageError{fmt.Errorf("cannot write what was changed by hand into %s: it is not empty: name a new directory", printable.Quote(to))}
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return failed(err)
	}
	var files []string
	for _, name := range names {
		files = append(files, path.Join(abs, name))
	}
	if err := writeFiles(root, files, content); err != nil {
		return failed(err)
	}
	return nil
}
