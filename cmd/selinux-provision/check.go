package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/patience"
	"github.com/selinux-provision/selinux-provision/provision/ignition"
	"github.com/selinux-provision/selinux-provision/stages"
)

const checkHelp = `Say what is wrong in files before a machine is made from them: configurations of selinux-provision, Butane files and Ignition
files, told apart by what is in them, and directories like /etc/selinux-provision. Beyond what Butane and Ignition refuse,
it finds what bites at boot: a context that the kernel will not take, two labels for one device, Btrfs below containers, a
copied policy, kernel arguments and files that contradict the mode, units that start containers too early, or without a label
for the directories that they get, commands that change SELinux by hand, modules that are named and not delivered, or that
hide the vendor's, file contexts that no file gets. Nothing is fetched. Each finding is one line: FILE:LINE: WHAT: REMEDY.
Exit code 0: nothing is wrong; 2: something is.

With --usr: build what this host declares, and what was installed by hand, against the /usr tree of another OS image, in
scratch space. Nothing on the host changes. Exit code 0: everything builds; 3: what is listed would be left out.
"--usr other" mounts the /usr partition that is not in use: after an OS update was downloaded, that of the next boot.`

func (a *app) checkCommand() *cobra.Command {
	check := &cobra.Command{Use: "check FILE|DIRECTORY... | --usr DIRECTORY", Short: "Say what is wrong in a config, a Butane or an Ignition file, or with the next OS image",
		Long: checkHelp, Args: cobra.ArbitraryArgs, DisableFlagsInUseLine: true,
		Example: "  selinux-provision check node.bu\n  butane --files-dir . node.bu | selinux-provision check -\n  selinux-provision check --usr other"}
	usr := check.Flags().String("usr", "", "the /usr tree in this `directory`, or \"other\"")
	filesDir := check.Flags().String("files-dir", ".", "what a Butane file takes with \"local\" is below this `directory`")
	check.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case *usr != "" && len(args) > 0:
			return usageError{errors.New("cannot check files and an OS image in one run: give files, or --usr")}
		case *usr != "":
			return a.check(cmd.Context(), *usr)
		case len(args) == 0:
			return usageError{errors.New("cannot check nothing: give files, or --usr with the /usr tree of an OS image or \"other\"")}
		}
		return a.checkFiles(cmd.Context(), args, *filesDir)
	}
	return check
}

// aDay is longer than any file takes to be checked.
const aDay = 24 * time.Hour

// checkedFile is the answer for one file.
type checkedFile struct {
	File     string             `json:"file"`     // as it was given
	Kind     ignition.Kind      `json:"kind"`     // "configuration", "Butane" or "Ignition"; empty if that could not be told
	Findings []ignition.Finding `json:"findings"` // in the order of the lines, notes last; none: nothing is wrong
}

