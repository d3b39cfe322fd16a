package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/provision"
)

func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{Use: "man [config]", Short: "Print the manual page, or that of the configuration",
		Long:    "Print a manual page for man(1): that of the program, or with \"config\" that of its configuration.",
		Example: "  selinux-provision man | man -l -", ValidArgs: []string{"config"}, Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && args[0] != "config" {
				return fmt.Errorf("there is no page %s: there are that of the program, without a name, and config", printable.Quote(args[0]))
			}
			return oneAtMost(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			page := manual(cmd.Root())
			if len(args) > 0 {
				page = manualOfConfig()
			}
			if a.answer(struct {
				header
				Page string `json:"page"` // for man(1)
			}{a.header(), page}) {
				return nil
			}
			fmt.Fprint(a.stdout, page)
			return nil
		}}
}

// roff writes a page with the macros of man(7).
type roff struct{ strings.Builder }

func newPage(name, section string) *roff {
	r := &roff{}
	fmt.Fprintf(r, ".TH %s %s \"\" \"selinux-provision %s\" \"SELinux on Flatcar\"\n", strings.ToUpper(name), section, strings.TrimSpace(versionText))
	return r
}

func (r *roff) section(name string) { fmt.Fprintf(r, ".SH %s\n", name) }

// text writes paragraphs; lines that are indented stand as they are.
func (r *roff) text(s string) {
	verbatim := false
	switchTo := func(to bool) {
		if to != verbatim {
			r.WriteString(map[bool]string{true: ".PP\n.RS 4\n.nf\n", false: ".fi\n.RE\n.PP\n"}[to])
			verbatim = to
		}
	}
	for line := range strings.Lines(strings.TrimRight(s, "\n") + "\n") {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "" && !verbatim:
			r.WriteString(".PP\n")
		case strings.HasPrefix(line, "  "):
			switchTo(true)
			r.WriteString(escape(line[2:]) + "\n")
		default:
			switchTo(false)
			r.WriteString(escape(line) + "\n")
		}
	}
	switchTo(false)
}

func (r *roff) item(term, text string) {
	fmt.Fprintf(r, ".TP\n.B %s\n%s\n", escape(term), escape(text))
}

// escape keeps roff from reading text as instructions.
func escape(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", "\\`", "^", `\(ha`, "~", `\(ti`).Replace(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	return s
}

func (r *roff) flags(set *pflag.FlagSet) {
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		argument, usage := pflag.UnquoteUsage(f)
		term := "--" + f.Name
		if f.Shorthand != "" {
			term = "-" + f.Shorthand + ", " + term
		}
		if argument != "" {
			term += " " + argument
		}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0" && f.DefValue != "0s" {
			usage += " (default " + f.DefValue + ")"
		}
		r.item(term, usage)
	})
}

// manual is the page of the program, made from its commands and flags.
func manual(root *cobra.Command) string {
	r := newPage("selinux-provision", "8")
	r.section("NAME")
	r.text("selinux-provision - provision SELinux on Flatcar Container Linux, and keep it provisioned")
	r.section("SYNOPSIS")
	r.text("selinux-provision [--root DIRECTORY] [--config FILE] [--json] [-v] COMMAND")
	r.section("DESCRIPTION")
	description, _, _ := strings.Cut(root.Long, "\n\nExit codes: ")
	r.text(description)
	r.section("COMMANDS")
	var each func(c *cobra.Command)
	each = func(c *cobra.Command) {
		if c.Name() == "help" || c.Hidden {
			return
		}
		if c.Runnable() && c.HasParent() {
			fmt.Fprintf(r, ".SS %s\n", escape(strings.TrimPrefix(c.UseLine(), root.Name()+" ")))
			long := c.Long
			if long == "" {
				long = c.Short + "."
			}
			r.text(long)
			if c.Example != "" {
				r.WriteString(".PP\nFor example:\n")
				r.text(c.Example)
			}
			r.flags(c.NonInheritedFlags())
		}
		for _, sub := range c.Commands() {
			each(sub)
		}
	}
	each(root)
	r.section("OPTIONS OF ALL COMMANDS")
	r.flags(root.PersistentFlags())
	r.section("EXIT STATUS")
	for _, code := range exitMeanings() {
		r.item(code.Code, code.Means)
	}
	r.section("FILES")
	for _, f := range [][2]string{
		{provision.ConfigFile, "the declared state; see selinux-provision.yaml(5)"},
		{provision.DropInDir + "/*.yaml", "read after it, in the order of their names"},
		{provision.ModulesDir, "policy modules, .cil and .pp, that are installed unless the configuration names others"},
		{"/var/lib/selinux-provision", "what was done and found out; may be removed, and is then found out again"},
		{"/var/lib/selinux", "the policy store, made from that of this OS image"},
	} {
		r.item(f[0], f[1])
	}
	r.section("SEE ALSO")
	r.text("selinux-provision.yaml(5), semodule(8), getenforce(8), selinux(8)")
	return r.String()
}

// manualOfConfig is the page of the configuration: all keys, as an example that can be used.
func manualOfConfig() string {
	r := newPage("selinux-provision.yaml", "5")
	r.section("NAME")
	r.text("selinux-provision.yaml - what selinux-provision(8) makes of a host")
	r.section("DESCRIPTION")
	r.text("The configuration is " + provision.ConfigFile + ", then the files " + provision.DropInDir + "/*.yaml in the order of their names. A later file wins " +
		"key by key, lists add up. An unknown key is an error. Without any file the policy store is made writable and kept up to date, and nothing else changes.\n\n" +
		"These are all keys. Each but version may be left out.")
	lines := slices.Collect(strings.Lines(provision.AnnotatedConfig()))
	r.text("  " + strings.Join(lines, "  "))
	r.section("SEE ALSO")
	r.text("selinux-provision(8)")
	return r.String()
}
