package avc

import (
	"encoding/hex"
	"path"
	"slices"
	"strconv"
	"strings"
)

// nextField takes the first KEY=VALUE off a text. Words without "=" are skipped: records are sprinkled with them ("for",
// "op=..., "). A value in quotes ends at the closing one; the kernel codes a value with a quote in it in hexadecimal. A value
// that nobody closed, in a record that was cut off, ends with the text.
func nextField(text string) (key, value, rest string, quoted, ok bool) {
	for {
		text = strings.TrimLeft(text, " ,\t")
		if text == "" {
			return "", "", "", false, false
		}
		end := strings.IndexAny(text, "= ")
		if end < 0 {
			return "", "", "", false, false
		}
		if text[end] != '=' {
			text = text[end:]
			continue
		}
		key, text = text[:end], text[end+1:]
		if text == "" {
			return key, "", "", false, true
		}
		if q := text[0]; q == '"' || q == '\'' {
			if end = strings.IndexByte(text[1:], q); end < 0 {
				return key, text[1:], "", true, true
			}
			return key, text[1 : 1+end], text[2+end:], true, true
		}
		if end = strings.IndexByte(text, ' '); end < 0 {
			return key, text, "", false, true
		}
		if key == "name" || key == "path" || key == "comm" || key == "exe" {
			end = interpreted(text, end)
		}
		return key, text[:end], text[end:], false, true
	}
}

// interpreted gives the end of a name whose first word ends at end. ausearch -i writes it bare: it goes on up to the next KEY=.
func interpreted(text string, end int) int {
	for end < len(text) {
		next := end + 1 + strings.IndexByte(text[end+1:], ' ')
		if next == end {
			next = len(text)
		}
		word := text[end+1 : next]
		if word == "" || strings.IndexByte(word, '=') >= 0 {
			return end
		}
		end = next
	}
	return end
}

// untrusted gives the text of a field that the kernel writes with audit_log_untrustedstring: in quotes, or in hexadecimal if it
// holds a blank, a quote, a control character or a byte beyond ASCII. Kernels before 2.6.12 wrote it bare. They could write what
// looks like hexadecimal too; capital letters of an even number tell the two apart as well as can be. What ausearch -i has put into words counts as quoted:
// it is bare, and is decoded already.
func untrusted(value string, quoted bool) string {
	if quoted || len(value) < 2 || len(value)%2 != 0 {
		return value
	}
	for i := range len(value) {
		if c := value[i]; (c < '0' || c > '9') && (c < 'A' || c > 'F') {
			return value
		}
	}
	text, err := hex.DecodeString(value)
	if err != nil {
		return value
	}
	return strings.TrimRight(string(text), "\x00")
}

// take puts one field of a message into its place.
func (d *Denial) take(key, value string, quoted bool) {
	switch key {
	case "scontext":
		d.Source = Context(bare(value))
	case "tcontext":
		d.Target = Context(bare(value))
	case "tclass":
		d.Class = bare(value)
	case "permissive": // something may stand behind it in a text that quotes a record
		switch {
		case strings.HasPrefix(value, "1"):
			d.Enforced = EnforcedNo
		case strings.HasPrefix(value, "0"):
			d.Enforced = EnforcedYes
		}
	case "pid":
		d.PID, _ = strconv.Atoi(value)
	case "comm":
		d.Comm = untrusted(value, quoted)
	case "exe":
		d.Exe = untrusted(value, quoted)
	case "path":
		d.Path = untrusted(value, quoted)
	case "name":
		d.Name = untrusted(value, quoted)
	case "dev":
		d.Dev = untrustedName(value, quoted)
	case "ino":
		d.Ino, _ = strconv.ParseUint(value, 10, 64)
	case "ioctlcmd":
		if n, err := strconv.ParseUint(strings.TrimPrefix(value, "0x"), 16, 16); err == nil {
			d.Ioctl = append(d.Ioctl, uint16(n))
		} else {
			d.Extra = append(d.Extra, Field{key, value})
		}
	case "srawcon", "trawcon", "invalid_context": // from a file system, or from whoever asked for it
		d.Extra = append(d.Extra, Field{key, untrusted(value, quoted)})
	default:
		d.Extra = append(d.Extra, Field{key, value})
	}
}

// behind is what can stand behind the last word of a record that somebody quotes.
const behind = "`\"'.,;)]}>"

