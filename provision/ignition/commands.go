package ignition

import (
	"path"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"github.com/selinux-provision/selinux-provision/internal/lazyregexp"
	"github.com/selinux-provision/selinux-provision/provision"
)

// maxNesting is how deep scripts may start each other before nobody follows them any more, and maxValue how long a word may become by
// the values of variables: one that is made of itself twice is soon longer than any memory.
const (
	maxNesting = 50
	maxValue   = 4 << 10
)

// command is a program that is started, with its arguments as far as they are known before it runs.
type command struct {
	argv []string
	// writes are the files that its output goes to.
	writes []string
	// boot says that it is run when its unit starts, and not when the unit stops or is reloaded.
	boot bool
	at   provision.Position
	key  string
}

// program is the base name of what is started, "" if nothing is.
func (c command) program() string {
	if len(c.argv) == 0 {
		return ""
	}
	return path.Base(c.argv[0])
}

// commands gives what a unit starts: the programs of its Exec*= lines, what shells are told to do there, and what scripts do that are in
// the file.
func (m *machine) commands(u *unitFile) []command {
	found, known := m.started[u]
	if !known {
		if m.started == nil {
			m.started = map[*unitFile][]command{}
		}
		found = m.readCommands(u)
		m.started[u] = found
	}
	return found
}

func (m *machine) readCommands(u *unitFile) []command {
	environment, _ := m.environment(u)
	r := &commandReader{m: m, variables: variables(environment)}
	for _, o := range u.options {
		if o.section == "Service" && strings.HasPrefix(o.name, "Exec") {
			r.boot = strings.HasPrefix(o.name, "ExecStart") || o.name == "ExecCondition"
			for _, argv := range execWords(u.specified(o.value), r.variables) {
				r.run(command{argv: argv, boot: r.boot, at: o.at, key: o.key}, "", 0)
			}
		}
	}
	return r.found
}

// scripts gives what the shell scripts in the file do, whoever starts them.
func (m *machine) scripts() []command {
	if m.scripted == nil {
		r := &commandReader{m: m}
		for _, name := range m.fileNames() {
			if m.shellScript(name) {
				r.variables = map[string]string{}
				r.file(name, 0)
			}
		}
		m.scripted = r.found
	}
	return m.scripted
}

// allCommands gives what units start and what scripts do.
func (m *machine) allCommands() (all []command) {
	for _, u := range m.units() {
		all = append(all, m.commands(u)...)
	}
	return append(all, m.scripts()...)
}

