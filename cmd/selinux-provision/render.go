package main

import (
	"crypto/sha512"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	shipped "github.com/selinux-provision/selinux-provision"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/provision"
	"github.com/selinux-provision/selinux-provision/provision/ignition"
)

const renderHelp = `Print one Butane or Ignition file that brings a machine everything: this program, its units, the configuration and the
policy modules. Use it as it is, or merge it. The same input gives the same bytes, and what is printed passes Butane's and
Ignition's own validation and "selinux-provision check".

The configuration is that of this host, or of --config FILE, or of --from DIRECTORY, which looks like
/etc/selinux-provision: config.yaml, config.d, modules.

The program is embedded unless --binary says where the machine gets it from; its hash is then that of this very program,
unless --hash says another. With --sysext the machine gets the system extension image instead, which has the units in it.`

const configDir = "/etc/selinux-provision"

// renderFlags are the flags of render.
type renderFlags struct {
	to, spec, from, binary, sysext, hash string
}

func (a *app) renderCommand() *cobra.Command {
	var f renderFlags
	render := &cobra.Command{Use: "render --to butane|ignition", Short: "Print one file that makes a machine with what is declared",
		Long: renderHelp, Args: noArguments,
		Example: "  selinux-provision render --to butane --from site --binary https://files.example/selinux-provision > node.bu\n" +
			"  selinux-provision --config config.yaml render --to ignition > node.ign"}
	flags := render.Flags()
	flags.StringVar(&f.to, "to", "", "`butane` or ignition")
	flags.StringVar(&f.spec, "spec", ignition.DefaultVersion, "`version` of Butane's variant flatcar: "+strings.Join(ignition.Versions(), ", ")+
		"; 1.0.0 gives Ignition 3.3.0, which every release reads")
	flags.StringVar(&f.from, "from", "", "take the configuration from this `directory`")
	flags.StringVar(&f.binary, "binary", "embed", "`URL` that the machine gets the program from, or \"embed\"")
	flags.StringVar(&f.sysext, "sysext", "", "`URL` that the machine gets the system extension image from; needs --hash")
	flags.StringVar(&f.hash, "hash", "", "the `hash` of what is behind the URL: sha512-... or sha256-...")
	_ = render.RegisterFlagCompletionFunc("to", cobra.FixedCompletions([]string{"butane", "ignition"}, cobra.ShellCompDirectiveNoFileComp))
	_ = render.RegisterFlagCompletionFunc("spec", cobra.FixedCompletions(ignition.Versions(), cobra.ShellCompDirectiveNoFileComp))
	render.RunE = func(*cobra.Command, []string) error {
		return a.render(f)
	}
	return render
}

func (a *app) render(f renderFlags) error {
	switch {
	case f.to != "butane" && f.to != "ignition":
		return usageError{fmt.Errorf("cannot render to %s: write --to butane or --to ignition", printable.Quote(f.to))}
	case !slices.Contains(ignition.Versions(), f.spec):
		return usageError{fmt.Errorf("cannot render version %s of Butane's variant flatcar: these are known: %s", printable.Quote(f.spec), strings.Join(ignition.Versions(), ", "))}
	case f.from != "" && a.config != "":
		return usageError{errors.New("cannot use --from and --config in one run: give one of them")}
	case f.sysext != "" && f.hash == "":
		return usageError{errors.New("cannot use --sysext without --hash: give sha512- and what sha512sum prints for the image")}
	case f.sysext != "" && f.binary != "embed":
		return usageError{errors.New("cannot use --sysext and --binary in one run: the image has the program in it")}
	case f.hash != "" && f.sysext == "" && !strings.Contains(f.binary, "://"):
		return usageError{errors.New("cannot use --hash without an address: give --binary or --sysext with a URL")}
	}
	delivery := ignition.Delivery{Version: f.spec}
	var err error
	if delivery.Files, err = a.declaredFiles(f.from); err != nil {
		return err
	}
	if delivery.Program, err = f.program(); err != nil {
		return err
	}
	if f.sysext == "" {
		if delivery.Units, err = shipped.Units(); err != nil {
			return err
		}
	}
	out, err := ignition.Render(delivery)
	if err == nil && f.to == "ignition" {
		out, err = ignition.Translate(out, f.spec)
	}
	if err != nil {
		return err
	}
	if err := passes(out); err != nil {
		return err
	}
	if a.answer(struct {
		header
		To      string `json:"to"`      // butane or ignition
		Spec    string `json:"spec"`    // the version of Butane's variant flatcar
		Content string `json:"content"` // the file
	}{a.header(), f.to, f.spec, string(out)}) {
		return nil
	}
	_, err = a.stdout.Write(out)
	return err
}

