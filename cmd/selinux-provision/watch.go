package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/kernel"
	"github.com/selinux-provision/selinux-provision/internal/mounts"
	"github.com/selinux-provision/selinux-provision/internal/systemd"
	"github.com/selinux-provision/selinux-provision/mountwatch"
	"github.com/selinux-provision/selinux-provision/mountwatch/judge"
	"github.com/selinux-provision/selinux-provision/stages"
)

func (a *app) watchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "watch", Short: "Give every volume that is mounted the label that is declared for it", Args: noArguments,
		Long: "Watch what is mounted, and give each declared volume its label: by the mount option context=, or by labelling its files.\n" +
			"selinux-provision-mountwatch.service runs it. SIGHUP makes it read the configuration again.\n\n" +
			"With --wait-for it waits until the watcher is done with the volumes of one rule. Exit code 0: they have their label; 1: not.",
	}
	name := cmd.Flags().String("wait-for", "", "wait for the volumes of the rule with this `name` instead of watching")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		a.command = "watch"
		if cmd.Flags().Changed("wait-for") {
			return a.waitFor(cmd.Context(), *name)
		}
		return a.watch(cmd.Context())
	}
	return cmd
}

// watch runs until systemd or a person ends it.
func (a *app) watch(ctx context.Context) error {
	h, closeHost, err := a.host()
	if err != nil {
		return err
	}
	defer closeHost()
	if !h.Root.IsHost() {
		return usageError{errors.New("cannot watch beneath --root: only the running host mounts something")}
	}
	w, err := a.watcher(h)
	if err != nil {
		return err
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	reload := make(chan struct{})
	go func() {
		for range hangups {
			select {
			case reload <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	// It lives as long as the host, and is idle for most of that: memory is worth more than the time that collecting it takes.
	debug.SetGCPercent(40)
	_ = kernel.SmallPages() // without it, it takes more
	w.Rest = debug.FreeOSMemory
	notices, err := h.Kernel.MayWatchMounts() // to try it would log a denial
	if err != nil {
		return fmt.Errorf("cannot ask the policy how mounts may be watched: %w", err)
	}
	source, err := mounts.Open(notices)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	w.Source = source
	return w.Run(ctx, reload)
}

func (a *app) watcher(h *stages.Host) (*mountwatch.Watcher, error) {
	if err := h.Applicable(); err != nil {
		return nil, err
	}
	if err := mountwatch.CheckNamespace(); err != nil {
		return nil, err
	}
	host, err := h.MountHost()
	if err != nil {
		return nil, err
	}
	w := &mountwatch.Watcher{
		Root: h.Root, Host: host, Policy: h.MountPolicy(),
		Load: func() (mountwatch.Config, error) {
			declared, err := h.Declared()
			if err != nil {
				return mountwatch.Config{}, err
			}
			return stages.WatchConfig(declared), nil
		},
		Report: a.volumeReporter(), Watchdog: systemd.WatchdogInterval(),
	}
	if systemd.IsRunning() {
		w.Systemd = systemd.OpenMounts
	}
	return w, nil
}

func (a *app) waitFor(ctx context.Context, name string) error {
	h, closeHost, err := a.host()
	if err != nil {
		return err
	}
	defer closeHost()
	if err := h.Applicable(); err != nil {
		return err
	}
	declared, err := h.Declared()
	if err != nil {
		return err
	}
	host, err := h.MountHost()
	if err != nil {
		return err
	}
	volumes, err := mountwatch.Wait(ctx, h.Root, host, stages.WatchConfig(declared), name)
	if err != nil {
		return err
	}
	if !a.answer(struct {
		header
		Volumes []mountwatch.Volume `json:"volumes"`
	}{a.header(), volumes}) {
		for _, v := range volumes {
			fmt.Fprintf(a.stdout, "%s has its label %s (%s)\n", oneLine(v.Mountpoint), v.Context, v.How)
		}
	}
	return nil
}

// volumeReporter gives the way to tell of what the watcher does: to the journal under systemd, to a person otherwise.
func (a *app) volumeReporter() func(mountwatch.Event) {
	if logger := journal(); logger != nil {
		return func(e mountwatch.Event) { logVolume(logger, e) }
	}
	return func(e mountwatch.Event) {
		level, text := eventText(e)
		to := a.stdout
		if level >= slog.LevelWarn {
			to = a.stderr
		}
		fmt.Fprintln(to, oneLine(text))
	}
}

func logVolume(logger *slog.Logger, e mountwatch.Event) {
	level, text := eventText(e)
	attrs := []any{"message_id", volumeMessage(e), "event", string(e.Kind)}
	v := e.Volume
	for _, field := range []struct{ name, value string }{
		{"rule", v.Rule}, {"mountpoint", v.Mountpoint}, {"source", v.Source}, {"fstype", v.FSType}, {"device", v.Device},
		{"context", v.Context}, {"how", v.How}, {"code", string(v.Code)}, {"reason", v.Reason}, {"remedy", v.Remedy},
	} {
		if field.value != "" {
			attrs = append(attrs, field.name, field.value)
		}
	}
	if f := v.Files; f != nil {
		attrs = append(attrs, "files_seen", f.Seen, "files_set", f.Set, "files_already", f.Already, "files_failed", f.Failed, "ms", f.Millis)
	}
	logger.Log(context.Background(), level, oneLine(text), attrs...)
}

// oneLine keeps a text in one line and free of what a terminal would obey: names of mounts and of files in volumes are other people's.
func oneLine(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, printable(strings.TrimSuffix(line, "\n")))
	}
	return strings.Join(lines, "; ")
}

// eventText gives the line that a person reads.
func eventText(e mountwatch.Event) (slog.Level, string) {
	v := e.Volume
	volume := fmt.Sprintf("volume %s at %s", v.Rule, v.Mountpoint)
	switch e.Kind {
	case mountwatch.VolumeLabelled:
		return slog.LevelInfo, fmt.Sprintf("%s has its label %s (%s)", volume, v.Context, v.How)
	case mountwatch.VolumeRefused, mountwatch.VolumeLost:
		level := slog.LevelWarn
		if v.State == mountwatch.Failed {
			level = slog.LevelError
		}
		if v.Code == mountwatch.CodeLost {
			level = slog.LevelError + 4
		}
		return level, fmt.Sprintf("%s: cannot label %s: %s: %s", v.Rule, v.Mountpoint, v.Reason, v.Remedy)
	case mountwatch.Remounted:
		return slog.LevelInfo, fmt.Sprintf("%s was mounted again with the option context= [%.3f s]", volume, e.Took.Seconds())
	case mountwatch.Recovered:
		return slog.LevelWarn, fmt.Sprintf("%s is mounted again: an earlier run was killed when it had unmounted it", v.Mountpoint)
	case mountwatch.RelabelStarted:
		return slog.LevelInfo, fmt.Sprintf("%s: its files are being labelled %s", volume, v.Context)
	case mountwatch.RelabelDone:
		f := v.Files
		return slog.LevelInfo, fmt.Sprintf("%s: %d files, %d got the label, %d had it [%.1f s]", volume, f.Seen, f.Set, f.Already+f.Resumed, float64(f.Millis)/1000)
	case mountwatch.NotShared:
		return slog.LevelWarn, fmt.Sprintf("%s is for all containers, but a file that one of them makes will be its own: "+
			"set policy.shared_volumes: true, or strategy: context for this rule", volume)
	case mountwatch.Declared, mountwatch.ConfigRead:
		return slog.LevelInfo, e.Text
	case mountwatch.NotDeclared:
		if e.Err != nil {
			return slog.LevelWarn, fmt.Sprintf("%s: %v", e.Text, e.Err)
		}
		return slog.LevelInfo, fmt.Sprintf("%s: %s", volume, e.Text)
	case mountwatch.ConfigBad:
		return slog.LevelError, fmt.Sprintf("the configuration is wrong, the one before still counts: %v", e.Err)
	case mountwatch.CannotRemember:
		return slog.LevelError, e.Err.Error()
	}
	return slog.LevelInfo, strings.TrimSpace(e.Text)
}

// volumeMessage gives the MESSAGE_ID of an event. A refusal has that of its reason.
func volumeMessage(e mountwatch.Event) string {
	switch e.Kind {
	case mountwatch.VolumeLabelled:
		return "b282326e111b4614ac3a1927459f419e"
	case mountwatch.Remounted:
		return "adb8e8732e93429287df8d177f30480d"
	case mountwatch.Recovered:
		return "4f9984a9fef54d6e86c9af1a07541298"
	case mountwatch.RelabelStarted:
		return "91417ce5df7449ba9124b5a7b0935ca1"
	case mountwatch.RelabelDone:
		return "cfa7b8b8da304a36be579df079066c37"
	case mountwatch.NotShared:
		return "e86e591cb9b349eb869c683e4335f9ec"
	case mountwatch.Declared:
		return "88481de2605e45d9a6cc75d6bb4ac21b"
	case mountwatch.NotDeclared:
		return "b1d13772b8e24519b4ecf3c1b020094d"
	case mountwatch.ConfigRead:
		return "fa0891817a4c4f6080aab062467c2fb8"
	case mountwatch.ConfigBad:
		return "65dae33776254557bba02e181fe23a3e"
	case mountwatch.CannotRemember:
		return "e3fed87277014f97b8537eb3a3d75cb8"
	}
	return refusalMessage(e.Volume.Code)
}

func refusalMessage(code judge.Code) string {
	switch code {
	case judge.CodeSELinuxOff:
		return "11e8b656549a4dc9a120aeac22b7e9eb"
	case judge.CodeTie:
		return "95e9a3a5082246fea3624dba492c07db"
	case judge.CodeTwoLabels:
		return "9796e9ac52e746a58d499f79df70baf7"
	case judge.CodeProhibited:
		return "b0ca2bd07b5b470f8f066ff90895d80d"
	case judge.CodeBtrfs:
		return "494bc9beb770426a895350146ed44acd"
	case judge.CodeBind:
		return "f512a9640527476c94360ed6714cd5bb"
	case judge.CodeReadOnly:
		return "5c5c34db9d04490fa708c9b81854efb0"
	case judge.CodeNoWay:
		return "55c8d4ed76b8496b9940d7c8dd0a11cc"
	case judge.CodeNoRelabel:
		return "33fc33f3c28944c1a5d12868d9773ddc"
	case judge.CodeOtherContext:
		return "60f628b5c8d547d091f196813eebecbd"
	case judge.CodeSeveralMounts:
		return "dc91583afe2c434aa176f6e2f166c40c"
	case judge.CodeNoDefault:
		return "38009cc4da40456d9b39245187a87973"
	case mountwatch.CodeUnknownContext:
		return "e88529186b28497591df5ad1d77f1c3d"
	case mountwatch.CodeDenied:
		return "f39c5a4bd84d46d782e8a28d66f4b6c9"
	case mountwatch.CodeBusy:
		return "240b0c490b1e475d80ee591ba445305d"
	case mountwatch.CodeNoRemount:
		return "15dccace6aba4efa91258ba690408315"
	case mountwatch.CodeRemountFailed:
		return "83d3aa19a3c145cbb4e9f82c2292c8c9"
	case mountwatch.CodeLost:
		return "1a5d6feef26244ffbc2c011b66d827bf"
	case mountwatch.CodeRelabelFailed:
		return "5167505c10dd410a84222df621720636"
	}
	return "1a424070ecb7463a8a0d2119df041ac2" // refused for a reason that has no number of its own
}

// isGenerator tells whether systemd runs this program as one of its generators: under a name that ends so, with three directories.
func isGenerator(args []string) bool {
	return len(args) == 4 && strings.HasSuffix(filepath.Base(args[0]), "-generator")
}

// watcherEnabled tells whether the watcher is started at this boot. A revert disables it, or masks the one of a system extension image,
// which is not there yet when generators run.
func watcherEnabled(root *hostfs.Root) bool {
	const system, unit = "/etc/systemd/system/", "selinux-provision-mountwatch.service"
	if target, err := root.Readlink(system + unit); err == nil && target == "/dev/null" {
		return false
	}
	if _, err := root.Lstat(system + unit); err != nil {
		return true
	}
	// At the first boot systemd enables what is to be enabled after the generators have run.
	_, err := root.Lstat(system + "multi-user.target.wants/" + unit)
	return err == nil || os.Getenv("SYSTEMD_FIRST_BOOT") == "1"
}

// generate is what systemd runs before it reads its units, at every boot and every reload (systemd.generator(7)): it writes the drop-ins
// that have declared volumes mounted with their label. It always succeeds: a volume that it does not help is seen to by the watcher.
// There is no journal yet, so what is to be said goes to the kernel's log.
func generate(to string, log io.Writer) {
	say := func(level int, format string, args ...any) {
		for line := range strings.Lines(fmt.Sprintf(format, args...)) {
			fmt.Fprintf(log, "<%d>selinux-provision-generator: %s\n", level, printable(strings.TrimSpace(line)))
		}
	}
	a := &app{root: "/", stdout: io.Discard, stderr: io.Discard}
	h, closeHost, err := a.host()
	if err != nil {
		say(4, "cannot label the mounts that systemd makes: %v", err)
		return
	}
	defer closeHost()
	if h.Kernel == nil || !watcherEnabled(h.Root) {
		return // without SELinux there are no labels, and after a revert nobody wants them
	}
	begin := time.Now()
	declared, err := h.Declared()
	if err != nil {
		say(4, "cannot label the mounts that systemd makes: the configuration is wrong: %v", err)
		return
	}
	config := stages.WatchConfig(declared)
	if len(config.Rules) == 0 {
		return
	}
	host, err := h.MountHost()
	if err != nil {
		say(4, "cannot label the mounts that systemd makes: %v", err)
		return
	}
	written, skipped, err := mountwatch.Generate(h.Root, host, config, h.MountPolicy(), to)
	if err != nil {
		say(4, "cannot label every mount that systemd makes: %v", err)
	}
	for _, s := range skipped {
		say(6, "%s is mounted without its label: %s", s.Mount.Where, s.Reason)
	}
	say(6, "%d mount units have a label [%d ms]", written, time.Since(begin).Milliseconds())
}
