package avc

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/selinux-provision/selinux-provision/internal/lazyregexp"
)

// What people paste has been through terminals, mails, trackers and log shippers. This file undoes what those do to a record. A log as the
// host wrote it has none of it: what is done for each line is a look for bytes that are not there.

const (
	// longestWrapped bounds what wrapped lines are joined to: the kernel's longest record (MAX_AUDIT_MESSAGE_LENGTH in include/linux/audit.h), with what
	// a log has before it.
	longestWrapped = 8970 + 256
	// mostLines bounds the lines that it can have, at 80 columns.
	mostLines = 8970 / 80
)

// tidy takes off what formatting adds: no-break spaces, typographic quotes, HTML entities, colours. The kernel writes none of these: a name
// that has them is in hexadecimal.
func tidy(line string) string {
	if strings.IndexByte(line, 0xc2) >= 0 || strings.IndexByte(line, 0xe2) >= 0 {
		line = strings.NewReplacer("\u00a0", " ", "\u2007", " ", "\u202f", " ", "\u200b", "", "\u201c", `"`, "\u201d", `"`, "\u201e", `"`, "\u2018", "'", "\u2019", "'").Replace(line)
	}
	if strings.IndexByte(line, '&') >= 0 {
		line = strings.NewReplacer("&quot;", `"`, "&#34;", `"`, "&nbsp;", " ", "&#39;", "'", "&gt;", ">", "&lt;", "<", "&amp;", "&").Replace(line)
	}
	if strings.Contains(line, "=3D") && quotedPrintable().MatchString(line) {
		line = strings.NewReplacer("=3D", "=", "=20", " ", "=22", `"`, "=27", "'").Replace(strings.TrimSuffix(line, "="))
	}
	if strings.Contains(line, `=""`) && csvQuotes().MatchString(line) {
		line = strings.ReplaceAll(line, `""`, `"`)
	}
	if strings.Contains(line, "\x1b[") {
		line = uncoloured(line)
	}
	return line
}

var (
	// quotedPrintable tells a record in that coding of mails. The kernel's hexadecimal can begin with 3D as well, but not as a number, or in quotes.
	quotedPrintable = lazyregexp.New(`=3D"|(pid|ino|src|dest|context|tclass|permissive)=3D`)
	// csvQuotes tells a record in a field of a table in which each quote stands twice.
	csvQuotes = lazyregexp.New(`[a-z]=""[^" ]`)
)

// uncoloured takes off the sequences with which a terminal is told to change colours.
func uncoloured(line string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(line, "\x1b[")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		end := strings.IndexFunc(after, func(r rune) bool { return r >= '@' && r <= '~' })
		if end < 0 {
			return b.String()
		}
		line = after[end+1:]
	}
}

// denialText tells whether a text has a decision of the access vector cache in it, or an error of SELinux.
func denialText(text string) bool {
	return strings.Contains(text, "avc:") || strings.Contains(text, "op=security_") || strings.Contains(text, "security_compute_sid:") ||
		strings.Contains(text, "invalid_context=")
}

// apart cuts off what is a record of its own and stands behind one on the same line; it is the next line then. What a userspace object manager
// says stands in quotes and can look as somebody likes: there only what follows the last quote can be another record.
func (d *Decoder) apart(r *Record) {
	text, from := r.Text, 0
	if first := strings.IndexByte(text, '{'); strings.IndexByte(text, '(') < 0 && strings.IndexByte(text[first+1:], '{') < 0 {
		return // neither another stamp nor another decision
	}
	if r.Type == TypeUserAVC || r.Type == TypeUserSELinuxErr {
		from = strings.LastIndexByte(text, '\'') + 1
	}
	for at := from; ; {
		next := strings.Index(text[at:], "type=")
		if next < 0 {
			break
		}
		at += next
		if before, separate := cutFeed(text[:at]); separate && at > 0 && beginsRecord(text[at:]) {
			r.Text = before
			d.back = append(d.back, text[at:])
			return
		}
		at += len("type=")
	}
	if r.Type == TypeAVC && len(text) > len("avc:") {
		if at := strings.Index(text[len("avc:"):], " avc:"); at >= 0 {
			at += len("avc:")
			r.Text = text[:at]
			d.back = append(d.back, text[at+1:])
		}
	}
}

// cutFeed takes off what stands between two records on one line: a blank, or what a line feed has become on its way.
func cutFeed(text string) (before string, separate bool) {
	for _, feed := range []string{" ", `\r\n`, `\n`, "#015#012", "#012"} {
		if before, found := strings.CutSuffix(text, feed); found {
			return before, true
		}
	}
	return text, false
}

// beginsRecord tells whether a record begins with a text that begins with "type=".
func beginsRecord(text string) bool {
	_, rest, found := strings.Cut(text, " ")
	rest = strings.TrimLeft(rest, " ")
	return found && (strings.HasPrefix(rest, "msg=audit(") || strings.HasPrefix(rest, "audit(") || strings.HasPrefix(rest, "avc:"))
}