// execWords takes the value of an Exec*= line apart as systemd does (systemd.service(5), "Command lines"): words, which quotes hold
// together, and commands, between which a semicolon stands alone. What stands before the first word says how it is run.
func execWords(value string, variables map[string]string) (commands [][]string) {
	var (
		argv            []string
		word            strings.Builder
		inWord, literal bool // literal: quotes or a backslash made it, so that a semicolon is one
		quote           rune
		escaped         bool
	)
	end := func() {
		if !inWord {
			return
		}
		text := word.String()
		word.Reset()
		inWord = false
		switch {
		case text == ";" && !literal:
			if len(argv) > 0 {
				commands = append(commands, argv)
			}
			argv = nil
		case !literal && strings.HasPrefix(text, "$") && !strings.HasPrefix(text, "$$") && !strings.HasPrefix(text, "${"):
			if known, ok := variables[text[1:]]; ok { // such a word becomes as many as the value has
				argv = append(argv, strings.Fields(known)...)
				break
			}
			argv = append(argv, text)
		default:
			argv = append(argv, expand(text, variables))
		}
		literal = false
	}
	for _, r := range value {
		switch {
		case escaped:
			escaped = false
			switch r {
			case 'n', 't', 'r', 's':
				word.WriteString(map[rune]string{'n': "\n", 't': "\t", 'r': "\r", 's': " "}[r])
			case '\\', '"', '\'', ' ', ';':
				word.WriteRune(r)
			default:
				word.WriteRune('\\')
				word.WriteRune(r)
			}
		case r == '\\':
			escaped, inWord, literal = true, true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, inWord, literal = r, true, true
		case quote == 0 && strings.ContainsRune(" \t\n", r):
			end()
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	end()
	if len(argv) > 0 {
		commands = append(commands, argv)
	}
	for i, argv := range commands {
		name := strings.TrimLeft(argv[0], "@-:+!|")
		if strings.Contains(argv[0][:len(argv[0])-len(name)], "@") && len(argv) > 1 {
			argv = slices.Delete(argv, 1, 2) // the name that the program sees of itself
		}
		if argv[0] = name; name == "" {
			argv = argv[1:]
		}
		commands[i] = argv
	}
	return slices.DeleteFunc(commands, func(argv []string) bool { return len(argv) == 0 })
}

var braced = lazyregexp.New(`\$\{[A-Za-z_][A-Za-z0-9_]*\}`)

// expand puts what is known into the place of ${NAME}, and makes $$ and %% what they stand for.
func expand(text string, variables map[string]string) string {
	text = braced().ReplaceAllStringFunc(text, func(variable string) string {
		if value, ok := variables[variable[2:len(variable)-1]]; ok {
			return value
		}
		return variable
	})
	return strings.NewReplacer("$$", "$", "%%", "%").Replace(text)
}

// commandReader follows what starts what.
type commandReader struct {
	m         *machine
	boot      bool
	variables map[string]string
	// followed are the scripts that were read: each is read once. Scripts that start each other, each several times, would else be
	// read as often as there are ways through them, which nobody lives to see the end of.
	followed map[followed]bool
	found    []command
}

// followed is a script: a file, or a text that is handed to a shell in some place.
type followed struct {
	text string
	at   provision.Position
	key  string
	boot bool
}

// again says whether a script was followed before, and remembers that it is.
func (r *commandReader) again(one followed) bool {
	if r.followed[one] {
		return true
	}
	if r.followed == nil {
		r.followed = map[followed]bool{}
	}
	r.followed[one] = true
	return false
}

// run adds a command, and what it starts in its turn. The input is what it is given to read, if that is known.
func (r *commandReader) run(c command, input string, depth int) {
	c.argv = unwrapped(c.argv)
	r.found = append(r.found, c)
	if len(c.argv) == 0 || depth > maxNesting {
		return
	}
	text := func(script string) {
		if !r.again(followed{script, c.at, c.key, c.boot}) {
			r.script(script, func(int) (provision.Position, string) { return c.at, c.key }, depth+1)
		}
	}
	switch base := c.program(); {
	case shell(base):
		script, file := shellArguments(c.argv[1:])
		switch {
		case script != "":
			text(script)
		case file != "":
			r.file(file, depth+1)
		default:
			text(input)
		}
	case slices.Contains([]string{"su", "runuser"}, base):
		for i, arg := range c.argv {
			if (arg == "-c" || arg == "--command") && i+1 < len(c.argv) {
				text(c.argv[i+1])
			}
		}
	case c.argv[0] == "eval":
		text(strings.Join(c.argv[1:], " "))
	case (c.argv[0] == "." || c.argv[0] == "source") && len(c.argv) > 1:
		r.file(c.argv[1], depth+1)
	default:
		r.file(c.argv[0], depth+1)
	}
}

func shell(program string) bool {
	return slices.Contains([]string{"sh", "bash", "dash", "ash"}, program)
}

// shellArguments gives the script that a shell is handed with -c, or the file that it is to read.
func shellArguments(args []string) (script, file string) {
	wants := false
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case strings.HasPrefix(arg, "--"):
		case len(arg) > 1 && (arg[0] == '-' || arg[0] == '+'):
			wants = wants || strings.Contains(arg, "c")
			if strings.HasSuffix(arg, "o") || strings.HasSuffix(arg, "O") {
				i++
			}
		case wants:
			return arg, ""
		default:
			return "", arg
		}
	}
	return "", ""
}

// shellScript tells whether a file of the machine is a script for a shell.
func (m *machine) shellScript(name string) bool {
	first, _, _ := strings.Cut(m.files[name].content, "\n")
	interpreter, ok := strings.CutPrefix(first, "#!")
	if !ok {
		return false
	}
	words := unwrapped(strings.Fields(interpreter))
	return len(words) > 0 && shell(path.Base(words[0]))
}

