package policystore

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/selinux-provision/selinux-provision/internal/command"
	"github.com/selinux-provision/selinux-provision/internal/lazyregexp"
)

// verdict is what the tools' messages say of a build that they refused.
type verdict struct {
	part   int    // the part that they name, -1 if none
	line   int    // in it, 0 if they do not say
	reason string // in their own words: the lines that matter
	// sure says that the part cannot be built whatever else is left out. What contradicts another part is not sure: that one may be
	// the culprit.
	sure bool
	// suspects are the parts that have in them what the messages speak of, the likeliest last. Nothing is proved by that.
	suspects []int
}

// refusal tells whether semodule failed because of what it was given to build, and what it said. A tool that was killed, a
// disk that is full, memory that ended, a kernel that does not take the result and somebody else's semodule are no part's fault: what it gives then is
// the error that the build ends with.
func refusal(err error) (said string, refused bool, _ error) {
	var failed *command.ExitError
	switch {
	case !errors.As(err, &failed), failed.Code < 0, errors.Is(failed, syscall.ENOSPC), errors.Is(failed, syscall.EDQUOT), errors.Is(failed, syscall.ENOMEM),
		otherFault().MatchString(failed.Output.Stderr):
		return "", false, err
	case strings.Contains(failed.Output.Stderr, unreadConf):
		return "", false, fmt.Errorf("%w: take out of %s what libsemanage does not know", err, semanageConf)
	case unreadInput().MatchString(failed.Output.Stderr):
		return "", false, fmt.Errorf("%w (%w)", err, syscall.ENOMEM)
	}
	return failed.Output.Stderr, true, err
}

// unreadInput matches what libsemanage says, without a reason, of a file that it did not get into its memory (semanage_direct_install_file). Each that is not
// packed was written a moment ago and is not empty.
var unreadInput = lazyregexp.New(`(?m)Unable to read file \S*/in/\d+/[^/\s]+\.(cil|pp)\.?(\s|$)`)

// lockedStore is what libsemanage says when another process has the store locked (semanage_get_lock in semanage_store.c).
const lockedStore = "Could not get direct transaction lock"

// unreadConf is all that semodule says of a semanage.conf that libsemanage cannot read, but for "syntax error" if it is one.
const unreadConf = "Could not create semanage handle"

// otherFault matches what the tools say of the kernel's refusal to load and of the other errors of a file system or of a host that runs out of something (libsemanage
// semanage_reload_policy, strerror(3) in the C locale), and what is said of a tool that does not start. "No such file or directory" and "Invalid argument" are not among them:
// libsemanage adds them to anything.
var otherFault = lazyregexp.New(lockedStore + `|load_policy returned error|Could not load policy|` +
	`error while loading shared libraries|Read-only file system|Input/output error|Structure needs cleaning|Bad message|Stale file handle|Too many open files|` +
	`Resource temporarily unavailable|Permission denied|Operation not permitted`)

// The forms in which the tools name a culprit, and what they add to anything (libsepol and libsemanage 3.1 to 3.11).
var (
	atLine       = lazyregexp.New(`^(.*?) at \S*/modules/(\d+)/([^/\s]+)/(?:cil|hll):(\d+)`)
	inFile       = lazyregexp.New(`^(.*?) at line (\d+) of \S*/modules/(\d+)/([^/\s]+)/(?:cil|hll)`)
	anyMention   = lazyregexp.New(`\S*/modules/(\d+)/([^/\s:]+)/(?:cil|hll)(?::(\d+))?`)
	hllPrefix    = lazyregexp.New(`^([A-Za-z][A-Za-z0-9_.-]*): (.*)$`)
	localLine    = lazyregexp.New(`^libsemanage\.(?:parse_\w+|\w+_parse): (.*?):? \(\S*/([a-z_]+\.local): (\d+)\)`)
	localRecord  = lazyregexp.New(`^lib(?:semanage\.validate_handler: (invalid context .* specified for|seuser mapping|port overlap)|sepol\.sepol_(\w+)_modify:) `)
	telling      = lazyregexp.New(`^libsemanage\.(?:validate_handler|parse_\w+|\w+_parse): `)
	consequence  = lazyregexp.New(`could not (?:fetch|parse|construct|create|load) `)
	errnoAdded   = lazyregexp.New(` \((?:No such file or directory|Invalid argument)\)\.?$`)
	localRegex   = lazyregexp.New(`/(file_contexts\.local):\s+line (\d+) has invalid regex (.*)$`)
	invalidRegex = lazyregexp.New(`has invalid regex (.*?):\s+(.*)$`)
	unresolvable = lazyregexp.New(`^(Failed to resolve|Invalid filecon)`)
	noise        = lazyregexp.New(`^(semodule: |libsemanage\.|\(No such file or directory\)|Warning: SELinux userspace will refer|Failed to (resolve AST|build AST|generate binary|` +
		`verify cil database|compile cildb|read policy package)|Post process failed|Previous declaration|Expanded from|Binary policy creation failed|Failed post db handling|Error obtaining file context handle|` +
		`\S+: (Failed to read policy package|libsepol\.sepol_module_package_read: ))`)
	everywhere   = lazyregexp.New(`^(allow|type|role|user|class|file|dir|process|read|write|module|line|priority)$`) // words that tell no part from another
	toolFunction = lazyregexp.New(`^libsepol\.\w+: `)
	word         = lazyregexp.New(`[A-Za-z_/][A-Za-z0-9_./-]{2,}|[0-9]{2,}`)
)

