// Command selinux-provision takes a Flatcar Container Linux host from its vendor's read-only, permissive SELinux policy to the
// declared state, and keeps it there. This package turns flags into a stages.Host, calls one function of one package, and turns
// what came back into text or JSON and an exit code.
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/kernel"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/systemd"
	"github.com/selinux-provision/selinux-provision/provision"
	"github.com/selinux-provision/selinux-provision/stages"
)

//go:embed VERSION
var versionText string

// The exit codes are part of the contract; the help text lists them.
const (
	exitDone          = 0
	exitFailed        = 1
	exitUsage         = 2
	exitPartly        = 3
	exitNotApplicable = 4
	exitLocked        = 5
	exitUndoFailed    = 6
)

const longHelp = `selinux-provision takes a Flatcar Container Linux host from its vendor's read-only, permissive SELinux policy to the
state declared in /etc/selinux-provision/config.yaml, and keeps it there across updates of the OS.

Exit codes: 0 done; 1 failed, the host is as it was unless the message says otherwise; 2 wrong usage or configuration;
3 done in part, what is missing is listed; 4 not applicable here, SELinux is off or there is no vendor policy; 5 another run
holds the lock; 6 failed, and undoing what was done failed too.`

func main() {
	// The kernel gives a signal to the first thread, if that does not block it, and to no other while that one waits for a file system that
	// does not answer (kernel/signal.c, complete_signal). So the first thread does nothing but wait for the work to end.
	runtime.LockOSThread()
	// A crash ends the process by a signal: its exit code would be that of a wrong configuration, for which no unit is started again.
	debug.SetTraceback("crash")
	if isGenerator(os.Args) {
		kmsg, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
		if err != nil {
			kmsg = os.Stderr
		}
		generate(os.Args[1], kmsg)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// Whoever reads the output may go away in the middle of a change, as "head" does. Without this the runtime would end the process at the
	// next line; now the write fails, and the work goes on. The tools that are started keep the signal as it is.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ended := make(chan int)
	go func() { ended <- run(ctx, os.Args[1:], os.Stdout, os.Stderr) }()
	code := <-ended
	stop()
	os.Exit(code)
}

// app holds the flags and the streams of one call.
type app struct {
	root, config    string
	json, verbose   bool
	retryGuard      bool
	overwriteConfig bool
	lockWait        time.Duration
	stdout, stderr  io.Writer
	command         string
	code            int
	answered        bool      // JSON was printed
	listed          *jsonList // the beginning of it that was printed already, nil if none
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	// Longer than one rebuild takes, shorter than the units' time limits, so that the message comes from here.
	a := &app{stdout: stdout, stderr: stderr, lockWait: 4 * time.Minute}
	return a.run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	out := &output{to: a.stdout}
	a.stdout = out
	cmd := a.commands()
	cmd.SetArgs(args)
	cmd.SetOut(a.stdout)
	cmd.SetErr(a.stderr)
	a.foldHelp(cmd)
	cmd.InitDefaultHelpCmd()
	if help, _, err := cmd.Find([]string{"help"}); err == nil {
		help.Args = helpTopic
	}
	executed, err := cmd.ExecuteContextC(ctx)
	switch {
	case err == nil, out.caused(err):
	case a.command == "": // cobra refused the command line before any of our functions ran
		a.command = called(executed, nil)
		a.json = a.json || slices.Contains(args, "--json") // a flag behind one that is wrong was not read
		a.fail(usageError{fmt.Errorf("%w\nTry: %s --help", err, executed.CommandPath())})
	default:
		a.fail(err)
	}
	if lost := out.lost(); lost != nil {
		a.code = worse(a.code, exitFailed)
		a.complain(fmt.Errorf("cannot write to standard output: %w: what is missing there was done all the same", lost))
	}
	return a.code
}

// exitCode turns an error into the exit code of the contract.
func exitCode(err error) int {
	var (
		usage  usageError
		config provision.Errors
		one    *provision.Error
		locked *hostfs.LockedError
		undo   *plan.UndoError
	)
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage), errors.As(err, &config), errors.As(err, &one):
		return exitUsage
	case errors.As(err, &undo):
		return exitUndoFailed
	case errors.As(err, &locked):
		return exitLocked
	case errors.Is(err, stages.ErrNotApplicable):
		return exitNotApplicable
	}
	return exitFailed
}