// file follows a script that is in the file.
func (r *commandReader) file(name string, depth int) {
	if !path.IsAbs(name) {
		return
	}
	name = r.m.real(path.Clean(name))
	if !r.m.shellScript(name) || r.again(followed{text: name, boot: r.boot}) {
		return
	}
	r.script(r.m.files[name].content, r.m.files[name].line, depth)
}

// script adds what a script does. A shell reads a command, carries it out, and reads the next one: where it cannot be understood, it
// ends.
func (r *commandReader) script(text string, line func(int) (provision.Position, string), depth int) {
	if depth > maxNesting || text == "" {
		return
	}
	parser := syntax.NewParser(syntax.Variant(syntax.LangBash))
	for statement, err := range parser.StmtsSeq(strings.NewReader(text)) {
		if err != nil {
			continue // it is the last; a loop that ends here makes the library (v3.14.1) panic, since it says the same once more
		}
		syntax.Walk(statement, func(n syntax.Node) bool {
			if s, ok := n.(*syntax.Stmt); ok {
				r.statement(s, line, depth)
			}
			return true
		})
	}
}

// statement adds one command of a script.
func (r *commandReader) statement(s *syntax.Stmt, line func(int) (provision.Position, string), depth int) {
	c := command{boot: r.boot}
	c.at, c.key = line(int(s.Pos().Line()))
	input := ""
	for _, redirect := range s.Redirs {
		switch redirect.Op {
		case syntax.RdrOut, syntax.AppOut, syntax.RdrClob, syntax.RdrAll, syntax.AppAll:
			c.writes = append(c.writes, r.word(redirect.Word))
		case syntax.Hdoc, syntax.DashHdoc:
			input = r.word(redirect.Hdoc)
		case syntax.WordHdoc:
			input = r.word(redirect.Word)
		}
	}
	if call, ok := s.Cmd.(*syntax.CallExpr); ok {
		for _, a := range call.Assigns {
			if len(call.Args) == 0 && a.Name != nil && a.Value != nil {
				if known := r.word(a.Value); len(known) <= maxValue {
					r.variables[a.Name.Value] = known
				} else {
					delete(r.variables, a.Name.Value)
				}
			}
		}
		for _, w := range call.Args {
			c.argv = append(c.argv, r.word(w))
		}
	}
	if len(c.argv) > 0 || len(c.writes) > 0 {
		r.run(c, input, depth)
	}
}

// word gives the text of a word, without its quotes. What is known only when the script runs is written as a variable.
func (r *commandReader) word(w *syntax.Word) string {
	if w == nil {
		return ""
	}
	return r.parts(w.Parts, false)
}

func (r *commandReader) parts(all []syntax.WordPart, quoted bool) string {
	var text strings.Builder
	for _, part := range all {
		switch p := part.(type) {
		case *syntax.Lit:
			text.WriteString(unescaped(p.Value, quoted))
		case *syntax.SglQuoted:
			text.WriteString(p.Value)
		case *syntax.DblQuoted:
			text.WriteString(r.parts(p.Parts, true))
		case *syntax.ParamExp:
			if p.Param == nil {
				text.WriteString("$()")
				break
			}
			if known, ok := r.variables[p.Param.Value]; ok && text.Len() <= maxValue && p.Exp == nil && !p.Length && !p.Excl && p.Slice == nil && p.Repl == nil {
				text.WriteString(known)
				break
			}
			text.WriteString("${" + p.Param.Value + "}")
		default:
			text.WriteString("$()")
		}
	}
	return text.String()
}

// unescaped takes away the backslashes of a piece of a word.
func unescaped(s string, quoted bool) string {
	var text strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && (!quoted || strings.IndexByte("\\\"$`\n", s[i+1]) >= 0) {
			if i++; s[i] == '\n' {
				continue
			}
		}
		text.WriteByte(s[i])
	}
	return text.String()
}

// wrapper is a program that starts the one that its arguments name.
type wrapper struct {
	// short are its options of one letter that take a value, long those of one word that take it from the next argument.
	short    string
	long     []string
	operands int // of its own, before the command
	// asks are the options of one letter, asksLong those of one word, with which it starts nothing: what is named is only looked for,
	// listed or changed. --help and --version are such everywhere.
	asks     string
	asksLong []string
}