func (a *app) checkFiles(ctx context.Context, names []string, filesDir string) error {
	var (
		room            patience.Room
		all             []checkedFile
		problems, notes int
	)
	for _, name := range names {
		// Nothing in it asks whether somebody wants to end it, and it changes nothing: it may be left behind.
		one, err := patience.Ask(ctx, &room, name, aDay, func(context.Context, func()) (checkedFile, error) { return a.checkFile(name, filesDir) })
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("cannot check %s: it was interrupted", name)
		case err != nil:
			return err
		}
		for _, f := range one.Findings {
			if f.Note {
				notes++
			} else {
				problems++
			}
		}
		all = append(all, one)
	}
	if problems > 0 {
		a.code = exitUsage
	}
	if a.answer(struct {
		header
		Files []checkedFile `json:"files"` // in the order in which they were given
	}{a.header(), all}) {
		return nil
	}
	for _, one := range all {
		for _, f := range one.Findings {
			if f.Note {
				fmt.Fprintf(a.stdout, "%s (note)\n", f)
				continue
			}
			fmt.Fprintln(a.stdout, f)
		}
	}
	switch {
	case problems > 0:
		fmt.Fprintf(a.stderr, "selinux-provision: %s to correct\n", count(problems, "problem"))
	case a.verbose || notes == 0:
		fmt.Fprintf(a.stdout, "%s: nothing is wrong\n", strings.Join(names, ", "))
	}
	return nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (a *app) checkFile(name, filesDir string) (checkedFile, error) {
	in, shown := os.Stdin, "standard input"
	if name != "-" {
		shown = name
		f, err := os.Open(name)
		if err == nil {
			if info, statErr := f.Stat(); statErr == nil && info.IsDir() {
				f.Close()
				return a.checkDirectory(name)
			}
		}
		if err != nil {
			return checkedFile{}, usageError{fmt.Errorf("cannot check %s: %w", name, errors.Unwrap(err))}
		}
		defer f.Close()
		in = f
	}
	kind, findings, err := ignition.Check(shown, in, ignition.Options{FilesDir: filesDir, Module: a.moduleAt(name), VendorModules: a.vendorModules()})
	if err != nil {
		return checkedFile{}, fmt.Errorf("cannot check %s: %w", shown, err)
	}
	if findings == nil {
		findings = []ignition.Finding{}
	}
	return checkedFile{shown, kind, findings}, nil
}

// checkDirectory checks a directory that looks like /etc/selinux-provision, as "render --from" takes it.
func (a *app) checkDirectory(name string) (checkedFile, error) {
	root, err := hostfs.Open(name)
	if err != nil {
		return checkedFile{}, usageError{fmt.Errorf("cannot check %s: %w", name, err)}
	}
	defer root.Close()
	if !slices.ContainsFunc([]string{"/config.yaml", "/config.d", "/modules"}, root.Exists) {
		return checkedFile{}, usageError{fmt.Errorf("cannot check %s: it has neither config.yaml nor config.d nor modules in it: give a directory like %s, or files", name, configDir)}
	}
	shown := func(file string) string {
		if below, ok := strings.CutPrefix(file, configDir); ok {
			return filepath.Join(name, below)
		}
		return file
	}
	findings := ignition.CheckDirectory(declaredReader{configReader{Root: root}, configDir}, shown, ignition.Options{VendorModules: a.vendorModules()})
	if findings == nil {
		findings = []ignition.Finding{}
	}
	return checkedFile{name, ignition.Configuration, findings}, nil
}

// vendorModules names the modules of the vendor's policy of this host, or of the tree of --root; nil where there is none.
func (a *app) vendorModules() []string {
	root, err := a.openRoot()
	if err != nil {
		return nil
	}
	defer root.Close()
	return stages.VendorModules(root)
}

// moduleAt reads the modules that a configuration names, if it is that of this host or of the tree of --root, or if there is
// a directory for them beside it, as "render --from" takes it. Of others nothing is known.
func (a *app) moduleAt(name string) func(string) ([]byte, bool) {
	abs, err := filepath.Abs(name)
	if err != nil || name == "-" {
		return nil
	}
	root, err := filepath.Abs(a.root)
	if err != nil || !strings.HasPrefix(abs, filepath.Join(root, configDir)+"/") {
		dir := filepath.Dir(abs)
		if filepath.Base(dir) == "config.d" {
			dir = filepath.Dir(dir)
		}
		if info, err := os.Stat(filepath.Join(dir, "modules")); err != nil || !info.IsDir() {
			return nil
		}
		return func(module string) ([]byte, bool) {
			below, ok := strings.CutPrefix(module, configDir+"/")
			if !ok {
				return []byte(ignition.Unknown), true
			}
			content, err := os.ReadFile(filepath.Join(dir, below))
			return content, err == nil
		}
	}
	return func(module string) ([]byte, bool) {
		r, err := hostfs.Open(root)
		if err != nil {
			return nil, false
		}
		defer r.Close()
		content, err := r.ReadFile(module)
		return content, err == nil
	}
}
