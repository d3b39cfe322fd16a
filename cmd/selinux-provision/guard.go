package main

import (
	"context"
	"errors"
	"fmt"
	"github.com/selinux-provision/selinux-provision/internal/messages"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/systemd"
	"github.com/selinux-provision/selinux-provision/stages"
)

// guardLockWait is short, so that systemd's watchdog hears of the watch in between.
const guardLockWait = 20 * time.Second

// guardCommand is for the units alone: a person has apply, and the journal of the watch.
func (a *app) guardCommand() *cobra.Command {
	guard := &cobra.Command{Use: "guard", Short: "Watch the host while enforcing is on trial", Hidden: true,
		Args: noArguments, RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("cannot guard by hand: declare enforce.guard and run: selinux-provision apply")}
		}}
	for _, sub := range []struct {
		use, short string
		run        func(ctx context.Context) error
	}{
		{"watch", "Watch the host until the trial is over (" + stages.WatchUnit + ")", a.guardWatch},
		{"end", "End the trial if the watch ended without a verdict", a.guardEnd},
		{"boot", "Make the next boot permissive if this one is on trial", a.guardBoot},
	} {
		guard.AddCommand(&cobra.Command{Use: sub.use, Short: sub.short, Args: noArguments, RunE: func(cmd *cobra.Command, _ []string) error {
			a.lockWait = min(a.lockWait, guardLockWait)
			return sub.run(cmd.Context())
		}})
	}
	return guard
}

func (a *app) guardWatch(ctx context.Context) error {
	h, closeHost, err := a.host()
	if err != nil {
		return err
	}
	defer closeHost()
	var notify systemd.Notifier
	ready := false
	err = h.Watch(ctx, func(status string, news bool) {
		if !ready {
			notify.Ready(status)
			ready = true
		}
		notify.Status(status)
		notify.Alive()
		if a.verbose || news {
			fmt.Fprintln(a.stdout, "guard: "+oneLine(status))
		}
	})
	if errors.Is(err, context.Canceled) {
		return nil // systemd stopped it, and calls "guard end" next
	}
	return err
}

func (a *app) guardEnd(ctx context.Context) error {
	h, closeHost, err := a.host()
	if err != nil {
		return err
	}
	defer closeHost()
	how := os.Getenv("SERVICE_RESULT") // systemd.exec(5), for ExecStopPost=
	if how == "" {
		how = "success"
	}
	return h.EndWatch(ctx, how)
}

func (a *app) guardBoot(context.Context) error {
	root, err := hostfs.Open(a.root)
	if err != nil {
		return usageError{err}
	}
	defer root.Close()
	marked, err := stages.BeginBoot(root)
	if err != nil {
		return err
	}
	if marked {
		fmt.Fprintln(a.stdout, "this boot enforces on trial: the next one is permissive unless it proves itself")
	}
	return nil
}

// trialLevel is how loud a phase is in the journal: a failure is an error, the ends of windows are worth a notice.
func trialMessage(t stages.Trial) (id, text string) {
	text = "guard: " + t.Says()
	begun, passed, interrupted, failed := messages.TrialBegun, messages.TrialPassed, messages.TrialInterrupted, messages.TrialFailed
	if t.Domain != "" {
		begun, passed, interrupted, failed = messages.DomainBegun, messages.DomainPassed, messages.DomainInterrupted, messages.DomainFailed
		if t.Reason != "" && t.Phase != stages.TrialFailed {
			text += ": " + t.Reason
		}
	}
	switch t.Phase {
	case stages.TrialWatched, stages.TrialProving:
		return begun.ID(), fmt.Sprintf("%s (%s)", text, t.Window)
	case stages.TrialArmed, stages.TrialSettled:
		if t.DenialCount > 0 {
			text += fmt.Sprintf("; %d accesses were denied meanwhile, see: selinux-provision denials --boot", t.DenialCount)
		}
		return passed.ID(), text
	case stages.TrialInterrupted:
		return interrupted.ID(), text
	}
	return failed.ID(), text + ": " + t.Reason
}

// ended tells whether a phase is the end of a window that was watched: its denials are then named, whatever the end.
func ended(phase stages.Phase) bool {
	return phase == stages.TrialFailed || phase == stages.TrialArmed || phase == stages.TrialSettled
}

func (t textReporter) Trial(trial stages.Trial) {
	_, text := trialMessage(trial)
	fmt.Fprintln(t.out, text)
	for _, d := range trial.Denials {
		fmt.Fprintln(t.out, "guard: denied: "+d)
	}
}

func (j journalReporter) Trial(trial stages.Trial) {
	id, text := trialMessage(trial)
	log := j.log.Info
	if trial.Phase == stages.TrialFailed {
		log = j.log.Error
	}
	log(text, "message_id", id, "phase", string(trial.Phase), "domain", trial.Domain, "reason", trial.Reason, "denials", trial.DenialCount, "tries", trial.Tries)
	if ended(trial.Phase) {
		for _, d := range trial.Denials {
			j.log.Warn("guard: denied: "+d, "message_id", messages.TrialDenial.ID())
		}
	}
}