func (a *app) commands() *cobra.Command {
	root := &cobra.Command{
		Use: "selinux-provision", Short: "Provision SELinux on Flatcar Container Linux", Long: longHelp,
		SilenceUsage: true, SilenceErrors: true, Args: noArguments,
		SuggestionsMinimumDistance: 2,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.json {
				return errors.New("there is no command whose result could be printed as JSON")
			}
			return cmd.Help()
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	// The terminal going away ends a command; to the watcher its signal means something else.
	root.PersistentPreRun = func(cmd *cobra.Command, args []string) {
		a.command = called(cmd, args)
		if cmd.Name() != "watch" {
			ctx, _ := signal.NotifyContext(cmd.Context(), syscall.SIGHUP)
			cmd.SetContext(ctx)
		}
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.root, "root", "/", "work on the tree in this `directory`, which is not the running host")
	flags.StringVar(&a.config, "config", "", "read this `file`, which --root does not move, not config.yaml and config.d in /etc/selinux-provision")
	flags.BoolVar(&a.json, "json", false, "print one JSON object on standard output")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "say more")

	dryRun := func(cmd *cobra.Command) *bool {
		return cmd.Flags().Bool("dry-run", false, "print what would be changed, write nothing")
	}

	stage := &cobra.Command{
		Use: "stage NAME", Short: "Run one stage: " + stages.Names(), Args: oneStage, ValidArgs: strings.Split(stages.Names(), ", "),
		Long: "Run one stage of the way from the vendor's SELinux to the declared one:\n\n" + stageHelp(),
	}
	dry := dryRun(stage)
	stage.RunE = func(cmd *cobra.Command, args []string) error {
		if !known(args[0]) {
			return usageError{fmt.Errorf("there is no stage %s: the stages are %s", printable.Quote(args[0]), stages.Names())}
		}
		return a.runStages(cmd.Context(), args, *dry)
	}

	apply := &cobra.Command{Use: "apply", Short: "Run all stages in order", Args: noArguments,
		Long: "Run all stages in order:\n\n" + stageHelp() +
			"\nWith enforce.guard in the configuration the last stage puts enforcing on trial and returns; " + stages.WatchUnit + "\nwatches the host and keeps the mode, or goes back to permissive. \"selinux-provision status\" shows how far it is."}
	applyDry := dryRun(apply)
	apply.Flags().BoolVar(&a.retryGuard, "retry-guard", false, "try enforcing again after a trial of it has failed")
	apply.Flags().BoolVar(&a.overwriteConfig, "overwrite-config", false, "write the mode into /etc/selinux/config although somebody else keeps changing it")
	apply.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.runStages(cmd.Context(), strings.Split(stages.Names(), ", "), *applyDry)
	}

	revert := &cobra.Command{Use: "revert", Short: "Bring back the vendor's machine", Args: noArguments,
		Long: "Bring back the vendor's SELinux: mode, policy, store and audit rules, from any state. The units are disabled, the\nconfiguration in /etc/selinux-provision stays."}
	revertDry := dryRun(revert)
	revert.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.revert(cmd.Context(), *revertDry)
	}

	var exportTo string
	status := &cobra.Command{Use: "status", Short: "Compare the host with what is declared", Args: noArguments,
		Long: "Compare the host with what is declared. Exit code 0: all is as declared; 3: it is not, and the list says why;\n2: the configuration is wrong, and what the host is like is shown all the same.\n\n" +
			"With --export, write what was changed by hand and is not declared (modules, booleans, file contexts, equivalences, the\n" +
			"mode, the rules that hide denials) as a configuration that makes the same, into a directory that looks like\n" +
			"/etc/selinux-provision. Exit code 3: there is more, which no configuration can say; it is listed.",
		Example: "  selinux-provision status\n  selinux-provision status --export by-hand && cp -r by-hand/. /etc/selinux-provision/"}
	status.Flags().StringVar(&exportTo, "export", "", "write what was changed by hand into this new `directory`")
	status.RunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Changed("export") {
			return a.export(cmd.Context(), exportTo)
		}
		return a.status(cmd.Context())
	}

	version := &cobra.Command{Use: "version", Short: "Print the version", Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			return a.version()
		}}
	// One line for each file that has a command.
	root.AddCommand(apply, stage, status, revert, version)
	root.AddCommand(a.checkCommand())
	root.AddCommand(a.renderCommand())
	root.AddCommand(a.explainCommand())
	root.AddCommand(a.manCommand())
	root.AddCommand(a.completionCommand())
	root.AddCommand(a.denialsCommand())
	root.AddCommand(a.guardCommand(), a.mountFirstCommand())
	root.AddCommand(a.relabelCommand())
	root.AddCommand(a.readinessCommand())
	root.AddCommand(a.watchCommand())
	root.SetFlagErrorFunc(flagError)
	return root
}

