// Command chcon is what container runtimes label volumes with, github.com/opencontainers/selinux, as a program to measure: chcon LABEL TREE.
// It has no use besides.
package main

import (
	"fmt"
	"os"

	"github.com/opencontainers/selinux/go-selinux"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: chcon LABEL TREE")
		os.Exit(2)
	}
	if err := selinux.Chcon(os.Args[2], os.Args[1], true); err != nil {
		fmt.Fprintf(os.Stderr, "chcon: %v\n", err)
		os.Exit(1)
	}
}
