// Command translate turns Butane files into Ignition files beside each other in a directory: translate DIRECTORY FILE.bu...
// "local:" in them is below the working directory.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	examples "github.com/selinux-provision/selinux-provision/ignition-examples"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: translate DIRECTORY FILE.bu...")
		os.Exit(2)
	}
	for _, name := range os.Args[2:] {
		if err := translate(os.Args[1], name); err != nil {
			fmt.Fprintf(os.Stderr, "translate: %s: %v\n", name, err)
			os.Exit(1)
		}
	}
}

func translate(dir, name string) error {
	butane, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	ignition, err := examples.Translate(butane, ".")
	if err != nil {
		return err
	}
	to := filepath.Join(dir, strings.TrimSuffix(filepath.Base(name), ".bu")+".ign")
	if err := os.WriteFile(to, ignition, 0o644); err != nil {
		return err
	}
	fmt.Println(to)
	return nil
}
