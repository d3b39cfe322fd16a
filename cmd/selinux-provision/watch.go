package main

import (
	"context"
	"errors"
	"fmt"
	"github.com/selinux-provision/selinux-provision/internal/messages"
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
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/systemd"
	"github.com/selinux-provision/selinux-provision/mountwatch"
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
	w.Report(mountwatch.Event{Kind: mountwatch.Watching, Text: "mounts are seen by " + source.Means()})
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
			return h.WatchConfig(declared)
		},
		Report: a.volumeReporter(), Waiting: a.waiting(), Watchdog: systemd.WatchdogInterval(),
	}
	if systemd.IsRunning() {
		w.Systemd = systemd.OpenMounts
	}
	return w, nil
}

// mountFirstCommand is for a unit that the generator makes.
func (a *app) mountFirstCommand() *cobra.Command {
	return &cobra.Command{
		Use: "mount-first MOUNTPOINT", Short: "Mount with its label what systemd is about to mount", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a.command = "mount-first"
			// Whatever happens here, systemd goes on with the mount, and nobody has to look after this unit.
			report := a.volumeReporter()
			if err := a.mountFirst(cmd.Context(), args[0], report); err != nil {
				report(mountwatch.Event{Kind: mountwatch.NotDeclared, Text: "systemd mounts " + args[0] + " as it is declared", Err: err})
			}
			return nil
		},
	}
}

func (a *app) mountFirst(ctx context.Context, point string, report func(mountwatch.Event)) error {
	h, closeHost, err := a.host()
	if err != nil {
		return err
	}
	defer closeHost()
	if h.Kernel == nil {
		return nil
	}
	declared, err := h.Declared()
	if err != nil {
		return err
	}
	config, err := h.WatchConfig(declared)
	if err != nil {
		return err
	}
	host, err := h.MountHost()
	if err != nil {
		return err
	}
	s, err := systemd.OpenMounts(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	first := &mountwatch.First{Root: h.Root, Host: host, Config: config, Policy: h.MountPolicy(), Systemd: s, Report: report}
	return first.Mount(ctx, point)
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
	config, err := h.WatchConfig(declared)
	if err != nil {
		return err
	}
	volumes, err := mountwatch.Wait(ctx, h.Root, host, config, name)
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
	attrs := []any{"message_id", volumeMessage(e).ID(), "event", string(e.Kind)}
	v := e.Volume
	for _, field := range []struct{ name, value string }{
		{"rule", v.Rule}, {"mountpoint", v.Mountpoint}, {"source", v.Source}, {"fstype", v.FSType}, {"device", v.Device},
		{"context", v.Context}, {"how", v.How}, {"code", string(v.Code)}, {"reason", v.Reason}, {"remedy", v.Remedy},
	} {
		if field.value != "" {
			attrs = append(attrs, field.name, field.value)
		}
	}
	if v.Late {
		attrs = append(attrs, "late", true)
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
		lines = append(lines, printable.Text(strings.TrimSuffix(line, "\n")))
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
	case mountwatch.VolumeTaken:
		return slog.LevelWarn, fmt.Sprintf("%s keeps a container's label: %s: %s", volume, v.Reason, v.Remedy)
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
		text := fmt.Sprintf("%s: %d files, %d got the label, %d had it [%.1f s]", volume, f.Seen, f.Set, f.Already+f.Resumed, float64(f.Millis)/1000)
		if v.Late {
			return slog.LevelWarn, text + ": labelled after its pod had it, which may have met files without the label: restart the pod if it was denied them"
		}
		return slog.LevelInfo, text
	case mountwatch.NotShared:
		return slog.LevelWarn, fmt.Sprintf("%s is for all containers, but a file that one of them makes will be its own: "+
			"set policy.shared_volumes: true, or strategy: context for this rule", volume)
	case mountwatch.Declared, mountwatch.ConfigRead, mountwatch.Watching:
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

// volumeMessage returns the kind of the journal's entry for an event. A refusal has that of its reason.
func volumeMessage(e mountwatch.Event) messages.Kind {
	if e.Kind == mountwatch.VolumeRefused || e.Kind == mountwatch.VolumeLost {
		return messages.Refused + messages.Kind(e.Volume.Code)
	}
	return messages.Volume + messages.Kind(e.Kind)
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
			fmt.Fprintf(log, "<%d>selinux-provision-generator: %s\n", level, printable.Text(strings.TrimSpace(line)))
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
	if len(declared.Volumes) == 0 {
		return
	}
	config, err := h.WatchConfig(declared)
	if err != nil {
		say(4, "cannot label the mounts that systemd makes: %v", err)
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
	say(6, "%d mounts are made with their label [%d ms]", written, time.Since(begin).Milliseconds())
}
