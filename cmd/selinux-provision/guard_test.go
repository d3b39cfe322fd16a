package main

import (
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/messages"
	"github.com/selinux-provision/selinux-provision/stages"
)

// What the journal says of a trial, under which MESSAGE_ID: that of a host is told from that of a domain.
func TestTrialMessage(t *testing.T) {
	for _, c := range []struct {
		trial stages.Trial
		kind  messages.Kind
		text  string
	}{
		{stages.Trial{Phase: stages.TrialWatched, Window: time.Minute}, messages.TrialBegun, "guard: enforcing is on trial: the next boot is permissive until the window has passed (1m0s)"},
		{stages.Trial{Phase: stages.TrialFailed, Reason: "a unit failed"}, messages.TrialFailed, "guard: enforcing was tried and given up: a unit failed"},
		{stages.Trial{Phase: stages.TrialInterrupted, Reason: "a shutdown"}, messages.TrialInterrupted, "guard: the host was shut down within the window: the next boot begins the trial again"},
		{stages.Trial{Domain: "site_t", Phase: stages.TrialWatched, Window: time.Minute}, messages.DomainBegun,
			"guard: enforcing site_t is on trial: it is made permissive again if it gets sick, and the host goes on enforcing (1m0s)"},
		{stages.Trial{Domain: "site_t", Phase: stages.TrialFailed, Reason: "it was denied something"}, messages.DomainFailed,
			"guard: enforcing site_t was tried and given up: it is made permissive again, and the host goes on enforcing: it was denied something"},
		{stages.Trial{Domain: "site_t", Phase: stages.TrialInterrupted, Reason: "a shutdown"}, messages.DomainInterrupted, "guard: enforcing site_t was interrupted in its window, and is tried again: a shutdown"},
		{stages.Trial{Domain: "site_t", Phase: stages.TrialSettled}, messages.DomainPassed, "guard: enforcing site_t passed its window and is kept"},
		{stages.Trial{Domain: "site_t", Phase: stages.TrialSettled, Reason: "no process was seen in it"}, messages.DomainPassed, "guard: enforcing site_t passed its window and is kept: no process was seen in it"},
	} {
		id, text := trialMessage(c.trial)
		if id != c.kind.ID() || !strings.HasPrefix(text, c.text) {
			t.Errorf("%+v: %s %s, want %s %s", c.trial, id, text, c.kind.ID(), c.text)
		}
	}
}