func stageHelp() string {
	var b strings.Builder
	for _, s := range stages.Order() {
		fmt.Fprintf(&b, "  %-12s %s\n", s.Name, s.Does)
	}
	return b.String()
}

func known(name string) bool {
	for _, s := range stages.Order() {
		if s.Name == name {
			return true
		}
	}
	return false
}

// openRoot opens the root of --root.
func (a *app) openRoot() (*hostfs.Root, error) {
	if a.root == "" { // an unset variable in a script must not mean the directory that it happens to run in
		return nil, usageError{errors.New("cannot use --root: it is empty: give the directory of a tree, or / for the running host")}
	}
	root, err := hostfs.Open(a.root)
	if err != nil {
		return nil, usageError{fmt.Errorf("cannot use --root: %w: give the directory of a tree", err)}
	}
	return root, nil
}

// host opens what the stages work on. Beneath --root there is no kernel and no systemd.
func (a *app) host() (*stages.Host, func(), error) {
	root, err := a.openRoot()
	if err != nil {
		return nil, nil, err
	}
	h := &stages.Host{Root: root, LockWait: a.lockWait, Reporter: a.reporter(), RetryGuard: a.retryGuard, OverwriteConfig: a.overwriteConfig}
	h.Declared = func() (*provision.State, error) {
		return stages.Settled(context.Background(), h, func() (*provision.State, error) { return provision.Load(configReader{root, a.config, true}, a.config) })
	}
	closeHost := func() { root.Close() }
	if !root.IsHost() {
		return h, closeHost, nil
	}
	if h.Kernel, err = kernel.Open(); errors.Is(err, kernel.ErrDisabled) {
		h.Kernel = nil
	} else if err != nil {
		return nil, nil, err
	}
	if f, err := os.Open("/proc/cmdline"); err == nil {
		h.CommandLine, err = kernel.ParseCommandLine(f)
		f.Close()
		if err != nil {
			return nil, nil, fmt.Errorf("cannot read the kernel command line: %w", err)
		}
	}
	if h.Boot, err = kernel.BootID(); err != nil {
		return nil, nil, err
	}
	h.Uptime = kernel.Uptime
	if systemd.IsRunning() {
		h.RestartUnit, h.StartUnit, h.DisableUnits = systemd.RestartUnit, systemd.StartUnit, systemd.DisableUnits
		h.StopUnit = systemd.StopUnit
		h.Units, h.Stopping, h.Enablement = systemd.Units, systemd.Stopping, systemd.Enablements
	}
	if h.Kernel != nil {
		h.Evidence = h.Observe()
	}
	return h, closeHost, nil
}

// configReader reads the file of --config where the caller is, and everything else beneath the root.
type configReader struct {
	*hostfs.Root
	config string
	// obeyed says that something is going to be done as it is written there: whoever may write it is root for us.
	obeyed bool
}

// ReadFile reads a file that provision.Load asks for.
func (r configReader) ReadFile(name string) ([]byte, error) {
	if r.config == "" || name != r.config {
		return r.read(r.Root, name)
	}
	abs, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	here, err := hostfs.Open("/")
	if err != nil {
		return nil, err
	}
	defer here.Close()
	return r.read(here, abs)
}

func (r configReader) read(root *hostfs.Root, name string) ([]byte, error) {
	if r.obeyed {
		return root.ReadTrusted(name)
	}
	return root.ReadFile(name)
}

func (a *app) runStages(ctx context.Context, names []string, dry bool) error {
	h, closeHost, err := a.host()
	if err != nil {
		return err
	}
	defer closeHost()
	results, err := h.Run(ctx, names, dry)
	if err != nil {
		return err
	}
	if all := len(names) == len(stages.Order()); !all || dry {
		a.finish(results, nil)
		return nil
	}
	a.finish(results, a.reloadWatcher(ctx), a.firstSample(ctx)...)
	return nil
}

