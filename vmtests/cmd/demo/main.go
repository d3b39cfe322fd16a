// Demo takes a Flatcar-shaped machine from permissive to enforcing with one Butane file, in a virtual machine, and says in plain lines
// what it sees on the way. It exits with 0 only if all of it is true.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/selinux-provision/selinux-provision/vmtests"
)

const (
	exampleFile = "enforcing.bu"
	stageUnits  = "'selinux-provision-stage-*'"
	// What a container runtime does when it starts a container. On this host, where nothing has a label, it is denied.
	transition = "runcon system_u:system_r:container_t:s0:c1,c2 /bin/sh -c true"
	denials    = `journalctl --sync; journalctl -b --no-pager -o cat | grep 'avc: *denied' | grep 'comm="runcon"' || true`
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	d := &demo{ctx: ctx, out: os.Stdout, begin: time.Now()}
	err := d.run()
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\nThe demo failed: %v\n", err)
		os.Exit(1)
	}
}

type demo struct {
	ctx     context.Context
	out     io.Writer
	begin   time.Time
	machine *vmtests.Machine // the one that is shown
}

// booting is a machine that boots beside what is shown, and what is to be said of that.
type booting struct {
	machine *vmtests.Machine
	err     error
	said    []string
	done    chan struct{} // closed when all of that is known
}

func boot(ctx context.Context, ignition []byte) *booting {
	b := &booting{done: make(chan struct{})}
	go func() {
		defer close(b.done)
		b.machine, b.err = vmtests.Boot(ctx, vmtests.Options{Ignition: ignition, Progress: func(line string) { b.said = append(b.said, line) }})
	}()
	return b
}

// shown makes a machine the one that is shown, as soon as it has booted.
func (d *demo) shown(b *booting) error {
	<-b.done
	d.machine = b.machine
	for _, line := range b.said {
		d.say("[%s]", line)
	}
	return b.err
}

func (d *demo) run() error {
	if err := vmtests.Missing(); err != nil {
		return err
	}
	ignition, err := vmtests.Example(d.ctx, exampleFile)
	if err != nil {
		return err
	}
	d.say("Two virtual machines from Debian packages: two to four minutes. The first time, they have to be built: three or four minutes more.")
	if _, err := vmtests.Build(d.ctx, vmtests.Trixie, func(line string) { d.say("[%s]", line) }); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(d.ctx)
	vendor, provisioned := boot(ctx, nil), boot(ctx, ignition)
	defer func() {
		stop()
		for _, b := range []*booting{vendor, provisioned} {
			if <-b.done; b.machine != nil {
				b.machine.Close()
			}
		}
	}()
	for _, part := range []struct {
		title string
		do    func() error
	}{
		{"The vendor's machine, as it comes", func() error { return d.vendor(vendor) }},
		{"The same, with ignition-examples/" + exampleFile + " at its first boot", func() error { return d.firstBoot(provisioned) }},
		{"A denial that was silent before", d.denial},
		{"Reboot", d.reboot},
		{"selinux-provision status", d.status},
		{"Nothing else went wrong", d.verdict},
	} {
		fmt.Fprintf(d.out, "\n== %s (%.0f s)\n", part.title, time.Since(d.begin).Seconds())
		if err := part.do(); err != nil {
			return fmt.Errorf("%s: %w", part.title, err)
		}
	}
	fmt.Fprintf(d.out, "\nDone in %.0f seconds: permissive to enforcing with one file, and it lasts.\n", time.Since(d.begin).Seconds())
	return nil
}

func (d *demo) say(format string, args ...any) {
	for line := range strings.Lines(fmt.Sprintf(format, args...)) {
		fmt.Fprintf(d.out, "   %s\n", strings.TrimRight(line, "\n"))
	}
}

// shows runs a command in the machine, shows what it prints, and fails if that is not what it has to be.
func (d *demo) shows(command, want string) error {
	out, err := d.machine.Run(d.ctx, command)
	if err != nil {
		return err
	}
	got := strings.TrimSpace(out.Stdout)
	d.say("$ %s\n%s", command, got)
	if got != want {
		return fmt.Errorf("%q says %q %s, it should say %q", command, got, strings.TrimSpace(out.Stderr), want)
	}
	return nil
}

