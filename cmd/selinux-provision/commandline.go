package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/stages"
)

// called names a command as it was called: without the program, with the argument that chooses what is done.
func called(cmd *cobra.Command, args []string) string {
	_, name, _ := strings.Cut(cmd.CommandPath(), " ")
	if len(args) > 0 && len(cmd.ValidArgs) > 0 {
		name += " " + args[0]
	}
	return name
}

// noArguments refuses what stands behind a command, and guesses what was meant where it stands in place of one.
func noArguments(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.Flags().Lookup("input") != nil:
		return fmt.Errorf("cannot use %s: %s takes no arguments: it reads a file with --input", printable.Quote(args[0]), cmd.CommandPath())
	case cmd.HasParent():
		return fmt.Errorf("cannot use %s: %s takes no arguments", printable.Quote(args[0]), cmd.CommandPath())
	}
	if meant := cmd.SuggestionsFor(args[0]); len(meant) > 0 {
		return fmt.Errorf("there is no command %s: did you mean %s?", printable.Quote(args[0]), strings.Join(meant, " or "))
	}
	return fmt.Errorf("there is no command %s", printable.Quote(args[0]))
}

func oneStage(_ *cobra.Command, args []string) error {
	switch len(args) {
	case 0:
		return fmt.Errorf("cannot run a stage without its name: the stages are %s", stages.Names())
	case 1:
		return nil
	}
	return fmt.Errorf("cannot use %s: give one stage, or run them all with: selinux-provision apply", printable.Quote(args[1]))
}

type usageError struct{ error }

// oneAtMost refuses what stands behind the one thing that a command takes.
func oneAtMost(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return fmt.Errorf("cannot use %s: %s takes one argument at most", printable.Quote(args[1]), cmd.CommandPath())
	}
	return nil
}

// helpTopic refuses to help with what is none of the commands, where cobra would show what there is without a word.
func helpTopic(help *cobra.Command, args []string) error {
	found, rest, err := help.Root().Find(args)
	switch {
	case err != nil:
		return err
	case !found.HasParent() && len(rest) > 0:
		return noArguments(found, rest)
	case len(rest) == 0, len(rest) == 1 && slices.Contains(found.ValidArgs, rest[0]):
		return nil
	}
	return fmt.Errorf("there is no help on %s: %s has none on its arguments", printable.Quote(rest[0]), found.CommandPath())
}

// flagError says what is wrong with a flag in this program's words, and guesses what was meant.
func flagError(cmd *cobra.Command, err error) error {
	var (
		unknown *pflag.NotExistError
		missing *pflag.ValueRequiredError
		invalid *pflag.InvalidValueError
	)
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "":
		text := "there is no flag --" + printable.Text(unknown.GetSpecifiedName())
		if meant := flagsLike(cmd, unknown.GetSpecifiedName()); len(meant) > 0 {
			text += ": did you mean " + strings.Join(meant, " or ") + "?"
		}
		return errors.New(text)
	case errors.As(err, &unknown):
		return fmt.Errorf("there is no flag -%s", printable.Text(unknown.GetSpecifiedName()))
	case errors.As(err, &missing):
		what, _ := pflag.UnquoteUsage(missing.GetFlag())
		return fmt.Errorf("cannot use --%s without a %s", missing.GetFlag().Name, what)
	case errors.As(err, &invalid):
		reason := invalid.Unwrap().Error()
		var number *strconv.NumError
		if errors.As(invalid, &number) {
			reason = map[string]string{"bool": "write true or false"}[invalid.GetFlag().Value.Type()]
			if reason == "" {
				reason = "write a whole number"
			}
		}
		return fmt.Errorf("cannot use %s for --%s: %s", printable.Quote(invalid.GetValue()), invalid.GetFlag().Name, printable.Text(reason))
	}
	return err
}

// flagsLike gives the flags of a command that look like a name, as cobra finds commands.
func flagsLike(cmd *cobra.Command, name string) (meant []string) {
	names := &cobra.Command{SuggestionsMinimumDistance: 2}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
		}
	})
	for _, flag := range names.SuggestionsFor(name) {
		meant = append(meant, "--"+flag)
	}
	return meant
}