// reloadWatcher has the mount watcher, if it runs, read the configuration that was just applied.
func (a *app) reloadWatcher(ctx context.Context) error {
	if a.root != "/" || !systemd.IsRunning() {
		return nil
	}
	if err := systemd.ReloadUnit(ctx, stages.MountwatchUnit); err != nil {
		return fmt.Errorf("volumes may not be labelled as declared: %w", err)
	}
	return nil
}

// firstSample has the evidence begin with what was just applied, and not when the timer looks next. It says why it does not.
func (a *app) firstSample(ctx context.Context) (notes []string) {
	if a.root != "/" {
		return nil
	}
	h, closeHost, err := a.host()
	if err != nil {
		return nil // what was applied said so
	}
	defer closeHost()
	_, err = h.TakeSample(ctx, false)
	if err != nil && !errors.Is(err, stages.ErrNotApplicable) {
		return []string{"the evidence for readiness begins at the next look: " + err.Error()}
	}
	return nil
}

func (a *app) revert(ctx context.Context, dry bool) error {
	h, closeHost, err := a.host()
	if err != nil {
		return err
	}
	defer closeHost()
	result, err := h.Revert(ctx, dry)
	if err != nil {
		return err
	}
	a.finish([]stages.Result{result}, nil)
	return nil
}

func (a *app) check(ctx context.Context, usr string) error {
	h, closeHost, err := a.host()
	if err != nil {
		return err
	}
	defer closeHost()
	reporter := h.Reporter
	if !a.verbose {
		h.Reporter = nil // how the copy was built
	}
	check, err := h.CheckImage(ctx, usr)
	if err != nil {
		return err
	}
	result := check.Check()
	if result.Outcome == stages.Partly {
		a.code = exitPartly
	}
	if a.answer(struct {
		header
		*stages.ImageCheck
		Error string `json:"error,omitempty"` // why nothing could be built at all
	}{a.header(), check, check.Error}) {
		return nil
	}
	if reporter != nil {
		for _, key := range check.Replacing {
			reporter.Notice(result.Stage, "module "+key+", which was installed by hand, "+replaces)
		}
		reporter.Result(result)
	}
	return nil
}

// replaces says what a module does that is in the place of one of the OS image's.
const replaces = "takes the place of the OS image's own of that name: nothing of that one is in the policy, and no update of it comes there"

// finish sets the exit code of the worst result, and prints the JSON object. What is left undone behind the stages, and notes on that, stand
// in it, or in words on standard error.
func (a *app) finish(results []stages.Result, undone error, notes ...string) {
	for _, r := range results {
		if r.Outcome == stages.Skipped {
			continue // the one that failed says what is wrong
		}
		code := exitCode(r.Err)
		if code == exitDone && r.Outcome == stages.Partly {
			code = exitPartly
		}
		a.code = worse(a.code, code)
	}
	head := a.header()
	if undone != nil {
		a.code = worse(a.code, exitPartly)
		head = header{a.command, a.code, undone.Error()}
	}
	if a.answer(struct {
		header
		Results []stages.Result `json:"results"`         // one for each stage, in their order
		Notes   []string        `json:"notes,omitempty"` // what begins later than it could
	}{head, results, notes}) {
		return
	}
	if undone != nil {
		notes = append([]string{undone.Error()}, notes...)
	}
	for _, line := range notes {
		fmt.Fprintf(a.stderr, "selinux-provision: %s\n", oneLine(line))
	}
}

// worse picks the exit code that says more: a failure before "in part", a failed undo before everything.
func worse(x, y int) int {
	rank := []int{exitDone, exitPartly, exitNotApplicable, exitLocked, exitUsage, exitFailed, exitUndoFailed}
	for i := len(rank) - 1; i >= 0; i-- {
		if x == rank[i] || y == rank[i] {
			return rank[i]
		}
	}
	return exitFailed
}

func (a *app) version() error {
	v := struct {
		header
		Version string `json:"version"`          // of the program
		Go      string `json:"go"`               // of the compiler
		Commit  string `json:"commit,omitempty"` // that it was built from
	}{a.header(), strings.TrimSpace(versionText), runtime.Version(), ""}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
	}
	if a.answer(v) {
		return nil
	}
	fmt.Fprintf(a.stdout, "selinux-provision %s (%s)\n", v.Version, v.Go)
	return nil
}
