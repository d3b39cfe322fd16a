// Vmtest builds the images of the test machine and boots one for a person to look into.
//
//	vmtest build [trixie|forky]...   build the images into the cache, those of both at the same time
//	vmtest boot [flags] [KERNEL-ARGUMENT]...   boot a machine, then run each line of standard input in it
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"

	"github.com/selinux-provision/selinux-provision/vmtests"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: vmtest build [SUITE]... | vmtest boot [flags] [KERNEL-ARGUMENT]...")
	}
	switch args[0] {
	case "build":
		suites := args[1:]
		if len(suites) == 0 {
			suites = []string{string(vmtests.Trixie), string(vmtests.Forky)}
		}
		errs := make([]error, len(suites))
		var group sync.WaitGroup
		for i, suite := range suites {
			group.Go(func() { _, errs[i] = vmtests.Build(ctx, vmtests.Suite(suite), say) })
		}
		group.Wait()
		return errors.Join(errs...)
	case "boot":
		return boot(ctx, args[1:])
	default:
		return fmt.Errorf("cannot %s: the commands are build and boot", args[0])
	}
}

func say(line string) { fmt.Fprintln(os.Stderr, line) }

func boot(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("boot", flag.ContinueOnError)
	suite := flags.String("suite", string(vmtests.Trixie), "trixie or forky")
	layout := flags.String("layout", string(vmtests.Today), "LTS2023, SymlinkEra, Today or Confext")
	ignition := flags.String("ignition", "", "Ignition config for the first boot")
	cpus := flags.Int("cpus", 0, "number of CPUs")
	if err := flags.Parse(args); err != nil {
		return err
	}
	options := vmtests.Options{Suite: vmtests.Suite(*suite), Layout: vmtests.Layout(*layout), KernelArgs: flags.Args(), CPUs: *cpus, Progress: say}
	if *ignition != "" {
		content, err := os.ReadFile(*ignition)
		if err != nil {
			return fmt.Errorf("cannot read the Ignition config: %w", err)
		}
		options.Ignition = content
	}
	m, err := vmtests.Boot(ctx, options)
	if m != nil {
		defer m.Close()
	}
	if err != nil {
		return err
	}
	return serve(ctx, m)
}

// serve runs lines from standard input in the guest. Lines that begin with a colon are for the harness.
func serve(ctx context.Context, m *vmtests.Machine) error {
	say("each line runs in the guest; :reboot, :console and :verdict are for the machine; end of input ends it")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch line := lines.Text(); line {
		case "":
		case ":reboot":
			if err := m.Reboot(ctx); err != nil {
				return err
			}
		case ":console":
			fmt.Print(m.Console())
		case ":verdict":
			problems, err := m.Verdict(ctx)
			if err != nil {
				return err
			}
			for _, problem := range problems {
				fmt.Println(problem)
			}
		default:
			out, err := m.Run(ctx, line)
			if err != nil {
				say(err.Error())
			}
			fmt.Print(out.Stdout)
			fmt.Fprint(os.Stderr, out.Stderr)
			if out.Exit != 0 {
				say(fmt.Sprintf("exit code %d", out.Exit))
			}
		}
	}
	return lines.Err()
}
