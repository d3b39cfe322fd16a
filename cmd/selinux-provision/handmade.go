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
	files := map[string][]byte{}
	names := []string{}
	add := func(name string, content []byte) { files[name], names = content, append(names, name) }
	if len(found.Config) > 0 {
		add(handmadeFile, found.Config)
	}
	for _, m := range found.Modules {
		add("modules/"+m.Name+"."+m.Lang, m.Content)
	}
	if err := writeSite(to, names, files); err != nil {
		return err
	}
	if len(found.Other) > 0 {
		a.code = exitPartly
	}
	if a.answer(struct {
		header
		Directory string   `json:"directory"` // what it looks like is /etc/selinux-provision
		Files     []string `json:"files"`     // written below it; none: there is nothing to declare
		Other     []string `json:"other"`     // what no configuration can say, and stays as it is
	}{a.header(), to, names, append([]string{}, found.Other...)}) {
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
	return nil
}

// writeSite puts files into a directory that is new, or empty. If it fails, nothing of them is left behind.
func writeSite(to string, names []string, files map[string][]byte) (err error) {
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
	there := err == nil
	for _, name := range names {
		file := path.Join(abs, name)
		if err = root.MkdirAll(path.Dir(file), 0o755); err == nil {
			err = root.WriteFile(file, files[name], hostfs.Attributes{Mode: 0o644})
		}
		if err == nil {
			continue
		}
		for _, dir := range []string{"config.d", "modules"} {
			err = errors.Join(err, root.RemoveTree(path.Join(abs, dir)))
		}
		if !there {
			err = errors.Join(err, root.RemoveTree(abs))
		}
		return failed(err)
	}
	return nil
}
