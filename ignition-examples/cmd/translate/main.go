// Command translate turns Butane files into Ignition files. What they take with "local:" is below the working directory.
//
//	translate FILE.bu...                       writes FILE.ign beside each
//	translate --embed PROGRAM DIRECTORY FILE.bu...   writes them into DIRECTORY, with the program in them
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	examples "github.com/selinux-provision/selinux-provision/ignition-examples"
)

func main() {
	args := os.Args[1:]
	program, dir := "", ""
	if len(args) > 2 && args[0] == "--embed" {
		program, dir, args = args[1], args[2], args[3:]
	}
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "usage: translate [--embed PROGRAM DIRECTORY] FILE.bu...")
		os.Exit(2)
	}
	for _, name := range args {
		if err := translate(program, dir, name); err != nil {
			fmt.Fprintf(os.Stderr, "translate: %s: %v\n", name, err)
			os.Exit(1)
		}
	}
}

func translate(program, dir, name string) error {
	butane, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	ignition, err := examples.Translate(butane, ".")
	if err != nil {
		return err
	}
	to := strings.TrimSuffix(name, ".bu") + ".ign"
	if program != "" {
		content, err := os.ReadFile(program)
		if err != nil {
			return err
		}
		if ignition, err = examples.Embed(ignition, map[string][]byte{examples.ProgramURL: content}); err != nil {
			return err
		}
		to = filepath.Join(dir, filepath.Base(to))
	}
	if err := os.WriteFile(to, ignition, 0o644); err != nil {
		return err
	}
	fmt.Println(to)
	return nil
}