// get runs a command that has to succeed.
func (d *demo) get(command string) (string, error) {
	out, err := d.machine.Run(d.ctx, command)
	if err == nil && out.Exit != 0 {
		err = fmt.Errorf("%q fails with %d: %s%s", command, out.Exit, out.Stdout, out.Stderr)
	}
	return strings.TrimSpace(out.Stdout), err
}

func (d *demo) vendor(vendor *booting) error {
	if err := d.shown(vendor); err != nil {
		return err
	}
	if err := d.shows("getenforce", "Permissive"); err != nil {
		return err
	}
	if err := d.shows("readlink /var/lib/selinux", "../../usr/lib/selinux/policy"); err != nil {
		return err
	}
	if err := d.shows("echo '(type new_t)' > /root/new.cil; semodule -i /root/new.cil 2>&1 | grep -o 'Read-only file system' | head -n 1", "Read-only file system"); err != nil {
		return err
	}
	d.say("The policy store is in the read-only /usr: no module can be added.")
	if _, err := d.get(transition); err != nil {
		return err
	}
	logged, err := d.get(denials)
	if err != nil {
		return err
	}
	if logged != "" {
		return fmt.Errorf("the vendor's audit rules should hide this denial: %s", logged)
	}
	d.say("A process went into the domain of containers, which the policy denies. The journal has nothing about it.")
	return nil
}

func (d *demo) firstBoot(provisioned *booting) error {
	d.machine.Close() // the vendor's has shown what it can
	if err := d.shown(provisioned); err != nil {
		return err
	}
	log, err := d.get("journalctl -b -o cat -u " + stageUnits)
	if err != nil {
		return err
	}
	for line := range strings.Lines(log) {
		if stage, _, ok := strings.Cut(line, ": "); ok && strings.Contains(" policystore policy audit enforce ", " "+stage+" ") {
			d.say("%s", line)
		}
	}
	for _, stage := range []string{"policystore", "policy", "audit", "enforce"} {
		if !strings.Contains(log, stage+": done") {
			return fmt.Errorf("stage %s is not done: see the lines above", stage)
		}
	}
	return d.shows("getenforce", "Enforcing")
}

func (d *demo) denial() error {
	out, err := d.machine.Run(d.ctx, transition)
	if err != nil {
		return err
	}
	d.say("$ %s\n%s", transition, strings.TrimSpace(out.Stderr))
	if out.Exit == 0 {
		return errors.New("the kernel let the process into the domain of containers")
	}
	logged, err := d.get(denials)
	if err != nil {
		return err
	}
	if n := strings.Count(logged, "avc:"); n != 1 {
		return fmt.Errorf("the journal has %d denials, it should have one: %s", n, logged)
	}
	d.say("The journal: %s", logged)
	return nil
}

func (d *demo) reboot() error {
	if err := d.machine.Reboot(d.ctx); err != nil {
		return err
	}
	if err := d.shows("getenforce", "Enforcing"); err != nil {
		return err
	}
	// The kernel logs each change of the mode. A policy that is loaded in the mode of the configuration file makes none after that.
	if err := d.shows("journalctl -b -k --no-pager -o cat | grep -c 'enforcing=1 old_enforcing=0' || true", "1"); err != nil {
		return err
	}
	const order = `journalctl -b -k --no-pager -o cat | grep -o 'type=1404\|type=1403' | tr '\n' ' '`
	if err := d.shows(order, "type=1404 type=1403"); err != nil {
		return err
	}
	d.say("PID 1 switched the mode (1404) before it loaded the policy (1403); nobody ran setenforce after that.")
	return d.shows("journalctl -b --no-pager -o cat -u "+stageUnits+" | grep -c ': nothing to do'", "4")
}

func (d *demo) status() error {
	status, err := d.get("/opt/bin/selinux-provision status")
	d.say("%s", status)
	return err
}

// verdict fails if the console or the journal has anything but the one denial that the demo provoked.
func (d *demo) verdict() error {
	problems, err := d.machine.Verdict(d.ctx)
	if err != nil {
		return err
	}
	var others []string
	for _, problem := range problems {
		if !strings.Contains(problem, `comm="runcon"`) {
			others = append(others, problem)
		}
	}
	if len(others) > 0 {
		return errors.New(strings.Join(others, "\n"))
	}
	d.say("No other denial, no failed unit, no ordering cycle on the console and in the journal of both boots.")
	return nil
}
