package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/selinux-provision/selinux-provision/internal/printable"
)

const completionHelp = `Print what has a shell complete the commands, flags and values of this program. For one session of
bash, which needs bash-completion:

  source <(selinux-provision completion bash)

The archive of a release has the files in the directory completion, ready for the places where the shells look.`

func (a *app) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{Use: "completion bash|zsh|fish", Short: "Print the completion for a shell", Long: completionHelp,
		ValidArgs: shells, DisableFlagsInUseLine: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("cannot print a completion without the name of one shell: they are bash, zsh and fish")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.stdout, true)
			case "zsh":
				return root.GenZshCompletion(a.stdout)
			case "fish":
				return root.GenFishCompletion(a.stdout, true)
			}
			return usageError{fmt.Errorf("cannot print a completion for %s: the shells are bash, zsh and fish", printable.Quote(args[0]))}
		}}
}
