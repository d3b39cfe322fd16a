package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/selinux-provision/selinux-provision/internal/messages"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/provision"
)

const explainHelp = `Say what a key of the configuration means, what counts without it, and how it is written; what an exit code of this program
means; or what an entry of the journal with one of its MESSAGE_IDs means and what to do. Without a name it lists the keys. The
texts are those of selinux-provision.yaml(5) and of the documents. Nothing is looked at on the host.`

// exitMeaning is an exit code with what it says.
type exitMeaning struct {
	Code  string `json:"code"`
	Means string `json:"means"`
}

// explained is the answer: what was meant by the name.
type explained struct {
	Version string              `json:"version"`             // of the program, which reads exactly these keys
	Keys    []provision.Key     `json:"keys,omitempty"`      // all of that name, or all that there are
	Code    *exitMeaning        `json:"exit_code,omitempty"` // if the name is an exit code
	Message *explainedMessageID `json:"message,omitempty"`   // if the name is a MESSAGE_ID
}

// explainedMessageID is an entry of the journal.
type explainedMessageID struct {
	ID    string `json:"message_id"`
	Means string `json:"means"`
	Do    string `json:"do"` // about it
}

// exitMeanings takes the exit codes out of the help text.
func exitMeanings() (all []exitMeaning) {
	_, codes, _ := strings.Cut(longHelp, "\n\nExit codes: ")
	for code := range strings.SplitSeq(strings.TrimSuffix(strings.ReplaceAll(codes, "\n", " "), "."), "; ") {
		number, means, _ := strings.Cut(code, " ")
		all = append(all, exitMeaning{number, means})
	}
	return all
}

func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{Use: "explain [KEY|EXIT-CODE|MESSAGE_ID]", Short: "Say what a key of the configuration means", Long: explainHelp,
		Example: "  selinux-provision explain audit.dontaudit\n  selinux-provision explain 4", Args: oneAtMost, DisableFlagsInUseLine: true,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
			if len(args) == 0 {
				for _, k := range provision.Keys() {
					names = append(names, k.Name)
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			e := explained{Version: strings.TrimSpace(versionText), Keys: provision.Keys()}
			if len(args) > 0 {
				var err error
				if e, err = explanation(args[0]); err != nil {
					return usageError{err}
				}
			}
			if a.answer(struct {
				header
				explained
			}{a.header(), e}) {
				return nil
			}
			fmt.Fprint(a.screen(), explanationText(e, len(args) == 0))
			return nil
		}}
}

// explanation finds what a name means.
func explanation(name string) (explained, error) {
	e := explained{Version: strings.TrimSpace(versionText)}
	for _, code := range exitMeanings() {
		if code.Code == name {
			e.Code = &code
			return e, nil
		}
	}
	id := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, "MESSAGE_ID="), "-", ""))
	for _, m := range messages.All() {
		if m.ID == id {
			e.Message = &explainedMessageID{m.ID, m.Means, m.Do}
			return e, nil
		}
	}
	found, near := provision.Explain(name)
	switch {
	case len(found) > 0:
		e.Keys = found
		return e, nil
	case near != "":
		return e, fmt.Errorf("cannot explain %s: there is no such key: did you mean %s?", printable.Quote(name), near)
	}
	return e, fmt.Errorf("cannot explain %s: it is no key, no exit code and no MESSAGE_ID of this program: selinux-provision explain lists the keys", printable.Quote(name))
}

func explanationText(e explained, list bool) string {
	var w strings.Builder
	switch {
	case e.Code != nil:
		fmt.Fprintf(&w, "exit code %s: %s\n", e.Code.Code, e.Code.Means)
	case e.Message != nil:
		fmt.Fprintf(&w, "MESSAGE_ID %s: %s\n  do: %s\n", e.Message.ID, e.Message.Means, e.Message.Do)
	case list:
		widest := 0
		for _, k := range e.Keys {
			widest = max(widest, len(k.Name))
		}
		for _, k := range e.Keys {
			fmt.Fprintf(&w, "%-*s  %s\n", widest, k.Name, k.Means)
		}
	default:
		for i, k := range e.Keys {
			if i > 0 {
				fmt.Fprintln(&w)
			}
			fmt.Fprintf(&w, "%s: %s\n", k.Name, k.Means)
			if k.Default != "" {
				fmt.Fprintf(&w, "  default: %s\n", k.Default)
			}
			place := "at the top of the file"
			if at := strings.LastIndexByte(k.Name, '.'); at >= 0 {
				place = "below " + k.Name[:at]
			}
			fmt.Fprintf(&w, "  for example, %s:\n", place)
			for line := range strings.Lines(k.Example) {
				fmt.Fprintf(&w, "    %s\n", strings.TrimSuffix(line, "\n"))
			}
			if len(k.Below) > 0 {
				fmt.Fprintf(&w, "  below it: %s\n", strings.Join(k.Below, ", "))
			}
			fmt.Fprintf(&w, "  selinux-provision %s reads it.\n", e.Version)
		}
	}
	return w.String()
}
