// Command storm mounts many small file systems one right after the other, in a test of those who have to look at each:
//
//	storm DIRECTORY COUNT [OPTIONS]
//
// The directory becomes a mount itself, so that all of them go with it. Do not use it on a machine that you need.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "storm:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("cannot mount anything: say where and how many")
	}
	dir, options := args[0], ""
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	if len(args) > 2 {
		options = args[2]
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("storm", dir, "tmpfs", 0, "nr_inodes=0"); err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	for i := range count {
		point := filepath.Join(dir, strconv.Itoa(i))
		if err := os.Mkdir(point, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("storm", point, "tmpfs", 0, options); err != nil {
			return fmt.Errorf("mount %s: %w", point, err)
		}
	}
	return nil
}