// bare takes off what stands behind the last word of a quoted record, and what a line feed or another control character has become on its way: #012 in
// rsyslog, \n in JSON. No name of a policy ends so, or has that in it.
func bare(value string) string {
	if escaped := strings.IndexAny(value, `#\`); escaped > 0 {
		value = value[:escaped]
	}
	if n := len(value); n == 0 || strings.IndexByte(behind, value[n-1]) < 0 {
		return value
	}
	return strings.TrimRight(value, behind)
}

// raw takes off what the audit daemon's enriched format adds behind a group separator: it repeats in words what stands before it.
// A name in the record itself can have such a byte too, that of a network interface, and nothing after it may be hidden by that.
func raw(text string) string {
	if before, after, found := strings.Cut(text, "\x1d"); found && !strings.Contains(after, "tclass=") && !strings.Contains(after, "context=") {
		return before
	}
	return text
}

// untrustedName is untrusted for names that are short and can be digits: the device "10" is not a line feed.
func untrustedName(value string, quoted bool) string {
	if len(value) < 6 {
		return value
	}
	return untrusted(value, quoted)
}

// parse takes a message apart. It gives false for one that reports no decision, such as "avc: received setenforce notice".
func (d *Denial) parse(r *Record) bool {
	d.reset()
	d.Type, d.Time, d.Serial, d.Node, d.Boot, d.Cgroup, d.Unit = r.Type, r.Time, r.Serial, r.Node, r.Boot, r.Cgroup, r.Unit
	d.words = r.Words
	whole := false
	switch r.Type {
	case TypeAVC:
		whole = d.parseAVC(r.Text)
	case TypeSELinuxErr:
		whole = d.parseError(r.Text)
	case TypeUserAVC, TypeUserSELinuxErr:
		whole = d.parseUser(r)
	}
	return whole && (!r.mayBeCut() || !endsIn(r.Text, "tclass", d.Class))
}

// parseAVC reads "avc:  denied  { read write } for  pid=1 comm="x" ...".
func (d *Denial) parseAVC(text string) bool {
	_, text, found := strings.Cut(text, "avc:")
	if !found {
		return false
	}
	text = strings.TrimLeft(text, " ")
	switch {
	case strings.HasPrefix(text, "denied"):
		d.Kind = Denied
	case strings.HasPrefix(text, "granted"):
		d.Kind = Granted
	default:
		return false
	}
	open := strings.IndexByte(text, '{')
	if open < 0 {
		return false
	}
	length := strings.IndexByte(text[open:], '}')
	if length < 0 {
		return false
	}
	d.Permissions = appendWords(d.Permissions, text[open+1:open+length])
	d.takeAll(text[open+length+1:])
	return len(d.Permissions) > 0 && d.Source != "" && d.Class != ""
}

func appendWords(words []string, text string) []string {
	for {
		text = strings.TrimLeft(text, " ")
		if text == "" {
			return words
		}
		end := strings.IndexByte(text, ' ')
		if end < 0 {
			end = len(text)
		}
		words = append(words, text[:end])
		text = text[end:]
	}
}

func (d *Denial) takeAll(text string) {
	text = raw(text)
	for {
		key, value, rest, quoted, ok := nextField(text)
		if !ok {
			return
		}
		d.take(key, value, quoted || d.words)
		text = rest
	}
}

// parseUser reads a userspace object manager's message: its own fields, then the decision in msg='...', in which paths and
// command lines are in quotes and not coded. The pid before msg is the object manager's; who asked is in spid, if anywhere.
func (d *Denial) parseUser(r *Record) bool {
	manager, inner, found := strings.Cut(r.Text, "msg='")
	if !found {
		inner, manager = manager, ""
	}
	if end := strings.LastIndexByte(inner, '\''); end >= 0 {
		inner = inner[:end]
	}
	if r.Type == TypeUserSELinuxErr {
		if !d.parseError(inner) {
			return false
		}
	} else if !d.parseAVC(inner) {
		return false
	}
	d.PID = 0
	if spid := d.Field("spid"); spid != "" {
		d.PID, _ = strconv.Atoi(spid)
	}
	manager = raw(manager)
	for {
		key, value, rest, _, ok := nextField(manager)
		if !ok {
			return true
		}
		if key == "pid" || key == "subj" {
			d.Extra = append(d.Extra, Field{"manager_" + key, value})
		}
		manager = rest
	}
}

// parseError reads the forms of SELINUX_ERR. Since 3.16:
//
//	op=security_compute_sid invalid_context="u:r:t:l" scontext=... tcontext=... tclass=process
//	op=security_bounded_transition seresult=denied oldcontext=... newcontext=...
//	op=security_validate_transition seresult=denied oldcontext=... newcontext=... taskcontext=... tclass=file
//	op=setxattr invalid_context=...
//	op=security_compute_av reason=bounds scontext=... tcontext=... tclass=process perms=siginh,rlimitinh
//
// and before that "security_compute_sid:  invalid context C for scontext=..." and "security_validate_transition:  denied for ...".
func (d *Denial) parseError(text string) bool {
	d.Kind = Invalid
	for _, old := range []struct{ begins, kind string }{
		{"security_compute_sid:", "invalid context "}, {"security_validate_transition:", ""}, {"security_bounded_transition:", ""},
	} {
		at := strings.Index(text, old.begins)
		if at < 0 {
			continue
		}
		d.Op = strings.TrimSuffix(old.begins, ":")
		if _, after, found := strings.Cut(text, "invalid context "); found && old.kind != "" {
			d.Context, text, _ = strings.Cut(after, " ")
		}
	}
	d.takeAll(text)
	kept := d.Extra[:0]
	for _, f := range d.Extra {
		switch f.Key {
		case "op":
			d.Op = f.Value
		case "invalid_context":
			d.Context = f.Value
		case "newcontext":
			d.Context = f.Value
			kept = append(kept, f)
		case "oldcontext":
			if d.Source == "" {
				d.Source = Context(f.Value)
			}
			kept = append(kept, f)
		default:
			kept = append(kept, f)
		}
	}
	d.Extra = kept
	d.refused()
	return d.Op != "" && (d.Context != "" || d.Source != "")
}

// The operations whose contexts are valid, and which are refused all the same.
const (
	// OpBounded is a transition that no_new_privs or a mount with nosuid allows only into a domain with fewer rights.
	OpBounded = "security_bounded_transition"
	// OpValidate is a change of a file's label that a constraint (validatetrans) forbids. The source is who wanted it, the target the new label;
	// the old one is in the field oldcontext.
	OpValidate = "security_validate_transition"
	// OpBounds is an access of a type that is bounded (typebounds) by another one, which may not do it (security_dump_masked_av).
	OpBounds = "security_compute_av"
)

// refused makes a denial of an error that is one: valid contexts, and what was wanted is not allowed.
func (d *Denial) refused() {
	switch d.Op {
	case OpBounded: // since 4.14 the kernel asks for this permission first
		d.Class, d.Permissions = "process2", append(d.Permissions, "nnp_transition")
	case OpBounds:
		d.Kind, d.Permissions = Denied, append(d.Permissions, strings.FieldsFunc(d.Field("perms"), func(r rune) bool { return r == ',' })...)
		d.Extra = slices.DeleteFunc(d.Extra, func(f Field) bool { return f.Key == "perms" })
		return
	case OpValidate:
		d.Source, d.Permissions = Context(d.Field("taskcontext")), append(d.Permissions, "relabelto")
	default:
		return
	}
	d.Kind, d.Target, d.Context = Denied, Context(d.Context), ""
}

// addCompanion takes from another record of the event what the denial itself does not say.
func (d *Denial) addCompanion(r *Record) {
	switch r.Type {
	case TypeSyscall:
		d.addSyscall(r)
	case TypeAVCPath:
		if path, ok := fieldOf(r, "path"); ok && d.Path == "" {
			d.Path = path
		}
	case TypePath:
		d.addPath(r)
	case TypeCwd:
		d.cwd, _ = fieldOf(r, "cwd") // comes before the PATH records that are relative to it
	case TypeProctitle:
		if title, ok := fieldOf(r, "proctitle"); ok {
			d.Extra = append(d.Extra, Field{"proctitle", strings.ReplaceAll(title, "\x00", " ")})
		}
	}
}

func (d *Denial) addSyscall(r *Record) {
	text := raw(r.Text)
	for {
		key, value, rest, quoted, ok := nextField(text)
		if !ok {
			return
		}
		text, quoted = rest, quoted || r.Words
		switch key {
		case "success":
			if d.Enforced == EnforcedUnknown && d.Kind == Denied && d.Op != OpBounds { // which is taken away in every mode
				d.Enforced = EnforcedNo
				if value == "no" {
					d.Enforced = EnforcedYes
				}
			}
		case "pid":
			if d.PID == 0 && (d.Type == TypeAVC || d.Type == TypeSELinuxErr) {
				d.PID, _ = strconv.Atoi(value)
			}
		case "subj": // a context that is not valid was asked for, and that record does not say by whom
			if d.Source == "" {
				d.Source = Context(value)
			}
		case "exe":
			if d.Exe == "" {
				d.Exe = untrusted(value, quoted)
			}
		case "comm":
			if d.Comm == "" {
				d.Comm = untrusted(value, quoted)
			}
		case "syscall", "arch", "exit":
			d.Extra = append(d.Extra, Field{key, value})
		}
	}
}

// addPath uses a PATH record that is certainly of the denial's own inode.
func (d *Denial) addPath(r *Record) {
	if d.Path != "" || d.Ino == 0 {
		return
	}
	if inode, ok := fieldOf(r, "inode"); !ok || inode != strconv.FormatUint(d.Ino, 10) {
		return
	}
	name, ok := fieldOf(r, "name")
	if !ok || name == "(null)" {
		return
	}
	if !strings.HasPrefix(name, "/") && strings.HasPrefix(d.cwd, "/") {
		name = path.Join(d.cwd, name)
	}
	d.Path = name
}

// fieldOf gives one field of a companion record.
func fieldOf(r *Record, key string) (string, bool) {
	text := raw(r.Text)
	for {
		k, value, rest, quoted, ok := nextField(text)
		if !ok {
			return "", false
		}
		if k == key {
			if key == "inode" {
				return value, true
			}
			return untrusted(value, quoted || r.Words), true
		}
		text = rest
	}
}