// judge reads the messages of a build that was refused. In are the parts that it had.
func judge(said string, parts []part, in []int) verdict {
	v := verdict{part: -1}
	var matter, before []string // the lines that matter, and those before the one that names the part
	for line := range strings.Lines(said) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "libsemanage.semanage_compile_module: ")
		if named := mentioned(line, parts, in); named.part >= 0 && (v.part < 0 || !v.sure && named.sure) {
			v, before = named, slices.Clone(matter)
		}
		if line = plainly(line); line != "" && !noise().MatchString(line) {
			matter = append(matter, readable(line))
		}
	}
	all := strings.Join(matter, "; ")
	switch {
	case v.part < 0, strings.HasPrefix(v.reason, "allow"), strings.HasPrefix(v.reason, "neverallow"), strings.HasPrefix(v.reason, "Binary policy") && all != "":
		v.reason = clip(all) // the rule that forbids it, and what it forbids
	case v.reason == "":
		v.reason = clip(strings.Join(before, "; "))
	case len(before) > 0:
		v.reason += " (" + clip(strings.Join(before, "; ")) + ")"
	}
	if v.reason == "" {
		v.reason = "semodule does not say why: " + lastWords(said)
	}
	v.suspects = suspects(all, parts, in)
	return v
}

// plainly takes off what says nothing to whoever wrote a local file: the functions of the libraries, and an error number of long ago. "" is a
// line that says only what came of the one before.
func plainly(line string) string {
	if !telling().MatchString(line) && !toolFunction().MatchString(line) {
		return line
	}
	if consequence().MatchString(line) {
		return ""
	}
	_, line, _ = strings.Cut(errnoAdded().ReplaceAllString(line, ""), ": ")
	return line
}

// localOf names the file that has the records of which libsepol and libsemanage speak so.
func localOf(record string) string {
	switch record {
	case "seuser mapping":
		return "seusers.local"
	case "port overlap":
		return "ports.local"
	case "iface":
		return "interfaces.local"
	case "user", "port", "node", "ibpkey", "ibendport":
		return record + "s.local"
	}
	return "file_contexts.local"
}

