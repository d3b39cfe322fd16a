package ignition

import (
	"path"
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/lazyregexp"
	"github.com/selinux-provision/selinux-provision/internal/protected"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/provision"
)

// byHand is a change of SELinux's state that a command makes beside the declaration.
type byHand struct {
	is              func(c command, s *situation) bool
	problem, remedy string
	note            bool
}

var policyPlace = lazyregexp.New(`^(/etc/selinux/(mcs|targeted|default)|/var/lib/selinux)(/|$)`)

// changesByHand are those that people are told to make, or make where they did not know better. The first that fits is said.
func changesByHand() []byHand {
	const instead = "remove the command: selinux-provision does this at each boot, and takes it back"
	const mode = "remove the command: declare mode:"
	return []byHand{
		{is: func(c command, _ *situation) bool { return c.changes(policyPlace().MatchString) },
			problem: "cannot copy, link or remove the policy by hand: the copy goes stale at the next OS update", remedy: instead},
		{is: func(c command, s *situation) bool {
			return s.managesMode() && c.changes(func(name string) bool { return name == seconfig.Path })
		}, problem: "cannot change " + seconfig.Path + " by hand beside selinux-provision: the next boot begins in that mode, and ends in the declared one", remedy: mode},
		{is: func(c command, s *situation) bool {
			return c.program() == "setenforce" && len(c.argv) > 1 && s.managesMode()
		},
			problem: "cannot switch the mode by hand beside selinux-provision: it lasts until the next reboot", remedy: mode},
		{is: func(c command, _ *situation) bool { return c.program() == "semodule" && changesStore(c.argv[1:]) },
			problem: "cannot run semodule by hand beside selinux-provision: what it does is taken for an operator's work", remedy: "remove the command: declare policy.modules and audit.dontaudit"},
		{is: func(c command, s *situation) bool {
			return s.delivered && slices.Contains([]string{"setsebool", "togglesebool"}, c.program()) && len(c.argv) > 1
		}, problem: "cannot set a boolean by hand beside selinux-provision: the next rebuild of the policy is made with the declared ones", remedy: "remove the command: declare policy.booleans"},
		{is: func(c command, _ *situation) bool {
			return c.program() == "semanage" && len(c.argv) > 1 && !slices.ContainsFunc(c.argv, asksOnly)
		},
			problem: "cannot run semanage: Flatcar has no such program", remedy: "remove the command: declare policy.modules, policy.booleans and policy.file_contexts"},
		{is: func(c command, s *situation) bool { return s.delivered && c.program() == "chcon" },
			problem: "cannot label files by hand beside selinux-provision: nothing knows of this label, and the next relabelling takes it away", remedy: "remove the command: declare policy.file_contexts, or a volume"},
		{is: func(c command, s *situation) bool {
			return s.delivered && c.relabels() && slices.ContainsFunc(c.argv[1:], runtimesFiles)
		}, problem: "cannot relabel what belongs to the system or to a container runtime: running containers lose the label that they work with", remedy: "name the directories that are yours, or declare policy.file_contexts, which labels them"},
		{is: func(c command, s *situation) bool { return s.delivered && c.relabels() },
			problem: "this labels files by hand", remedy: "not needed for what policy.file_contexts or a volume declares: that is labelled by selinux-provision", note: true},
	}
}

func asksOnly(arg string) bool {
	return slices.Contains([]string{"-l", "--list", "-h", "--help", "list"}, arg)
}

// changesStore tells whether semodule's arguments make it build or change the store: it may also only list or write out.
func changesStore(args []string) bool {
	for _, arg := range args {
		name, _, _ := strings.Cut(arg, "=")
		switch {
		case slices.Contains([]string{"--build", "--install", "--remove", "--upgrade", "--base", "--enable", "--disable", "--disable_dontaudit", "--rebuild-if-modules-changed"}, name):
			return true
		case strings.HasPrefix(arg, "-") && !strings.HasPrefix(arg, "--"):
			letters := arg[1:]
			if value := strings.IndexAny(letters, "lEXpSCH"); value >= 0 { // what follows is the option's value
				letters = letters[:value]
			}
			if strings.ContainsAny(letters, "BDRirude") {
				return true
			}
		}
	}
	return false
}