// whole gives a record that was wrapped, as one line. Lines that do not make a whole one of it stay lines.
func (d *Decoder) whole(line string) string {
	missing := lacks(line)
	if missing == nothing {
		return line
	}
	var read []string // behind the first
	joined := joinedLines{soft: line, hard: line, width: len(line), even: true}
	kept, text := 0, line // lines that make a record, even if it is not known to be all of it
	enough := missing == theMode
	for len(read) < mostLines {
		next, err := d.line()
		if err != nil {
			break
		}
		next = tidy(next)
		if begins(next) && !goesOn(missing, next) || joined.size()+len(next) > longestWrapped {
			d.back = append(d.back, next)
			break
		}
		read = append(read, next)
		joined.add(next)
		if missing = lacks(joined.text()); missing == nothing {
			return joined.text()
		}
		if enough {
			break // the mode stands on the line behind the class, or nowhere
		}
		if missing == theMode {
			enough, kept, text = true, len(read), joined.text()
		}
	}
	for _, unused := range slices.Backward(read[kept:]) {
		d.back = append(d.back, unused)
	}
	return text
}

// lack is what a line needs to be a whole record.
type lack uint8

const (
	nothing     lack = iota
	theStamp         // the end of "audit(...)"
	theDecision      // "avc:" and all that follows
	theClass         // and what stands before it
	theMode          // "permissive=", which kernels before 3.17 do not write
)

func lacks(line string) lack {
	if strings.HasSuffix(line[:max(0, len(line)-1)], " permissive=") {
		return nothing
	}
	at := strings.Index(line, "avc:")
	if at < 0 {
		return lacksBeginning(line)
	}
	for { // of several on one line the last can be cut off
		next := strings.Index(line[at+len("avc:"):], "avc:")
		if next < 0 {
			break
		}
		at += len("avc:") + next
	}
	text := line[at+len("avc:"):]
	if i := strings.Index(text, "tclass="); i >= 0 {
		if mode := strings.Index(text[i:], "permissive="); mode >= 0 && len(text[i:]) > mode+len("permissive=") {
			return nothing
		}
		return theMode
	}
	for _, word := range []string{"denied", "granted"} {
		if text = strings.TrimLeft(text, " "); strings.HasPrefix(text, word) || strings.HasPrefix(word, text) {
			return theClass
		}
	}
	return nothing // a notice
}

// lacksBeginning is lacks for a line that does not come as far as a decision.
func lacksBeginning(line string) lack {
	at := strings.Index(line, "audit(")
	if at < 0 {
		return nothing
	}
	end := strings.IndexByte(line[at:], ')')
	if end < 0 {
		return theStamp
	}
	if before := line[:at]; strings.HasPrefix("avc:", strings.TrimLeft(line[at+end+1:], " :")) && (strings.Contains(before, "type=AVC ") || strings.Contains(before, "type=1400 ")) {
		return theDecision
	}
	return nothing
}

// begins tells whether a line is no continuation of a record.
func begins(line string) bool {
	text := strings.TrimLeft(line, margin)
	return text == "" || strings.HasPrefix(text, "{\"") || strings.HasPrefix(text, "__CURSOR=") || strings.HasPrefix(text, "----") || strings.HasPrefix(text, "time->") ||
		strings.Contains(text, "avc:") || strings.Contains(text, "type=") && beginsRecord(text[strings.Index(text, "type="):]) ||
		strings.Contains(text, "audit(") || strings.Contains(text, "audit:") || strings.Contains(text, "audit[") || strings.Contains(text, "kernel:")
}

// goesOn tells whether a line that looks like a beginning is what the line before it lacks.
func goesOn(missing lack, line string) bool {
	switch missing {
	case theStamp: // it was cut in the middle of "audit(1700000000.123:45): "
		return strings.HasPrefix(strings.TrimLeft(line, "0123456789.:"+margin), "):")
	case theDecision:
		return strings.HasPrefix(strings.TrimLeft(line, ":"+margin), "avc:")
	}
	return false
}

// joinedLines puts the lines of one record together. A terminal breaks at its width, a program that wraps at words takes a blank away. Of two lines
// nobody knows which it was; what the second begins with tells most likely.
type joinedLines struct {
	soft, hard string // as a program that wraps at words would have had it, and as a terminal
	width      int    // of the first line
	even       bool   // all lines up to the last but one are as long as the first
	last       int    // length of the last one
	lines      int    // behind the first
}

func (j *joinedLines) add(next string) {
	indent := len(j.soft) - len(strings.TrimLeft(j.soft, margin))
	j.even = j.even && (j.lines == 0 || j.last == j.width)
	j.hard += next[min(indent, len(next)):]
	j.last = len(next)
	j.lines++
	next = strings.TrimLeft(next, margin)
	open := strings.LastIndexByte(j.soft, '{') > strings.LastIndexByte(j.soft, '}')
	if open && !strings.HasSuffix(j.soft, " ") || startsWord(next) {
		j.soft += " "
	}
	j.soft += next
}