// mentioned gives the part that one line of the messages is about.
func mentioned(line string, parts []part, in []int) verdict {
	find := func(is func(p part) bool) int {
		if i := slices.IndexFunc(in, func(i int) bool { return is(parts[i]) }); i >= 0 {
			return in[i]
		}
		return -1
	}
	module := func(priority, name string, n int) int {
		for kind, carrier := range carriers() {
			if priority != strconv.Itoa(Priority) || name != carrier {
				continue
			}
			return find(func(p part) bool {
				if p.kind == kind {
					n--
				}
				return p.kind == kind && n == 0
			})
		}
		return find(func(p part) bool { return p.kind == policyModule && p.key() == priority+"/"+name })
	}
	inLocal := func(name string) int {
		return find(func(p part) bool { return p.kind == localFile && p.name == name })
	}
	if strings.HasPrefix(line, "Previous declaration") {
		return verdict{part: -1}
	}
	v := verdict{part: -1, sure: true}
	if m := atLine().FindStringSubmatch(line); m != nil {
		v.line, _ = strconv.Atoi(m[4])
		v.part, v.reason, v.sure = module(m[2], m[3], v.line), m[1], unresolvable().MatchString(line)
	} else if m := inFile().FindStringSubmatch(line); m != nil {
		v.line, _ = strconv.Atoi(m[2])
		v.part, v.reason = module(m[3], m[4], v.line), m[1]
	} else if m := localLine().FindStringSubmatch(line); m != nil {
		v.line, _ = strconv.Atoi(m[3])
		v.part, v.reason = inLocal(m[2]), m[1]
	} else if m := localRegex().FindStringSubmatch(line); m != nil {
		v.line, _ = strconv.Atoi(m[2])
		v.part, v.reason = inLocal(m[1]), "its path is not a regular expression: "+m[3]
	} else if m := localRecord().FindStringSubmatch(line); m != nil {
		v.part, v.reason, v.sure = inLocal(localOf(m[1]+m[2])), plainly(line), m[1] != "port overlap"
	} else if m := invalidRegex().FindStringSubmatch(line); m != nil {
		v.part = find(func(p part) bool { return p.kind == fileContext && p.name == m[1] })
		v.reason = "its path is not a regular expression: " + m[2]
	} else if m := anyMention().FindStringSubmatch(line); m != nil {
		v.part, v.reason = module(m[1], m[2], 0), readable(line)
		v.sure = strings.Contains(line, "Error while reading from file")
	} else if m := hllPrefix().FindStringSubmatch(line); m != nil {
		v.part, v.reason = find(func(p part) bool { return p.lang == "pp" && p.name == m[1] }), toolFunction().ReplaceAllString(m[2], "")
	}
	if v.part >= 0 && carriers()[parts[v.part].kind] != "" {
		v.line = 0
		if parts[v.part].kind == fileContext && v.sure && !strings.Contains(v.reason, "regular expression") {
			v.reason += ": does its context exist in the policy?"
		}
	}
	return v
}

// readable puts the names of modules in place of the paths in the store, which mean nothing to whoever wrote them.
func readable(line string) string {
	return anyMention().ReplaceAllStringFunc(line, func(at string) string {
		m := anyMention().FindStringSubmatch(at)
		if m[3] != "" {
			return "line " + m[3] + " of module " + m[2] + " (priority " + m[1] + ")"
		}
		return "module " + m[2] + " (priority " + m[1] + ")"
	})
}

// clip bounds a reason: a neverallow rule can be broken by hundreds of others.
func clip(reason string) string {
	const longest = 1000
	if len(reason) <= longest {
		return reason
	}
	return strings.ToValidUTF8(reason[:longest], "") + " ..."
}

// lastWords gives the last line of the messages.
func lastWords(said string) string {
	last := ""
	for line := range strings.Lines(said) {
		if line = strings.TrimSpace(line); line != "" && (last == "" || !strings.HasPrefix(line, "semodule:") && !strings.HasPrefix(line, "(")) {
			last = readable(line)
		}
	}
	return clip(last)
}

// suspects gives the parts that have a word of the messages in them. A word counts the more the fewer parts have it.
func suspects(said string, parts []part, in []int) []int {
	score := map[int]float64{}
	seen := map[string]bool{}
	for _, w := range word().FindAllString(said, -1) {
		if seen[w] || everywhere().MatchString(w) {
			continue
		}
		seen[w] = true
		var have []int
		for _, i := range in {
			if contains(parts[i].text, w) {
				have = append(have, i)
			}
		}
		for _, i := range have {
			score[i] += 1 / float64(len(have)*len(have))
		}
	}
	var found []int
	for _, i := range in {
		if score[i] > 0 {
			found = append(found, i)
		}
	}
	slices.SortStableFunc(found, func(a, b int) int {
		switch {
		case score[a] < score[b]:
			return -1
		case score[a] > score[b]:
			return 1
		}
		return 0
	})
	return found
}

// contains reports whether the text has the word as a whole.
func contains(text []byte, w string) bool {
	for at := 0; ; {
		i := bytes.Index(text[at:], []byte(w))
		if i < 0 {
			return false
		}
		i += at
		if end := i + len(w); (i == 0 || !partOfWord(text[i-1])) && (end == len(text) || !partOfWord(text[end])) {
			return true
		}
		at = i + 1
	}
}

func partOfWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}