// relabels tells whether a command gives files the labels of the policy: it may also only look, and without arguments it prints its usage.
func (c command) relabels() bool {
	if len(c.argv) < 2 {
		return false
	}
	args := c.argv[1:]
	switch c.program() {
	case "restorecon":
		return !slices.ContainsFunc(args, func(arg string) bool { return hasLetter(arg, "nh?", "efoT") })
	case "setfiles":
		return !slices.ContainsFunc(args, func(arg string) bool { return hasLetter(arg, "nh?", "cefoTr") })
	case "fixfiles":
		return !slices.Contains(args, "check") && !slices.Contains(args, "verify")
	}
	return false
}

// runtimesFiles tells whether an argument is a directory that nobody may relabel as a whole.
func runtimesFiles(arg string) bool {
	return strings.HasPrefix(arg, "/") && protected.Declared(path.Clean(arg))
}

// managesMode tells whether the mode is declared, so that nothing else may change it. Without a declaration in the file there is one
// elsewhere, or the operator means to get one.
func (s *situation) managesMode() bool { return s.mode != provision.Unmanaged || !s.delivered }

// changes tells whether a command writes, moves or removes a file that fits.
func (c command) changes(fits func(name string) bool) bool {
	if slices.ContainsFunc(c.writes, func(name string) bool { return fits(path.Clean(name)) }) {
		return true
	}
	if len(c.argv) == 0 {
		return false
	}
	var names []string
	options := ""
	target := ""
	for i, arg := range c.argv[1:] {
		value, long := strings.CutPrefix(arg, "--target-directory=")
		switch {
		case long:
			target = value
		case arg == "-t" && i+2 < len(c.argv):
			target = c.argv[i+2]
		case strings.HasPrefix(arg, "-"):
			options += " " + arg
		default:
			names = append(names, path.Clean(arg))
		}
	}
	last := func() bool {
		if target != "" {
			return slices.ContainsFunc(names, func(name string) bool { return fits(path.Join(target, path.Base(name))) })
		}
		if len(names) == 0 {
			return false
		}
		to := names[len(names)-1]
		return fits(to) || slices.ContainsFunc(names[:len(names)-1], func(name string) bool { return fits(path.Join(to, path.Base(name))) && to == path.Dir(seconfig.Path) })
	}
	switch c.program() {
	case "sed", "perl":
		return inPlace(options) && slices.ContainsFunc(names, fits)
	case "cp", "install", "ln", "rsync", "scp":
		return last()
	case "mv":
		return slices.ContainsFunc(names, fits) || last()
	case "tee", "rm", "unlink", "truncate", "touch", "crudini", "shred":
		return slices.ContainsFunc(names, fits)
	}
	return false
}

// inPlace finds the option -i, which may stand behind others of one letter and before the ending of a copy: -ri, -i.bak.
func inPlace(options string) bool {
	return slices.ContainsFunc(strings.Fields(options), func(o string) bool {
		letters, _, _ := strings.Cut(strings.TrimLeft(o, "-"), "e")
		return strings.HasPrefix(o, "--in-place") || !strings.HasPrefix(o, "--") && strings.Contains(letters, "i")
	})
}

// byHand finds commands in units and scripts that do by hand what selinux-provision is for.
func (c *checker) byHand(m *machine, s *situation) {
	for _, one := range m.allCommands() {
		if one.program() == path.Base(binary) {
			continue
		}
		for _, change := range changesByHand() {
			if !change.is(one, s) {
				continue
			}
			if change.note {
				c.note(one.at, one.key, change.problem, change.remedy)
			} else {
				c.add(one.at, one.key, change.problem, change.remedy)
			}
			break
		}
	}
}