// wrappers are these programs, as their manual pages have them. sudo -k is none that asks: with a command it runs it.
func wrappers() map[string]wrapper {
	return map[string]wrapper{
		"env": {short: "uC"}, "sudo": {short: "ugUhpCDRrtT", long: []string{"--user", "--group", "--host", "--prompt", "--chdir"},
			asks: "lvKeV", asksLong: []string{"--list", "--validate", "--remove-timestamp", "--edit"}},
		"doas": {short: "uC", asks: "CL"}, "nohup": {}, "exec": {short: "a"}, "command": {asks: "vV"}, "builtin": {}, "setsid": {asks: "hV"}, "time": {short: "fo", asks: "V"},
		"nice": {short: "n"}, "ionice": {short: "cn", asks: "pPuhV", asksLong: []string{"--pid", "--pgid", "--uid"}},
		"chrt": {short: "TPD", operands: 1, asks: "pmhV", asksLong: []string{"--pid", "--max"}}, "taskset": {operands: 1, asks: "phV", asksLong: []string{"--pid"}},
		"timeout": {short: "ks", operands: 1}, "chroot": {operands: 1}, "flock": {short: "wE", operands: 1, asks: "hV"}, "nsenter": {short: "tSG", asks: "hV"},
		"unshare": {short: "SGR", asks: "hV"}, "setpriv": {asks: "dhV", asksLong: []string{"--dump"}}, "stdbuf": {short: "ioe"}, "xargs": {short: "adEILlnPs"},
		"watch": {short: "n", asks: "hv"}, "strace": {short: "eopPs", asks: "hV"}, "busybox": {asksLong: []string{"--list", "--list-full", "--install", "--show"}},
		"systemd-cat": {short: "tp", asks: "h"}, "systemd-inhibit": {asks: "h", asksLong: []string{"--list"}}, "tini": {asks: "h"}, "dumb-init": {asks: "hV"},
		"systemd-run": {short: "pEuMHC", long: []string{"--unit", "--property", "--setenv", "--slice", "--machine", "--description", "--uid", "--gid", "--on-active", "--on-boot", "--on-calendar"}, asks: "h"},
	}
}

// asking tells whether an argument is an option with which the program starts nothing.
func (w wrapper) asking(arg string) bool {
	if strings.HasPrefix(arg, "--") {
		name, _, _ := strings.Cut(arg, "=")
		return name == "--help" || name == "--version" || slices.Contains(w.asksLong, name)
	}
	return hasLetter(arg, w.asks, w.short)
}

// hasLetter tells whether an argument has one of the letters of options; behind one of those that take a value there is the value.
func hasLetter(arg, letters, valued string) bool {
	if !strings.HasPrefix(arg, "-") || strings.HasPrefix(arg, "--") {
		return false
	}
	for _, letter := range arg[1:] {
		if strings.ContainsRune(letters, letter) {
			return true
		}
		if strings.ContainsRune(valued, letter) {
			return false
		}
	}
	return false
}

// unwrapped takes away what only prepares the start of another program.
func unwrapped(argv []string) []string {
	all := wrappers()
	for len(argv) > 0 {
		if name, _, ok := strings.Cut(argv[0], "="); ok && name != "" && !strings.ContainsAny(name, "/$-") {
			argv = argv[1:]
			continue
		}
		w, ok := all[path.Base(argv[0])]
		if !ok {
			return argv
		}
		rest, operands := argv[1:], w.operands
		for len(rest) > 0 {
			arg := rest[0]
			if strings.HasPrefix(arg, "-") {
				if w.asking(arg) {
					return argv
				}
				valued := len(arg) == 2 && strings.Contains(w.short, arg[1:]) || slices.Contains(w.long, arg)
				if rest = rest[1:]; valued && len(rest) > 0 {
					rest = rest[1:]
				}
				if arg == "--" && operands == 0 {
					break
				}
				continue
			}
			if operands == 0 {
				break
			}
			operands--
			rest = rest[1:]
		}
		argv = rest
	}
	return argv
}
