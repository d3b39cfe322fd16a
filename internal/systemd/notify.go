package systemd

import (
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// Notifier tells systemd how the service is that this process runs. Where systemd does not ask for that, as for a program that
// a person started, its methods do nothing. What cannot be sent is lost: systemd itself acts on silence.
type Notifier struct{}

// Ready says that the service does its work from now on: at its start, and after each Reloading.
func (Notifier) Ready(status string) { notify(daemon.SdNotifyReady, "STATUS="+status) }

// Reloading says that the service reads its configuration again. Ready ends it.
func (Notifier) Reloading() {
	// Type=notify-reload tells by the time of the monotonic clock which order to reload this is the answer to.
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) == nil {
		notify(daemon.SdNotifyReloading, fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000))
	}
}

// Stopping says that the service is about to end.
func (Notifier) Stopping() { notify(daemon.SdNotifyStopping) }

// Extend asks for more time, from now on, for what the service is at: its start or its stop.
func (Notifier) Extend(by time.Duration) {
	notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", by.Microseconds()))
}

// Status gives the line that "systemctl status" shows.
func (Notifier) Status(text string) { notify("STATUS=" + text) }

// Alive is due at least every WatchdogInterval.
func (Notifier) Alive() { notify(daemon.SdNotifyWatchdog) }

func notify(lines ...string) {
	var message string
	for _, line := range lines {
		message += line + "\n"
	}
	_, _ = daemon.SdNotify(false, message)
}

// WatchdogInterval is how often to call Alive: half of the time after which systemd kills a service that is silent. 0 is never.
func WatchdogInterval() time.Duration {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return 0
	}
	return limit / 2
}