// text gives the record. That lines were broken at one width two of them show, and a third that is shorter.
func (j *joinedLines) text() string {
	if j.even && j.lines > 1 {
		return j.hard
	}
	return j.soft
}

func (j *joinedLines) size() int { return max(len(j.soft), len(j.hard)) }

// margin is what stands before the lines of a text that is quoted or indented.
const margin = " \t>|"

// startsWord tells whether a text begins with a field of a denial or a word that stands between its fields.
func startsWord(text string) bool {
	for _, word := range []string{"denied ", "granted ", "avc:", "for ", "{", "}"} {
		if strings.HasPrefix(text, word) {
			return true
		}
	}
	key, _, found := strings.Cut(text, "=")
	return found && slices.Contains([]string{
		"pid", "comm", "exe", "name", "path", "dev", "ino", "scontext", "tcontext", "tclass", "permissive", "capability", "ioctlcmd", "key", "trawcon", "srawcon",
		"laddr", "lport", "faddr", "fport", "saddr", "src", "daddr", "dest", "netif", "sauid", "hostname", "addr", "terminal", "msg",
	}, key)
}

// pretty is an object of JSON that stands on several lines, as journalctl -o json-pretty and dmesg --json write them.
type pretty struct {
	entry entry
	texts []string // values that look like records
}

// prettyLine reads a line of such an object. It gives false if the line is none.
func (d *Decoder) prettyLine(line string) (r Record, ok, taken bool) {
	text := strings.TrimSpace(line)
	opens := strings.HasSuffix(text, "{") || strings.HasSuffix(text, "[")
	switch {
	case d.pretty == nil:
		if opens && (text == "{" || text == "[" || text == "[{" || strings.HasPrefix(text, `{"`)) {
			d.pretty = &pretty{}
			return Record{}, false, true
		}
		return Record{}, false, false
	case strings.HasPrefix(text, "}") || strings.HasPrefix(text, "]"):
		r, ok = d.endPretty()
		if opens || strings.HasSuffix(text, ",") {
			d.pretty = &pretty{}
		}
		return r, ok, true
	case strings.HasPrefix(text, `"`):
		key, value, found := pair(text)
		if found {
			d.pretty.entry.set(key, value)
			if denialText(value) {
				d.pretty.texts = append(d.pretty.texts, value)
			}
		}
		return Record{}, false, true
	case opens:
		return Record{}, false, true
	}
	d.pretty = nil
	return Record{}, false, false
}

// pair takes `"KEY" : "VALUE",` apart.
func pair(text string) (key, value string, ok bool) {
	decoder := json.NewDecoder(strings.NewReader("{" + strings.TrimSuffix(text, ",") + "}"))
	var fields map[string]json.RawMessage
	if decoder.Decode(&fields) != nil || len(fields) != 1 {
		return "", "", false
	}
	for k, raw := range fields {
		key, value = k, jsonText(raw)
		if value == "" {
			value = string(raw)
		}
	}
	return key, value, true
}

func (d *Decoder) endPretty() (Record, bool) {
	p := d.pretty
	d.pretty = nil
	if p.entry.transport != "" {
		return d.record(&p.entry)
	}
	d.again(p.texts)
	return Record{}, false
}

// again has texts that stood in something else read as lines. A shipper may give the same record in several fields.
func (d *Decoder) again(texts []string) {
	var lines []string
	for _, text := range texts {
		for line := range strings.Lines(text) {
			line = strings.TrimRight(line, "\r\n")
			if denialText(line) && !strings.HasPrefix(line, "__CURSOR=") && len(line) <= longestLine && !slices.Contains(lines, line) {
				lines = append(lines, line)
			}
		}
	}
	slices.Reverse(lines)
	d.back = append(d.back, lines...)
}

// shipped finds the texts in a value of JSON that look like records, however deep.
func shipped(value any, depth int) (texts []string) {
	switch v := value.(type) {
	case string:
		if denialText(v) {
			texts = append(texts, v)
		}
	case []any:
		for _, one := range v {
			if depth > 0 {
				texts = append(texts, shipped(one, depth-1)...)
			}
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if depth > 0 {
				texts = append(texts, shipped(v[key], depth-1)...)
			}
		}
	}
	return texts
}

// unread keeps the beginning of the first line that looks like a denial and could not be read.
func (l *Loss) unread(line string) {
	l.Malformed++
	if l.Unread == "" {
		const longest = 120
		line = strings.ToValidUTF8(strings.TrimSpace(line), "\ufffd")
		if len(line) > longest {
			line = line[:longest]
			for !utf8.ValidString(line) {
				line = line[:len(line)-1]
			}
			line += "..."
		}
		l.Unread = strings.Clone(line)
	}
}