// passes looks at the file that was rendered as "check" would.
func passes(out []byte) error {
	_, findings, err := ignition.Check("", strings.NewReader(string(out)), ignition.Options{})
	if err != nil {
		return err
	}
	var wrong []string
	for _, f := range findings {
		if !f.Note {
			f.Line = 0
			wrong = append(wrong, strings.TrimPrefix(f.String(), ": "))
		}
	}
	if len(wrong) > 0 {
		return usageError{fmt.Errorf("cannot render this: the machine would have what \"check\" refuses: %s", strings.Join(wrong, "\n"))}
	}
	return nil
}

// program is what the flags say of the binary.
func (f renderFlags) program() (*ignition.Program, error) {
	const itsPath = "/opt/bin/selinux-provision"
	switch {
	case f.sysext != "":
		return &ignition.Program{Path: ignition.SysextPath, URL: f.sysext, Hash: f.hash}, nil
	case strings.Contains(f.binary, "://") && f.hash != "":
		return &ignition.Program{Path: itsPath, URL: f.binary, Hash: f.hash}, nil
	case f.binary != "embed" && !strings.Contains(f.binary, "://"):
		return nil, usageError{fmt.Errorf("cannot use --binary %s: give a URL, or embed", printable.Quote(f.binary))}
	}
	name, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("cannot find this program: %w: give its address and its hash with --binary and --hash", err)
	}
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read this program: %w: give its address and its hash with --binary and --hash", err)
	}
	if f.binary == "embed" {
		return &ignition.Program{Path: itsPath, Content: content}, nil
	}
	return &ignition.Program{Path: itsPath, URL: f.binary, Hash: fmt.Sprintf("sha512-%x", sha512.Sum512(content))}, nil
}

// declaredFiles gives the files of the declared state, checked, with the paths that they have on a machine.
func (a *app) declaredFiles(from string) ([]ignition.File, error) {
	tree, at := a.root, ""
	if from != "" {
		tree, at = from, configDir
	}
	root, err := hostfs.Open(tree)
	if err != nil {
		return nil, usageError{fmt.Errorf("cannot read the configuration: %w: give a directory", err)}
	}
	defer root.Close()
	reader := declaredReader{configReader{root, a.config, false}, at}
	if dir, beside := modulesBeside(a.config); from == "" && beside {
		here, err := hostfs.Open(dir)
		if err != nil {
			return nil, usageError{fmt.Errorf("cannot read the modules: %w", err)}
		}
		defer here.Close()
		reader, from = declaredReader{configReader{here, a.config, false}, configDir}, dir
	}
	state, err := provision.Load(reader, a.config)
	var problems provision.Errors
	if errors.As(err, &problems) && from != "" {
		for _, p := range problems { // where it is now, not where it will be
			if below, ok := strings.CutPrefix(p.File, configDir); ok {
				p.File = filepath.Join(from, below)
			}
			p.Problem = strings.ReplaceAll(p.Problem, " "+configDir+"/", " "+strings.TrimSuffix(from, "/")+"/")
		}
	}
	if err != nil {
		return nil, err
	}
	var files []ignition.File
	for _, name := range state.Sources {
		content, err := reader.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", name, err)
		}
		if name == a.config {
			name = provision.ConfigFile
		}
		files = append(files, ignition.File{Path: name, Content: content})
	}
	if len(files) == 0 {
		return nil, usageError{fmt.Errorf("cannot find a configuration in %s: write one, or give another place with --from or --config",
			filepath.Join(tree, map[bool]string{true: configDir}[from == ""]))}
	}
	for _, m := range state.Modules {
		files = append(files, ignition.File{Path: m.Path, Content: m.Content})
	}
	return files, nil
}

// modulesBeside gives the directory of a configuration that is not the host's own and has its modules beside it.
func modulesBeside(config string) (dir string, beside bool) {
	abs, err := filepath.Abs(config)
	if err != nil || config == "" || strings.HasPrefix(abs, configDir+"/") {
		return "", false
	}
	info, err := os.Stat(filepath.Join(filepath.Dir(abs), "modules"))
	return filepath.Dir(abs), err == nil && info.IsDir()
}

// declaredReader reads what belongs below /etc/selinux-provision from another directory, if one is given.
type declaredReader struct {
	configReader
	// instead is the path that stands for the directory.
	instead string
}

// ReadFile reads a file that provision.Load asks for.
func (r declaredReader) ReadFile(name string) ([]byte, error) {
	if r.config != "" && name == r.config {
		return r.configReader.ReadFile(name)
	}
	name, err := r.inside(name)
	if err != nil {
		return nil, err
	}
	return r.configReader.ReadFile(name)
}

// ReadDir lists a directory that provision.Load asks for.
func (r declaredReader) ReadDir(name string) ([]fs.DirEntry, error) {
	name, err := r.inside(name)
	if err != nil {
		return nil, err
	}
	return r.configReader.ReadDir(name)
}

func (r declaredReader) inside(name string) (string, error) {
	if r.instead == "" {
		return name, nil
	}
	below, ok := strings.CutPrefix(name, r.instead)
	if !ok {
		return "", &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return path.Join("/", below), nil
}
