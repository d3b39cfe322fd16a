package avc

import (
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"
)

const (
	// chunk is what is read at once. Records are slices of chunks, so it also bounds what one kept string holds on to until
	// it is copied.
	chunk = 128 << 10
	// largestField is journald's limit of one field (DATA_SIZE_MAX). A length above it is damage.
	largestField = 768 << 20
	// longestLine bounds one line. The kernel cuts a record off at 8,970 bytes (MAX_AUDIT_MESSAGE_LENGTH); what the journal makes
	// of one in JSON is several times that.
	longestLine = 256 << 10
)

// Loss is what a log says of itself that is missing.
type Loss struct {
	// Kernel counts records that the kernel dropped because its queue was full or its rate limit passed, as its own running
	// count (audit_lost) says.
	Kernel uint64 `json:"kernel"`
	// Suppressed counts messages that the kernel kept out of its log (printk's limit) or that journald missed there. The same
	// records usually came by the audit socket.
	Suppressed uint64 `json:"suppressed"`
	// Overlong counts lines that were longer than any record can be.
	Overlong uint64 `json:"overlong"`
	// Malformed counts what looks like a record and could not be read.
	Malformed uint64 `json:"malformed"`
	// Unread is the beginning of the first of these.
	Unread string `json:"unread,omitempty"`
}

// Source gives records one by one, in the order in which they were written, and io.EOF at the end.
type Source interface {
	Next() (Record, error)
	Loss() Loss
}

// Decoder reads records from text and finds out by itself, line for line, what it is: the audit daemon's log (raw, enriched,
// or as ausearch prints it), the kernel's log (dmesg, journalctl -k, syslog), journalctl -o json, -o json-pretty or -o export, a log
// shipper's JSON with such a line in it, or journalctl's short form, which gives no serial numbers. Records that somebody pasted are read
// too: wrapped, several on one line, without their stamp, with what a web page makes of blanks and quotes.
type Decoder struct {
	in    io.Reader
	types map[string]Type

	buf     []byte   // what was read and has no line feed yet
	rest    string   // lines not yet given
	back    []string // lines to give before these, the last first
	pretty  *pretty  // an object of JSON that is not at its end
	err     error
	skip    bool // inside a line that is too long
	loss    Loss
	lostNow map[string]uint64 // the kernel's running count for each boot
}

// NewDecoder gives a Decoder for a text.
func NewDecoder(in io.Reader) *Decoder {
	return &Decoder{in: in, types: typeNames(), lostNow: map[string]uint64{}}
}

// Loss says what was missing up to now.
func (d *Decoder) Loss() Loss {
	loss := d.loss
	for _, n := range d.lostNow {
		loss.Kernel += n
	}
	return loss
}

// Next gives the next record, io.EOF behind the last one, and otherwise the error of the underlying reader. After ErrQuiet it goes on. What is no record is
// passed over.
func (d *Decoder) Next() (Record, error) {
	for {
		line, err := d.line()
		if errors.Is(err, ErrQuiet) {
			return Record{}, err
		}
		if err != nil {
			if d.pretty != nil {
				if r, ok := d.endPretty(); ok {
					return r, nil
				}
				if len(d.back) > 0 {
					continue
				}
			}
			return Record{}, err
		}
		line = tidy(line)
		var r Record
		var ok bool
		switch {
		case strings.HasPrefix(line, "type="):
			r, ok = d.logLine(d.whole(line))
		case strings.HasPrefix(line, "{") && len(line) > 1 && !strings.HasSuffix(line, "["):
			r, ok = d.jsonLine(line)
		case strings.HasPrefix(line, "__CURSOR="):
			r, ok, err = d.export()
		default:
			r, ok = d.otherLine(line)
		}
		if err != nil {
			return Record{}, err
		}
		if ok {
			return r, nil
		}
	}
}

// line gives the next line without its end.
func (d *Decoder) line() (string, error) {
	if n := len(d.back); n > 0 {
		line := d.back[n-1]
		d.back = d.back[:n-1]
		return line, nil
	}
	for {
		if end := strings.IndexByte(d.rest, '\n'); end >= 0 {
			line := d.rest[:end]
			d.rest = d.rest[end+1:]
			if d.skip {
				d.skip = false
				continue
			}
			return strings.TrimSuffix(line, "\r"), nil
		}
		if d.rest != "" { // the last line of all may lack its end
			line := d.rest
			d.rest = ""
			if d.skip {
				continue
			}
			return strings.TrimSuffix(line, "\r"), nil
		}
		if err := d.fill(); err != nil {
			return "", err
		}
	}
}

// fill reads until there is at least one whole line, and makes one string of all lines that are whole.
func (d *Decoder) fill() error {
	for {
		if d.err != nil {
			if len(d.buf) == 0 {
				return d.err
			}
			d.rest, d.buf = string(d.buf), nil
			return nil
		}
		start := len(d.buf)
		if cap(d.buf)-start < chunk {
			grown := make([]byte, start, start+chunk)
			copy(grown, d.buf)
			d.buf = grown
		}
		n, err := d.in.Read(d.buf[start : start+chunk])
		if d.buf = d.buf[:start+n]; n == 0 && errors.Is(err, ErrQuiet) {
			return err
		}
		d.err = err
		if err == nil && n == 0 {
			continue
		}
		last := lastLineFeed(d.buf[start:])
		if last < 0 {
			if len(d.buf) > longestLine {
				if !d.skip {
					d.loss.Overlong++
				}
				d.skip, d.buf = true, d.buf[:0]
			}
			continue
		}
		last += start
		d.rest = string(d.buf[:last+1])
		d.buf = d.buf[:copy(d.buf, d.buf[last+1:])]
		return nil
	}
}

func lastLineFeed(text []byte) int {
	for i := len(text) - 1; i >= 0; i-- {
		if text[i] == '\n' {
			return i
		}
	}
	return -1
}

// logLine reads "type=AVC msg=audit(1363289005.532:184): ...".
func (d *Decoder) logLine(line string) (Record, bool) {
	r := Record{Origin: OriginLog}
	return r, d.typed(&r, line)
}

// typed reads from "type=" on.
func (d *Decoder) typed(r *Record, line string) bool {
	name, rest, _ := strings.Cut(strings.TrimPrefix(line, "type="), " ")
	r.Type = d.typeOf(name)
	rest = strings.TrimPrefix(strings.TrimLeft(rest, " "), "msg=")
	if !d.stamp(r, rest) && !d.unstamped(r, rest) {
		d.lost(r.Type, line)
		return false
	}
	d.apart(r)
	return true
}

// unstamped reads a denial whose time and number somebody blotted out or left off.
func (d *Decoder) unstamped(r *Record, text string) bool {
	if !denialText(text) {
		return false
	}
	if _, after, found := strings.Cut(text, "): "); found && strings.HasPrefix(text, "audit(") {
		text = after
	}
	r.Text = text
	return true
}

// lost counts a line that is no record, if it could have been a denial. A record of another kind, which only adds to a denial, is none.
func (d *Decoder) lost(t Type, line string) {
	switch t {
	case TypeAVC, TypeUserAVC, TypeSELinuxErr, TypeUserSELinuxErr:
		d.loss.unread(line)
	}
}

// typeOf reads a type as the audit daemon names it, "AVC", or as the kernel and older daemons number it, "1400",
// "UNKNOWN[1400]".
func (d *Decoder) typeOf(name string) Type {
	if t, ok := d.types[name]; ok {
		return t
	}
	if strings.HasPrefix(name, "DAEMON_") {
		return TypeDaemon
	}
	if inner, ok := strings.CutPrefix(name, "UNKNOWN["); ok {
		name = strings.TrimSuffix(inner, "]")
	}
	n, err := strconv.ParseUint(name, 10, 16)
	if err != nil {
		return 0
	}
	return Type(n)
}

// stamp reads "audit(1363289005.532:184): " and what stands behind it. In ausearch's words the time is one that depends on its
// locale; then only the serial number counts.
func (d *Decoder) stamp(r *Record, text string) bool {
	inner, ok := strings.CutPrefix(text, "audit(")
	if !ok {
		return false
	}
	end := strings.IndexByte(inner, ')')
	if end < 0 {
		return false
	}
	r.Text = strings.TrimPrefix(strings.TrimPrefix(strings.TrimLeft(inner[end+1:], " "), ":"), " ")
	inner = inner[:end]
	colon := strings.LastIndexByte(inner, ':')
	if colon < 0 {
		return false
	}
	var err error
	if r.Serial, err = strconv.ParseUint(inner[colon+1:], 10, 64); err != nil {
		return false
	}
	r.Time, r.Words = clock(inner[:colon])
	return true
}

// clock reads the time of a stamp, which is a number as the kernel writes it. In words it is what ausearch -i makes of it.
func clock(text string) (at time.Time, words bool) {
	seconds, millis, found := strings.Cut(text, ".")
	if s, err := strconv.ParseInt(seconds, 10, 64); err == nil && found {
		if ms, err := strconv.ParseInt(millis, 10, 64); err == nil && ms >= 0 && ms < 1000 {
			return time.Unix(s, ms*1e6), false
		}
	}
	for _, layout := range []string{
		"01/02/2006 15:04:05.000", "01/02/06 15:04:05.000", "2.1.2006 15:04:05.000", "2006-01-02 15:04:05.000", "02/01/2006 15:04:05.000", "02/01/06 15:04:05.000",
	} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, true
		}
	}
	return time.Time{}, strings.ContainsAny(text, "/:-") // another locale's; what somebody blotted out has none of these
}

// otherLine reads the lines in which a record stands behind a prefix: that of the audit daemon's node, of the kernel's log, of
// syslog or journalctl.
func (d *Decoder) otherLine(line string) (Record, bool) {
	if rest, ok := strings.CutPrefix(line, "node="); ok {
		if node, rest, found := strings.Cut(rest, " "); found && strings.HasPrefix(rest, "type=") {
			r := Record{Origin: OriginLog, Node: node}
			return r, d.typed(&r, rest)
		}
	}
	if r, ok, taken := d.prettyLine(line); taken {
		return r, ok
	}
	if !strings.Contains(line, "audit") && !strings.Contains(line, "avc:") {
		return Record{}, false
	}
	if strings.Contains(line, `=\"`) { // it stood in quotes
		line = strings.ReplaceAll(line, `\"`, `"`)
	}
	r, ok := d.kernelText(d.whole(line), "")
	if ok {
		d.apart(&r)
	}
	return r, ok
}

// kernelText finds a record in a message of the kernel's log.
func (d *Decoder) kernelText(line, boot string) (Record, bool) {
	r := Record{Origin: OriginKernel, Boot: boot}
	if at := strings.Index(line, "audit("); at >= 0 {
		before := line[:at]
		if t := strings.LastIndex(before, "type="); t >= 0 {
			name, _, _ := strings.Cut(before[t+len("type="):], " ")
			r.Type = d.typeOf(name)
		} else {
			r.Type = TypeAVC // kernels before 2.6.11 wrote "audit(...): avc:  denied"
		}
		if d.stamp(&r, line[at:]) || d.unstamped(&r, line[at:]) {
			return r, true
		}
		d.lost(r.Type, line)
		return Record{}, false
	}
	if at := strings.Index(line, "audit_lost="); at >= 0 {
		number, _, _ := strings.Cut(line[at+len("audit_lost="):], " ")
		if n, err := strconv.ParseUint(number, 10, 64); err == nil {
			d.lostNow[boot] = max(d.lostNow[boot], n)
		}
		return Record{}, false
	}
	if before, _, found := strings.Cut(line, " callbacks suppressed"); found {
		if strings.Contains(before, "audit_printk_skb") || strings.Contains(before, "kauditd_printk_skb") {
			d.loss.Suppressed += lastNumber(before)
		}
		return Record{}, false
	}
	// journalctl's short form of the audit transport, "audit[123]: AVC avc:  denied", has neither serial number nor type, and a time that can be read
	// in some of its forms only.
	r.Time, r.Origin = printed(line), OriginUnknown
	for _, form := range []struct {
		word string
		typ  Type
	}{{"USER_AVC ", TypeUserAVC}, {"SELINUX_ERR ", TypeSELinuxErr}} {
		if _, text, found := strings.Cut(line, form.word); found {
			r.Type, r.Text = form.typ, text
			return r, true
		}
	}
	if at := strings.Index(line, "avc:"); at >= 0 {
		r.Type, r.Text = TypeAVC, line[at:]
		return r, true
	}
	return Record{}, false
}

// printed reads the time that journalctl or a syslog daemon puts before a line: -o short-iso, short-iso-precise, short-unix, RFC 5424. It gives zero for a
// time without a year, as in "Nov 14 22:13:20", or without a zone that is the same everywhere.
func printed(line string) time.Time {
	word, _, _ := strings.Cut(line, " ")
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05Z0700"} {
		if t, err := time.Parse(layout, word); err == nil {
			return t.Local()
		}
	}
	if seconds, micros, found := strings.Cut(word, "."); found && len(micros) == 6 {
		s, err1 := strconv.ParseInt(seconds, 10, 64)
		us, err2 := strconv.ParseUint(micros, 10, 32)
		if err1 == nil && err2 == nil {
			return time.Unix(s, int64(us)*1000)
		}
	}
	return time.Time{}
}

func lastNumber(text string) uint64 {
	fields := strings.Fields(text)
	if len(fields) == 0 {
		return 0
	}
	n, _ := strconv.ParseUint(fields[len(fields)-1], 10, 64)
	return n
}

// entry is what this package needs of a journal entry.
type entry struct {
	transport, message, auditType, auditTypeName, auditID, sourceTime, boot, host, cgroup, unit, messageID string
}

func (e *entry) set(key, value string) {
	switch key {
	case "_TRANSPORT":
		e.transport = value
	case "MESSAGE":
		e.message = value
	case "_AUDIT_TYPE":
		e.auditType = value
	case "_AUDIT_TYPE_NAME":
		e.auditTypeName = value
	case "_AUDIT_ID":
		e.auditID = value
	case "_SOURCE_REALTIME_TIMESTAMP":
		e.sourceTime = value
	case "_BOOT_ID":
		e.boot = value
	case "_HOSTNAME":
		e.host = value
	case "_SYSTEMD_CGROUP":
		e.cgroup = value
	case "_SYSTEMD_UNIT":
		e.unit = value
	case "MESSAGE_ID":
		e.messageID = value
	}
}

// missedKernelMessages is journald's MESSAGE_ID for "Missed N kernel messages" (SD_MESSAGE_JOURNAL_MISSED).
const missedKernelMessages = "e9bf28e6e834481bb6f48f548ad13606"

// record makes a record of a journal entry. What journald took off the text of an audit record it put into fields: MESSAGE is
// the type's name and what stands behind "audit(...): ". Only the kernel tells of denials: what programs write to the journal can
// look as they like, and journald alone says what it missed.
func (d *Decoder) record(e *entry) (Record, bool) {
	if e.messageID == missedKernelMessages && e.transport == "driver" {
		for _, word := range strings.Fields(e.message) {
			if n, err := strconv.ParseUint(word, 10, 64); err == nil {
				d.loss.Suppressed += n
			}
		}
		return Record{}, false
	}
	switch e.transport {
	case "audit":
	case "kernel", "": // "": a reader of the journal that leaves the field out
		if !strings.Contains(e.message, "audit") && !strings.Contains(e.message, "avc:") {
			return Record{}, false
		}
		return d.kernelText(e.message, e.boot)
	default:
		return Record{}, false
	}
	name, text, found := strings.Cut(e.message, " ")
	if !found {
		text = ""
	}
	if e.auditTypeName == "" {
		e.auditTypeName = name
	}
	r := Record{Origin: OriginAudit, Text: text, Boot: e.boot, Cgroup: e.cgroup, Unit: e.unit}
	if r.Type = d.typeOf(e.auditType); r.Type == 0 {
		r.Type = d.typeOf(e.auditTypeName)
	}
	r.Serial, _ = strconv.ParseUint(e.auditID, 10, 64)
	if us, err := strconv.ParseInt(e.sourceTime, 10, 64); err == nil {
		r.Time = time.UnixMicro(us)
	}
	return r, true
}

// jsonLine reads an entry as journalctl -o json writes it. A value is a string; null if it was too long; numbers if it is not
// UTF-8; an array of these if the field stands several times.
func (d *Decoder) jsonLine(line string) (Record, bool) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal([]byte(line), &fields); err != nil {
		d.loss.unread(line)
		return Record{}, false
	}
	var e entry
	for key, raw := range fields {
		e.set(key, jsonText(raw))
	}
	if e.transport == "" && e.message == "" {
		var value any
		if json.Unmarshal([]byte(line), &value) == nil {
			d.again(shipped(value, deepest))
		}
		return Record{}, false
	}
	return d.record(&e)
}

// deepest bounds how deep a log shipper's objects are looked into.
const deepest = 8

func jsonText(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var numbers []uint16
	if json.Unmarshal(raw, &numbers) == nil {
		bytes := make([]byte, 0, len(numbers))
		for _, n := range numbers {
			bytes = append(bytes, byte(n))
		}
		return string(bytes)
	}
	var several []json.RawMessage
	if json.Unmarshal(raw, &several) == nil && len(several) > 0 && several[0][0] != '[' {
		return jsonText(several[0])
	}
	return ""
}

// export reads the rest of an entry of the Journal Export Format, up to the empty line behind it. A line without "=" is a
// field whose value has line feeds or control characters; its length stands before it in eight bytes.
func (d *Decoder) export() (Record, bool, error) {
	var e entry
	for {
		line, err := d.line()
		if errors.Is(err, ErrQuiet) {
			continue // the rest of the entry comes
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Record{}, false, err
		}
		if line == "" {
			break
		}
		key, value, found := strings.Cut(line, "=")
		if !found {
			if value, err = d.binary(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return Record{}, false, err
			}
		}
		e.set(key, value)
	}
	r, ok := d.record(&e)
	return r, ok, nil
}

// binary reads a length of eight bytes, that many bytes, and a line feed.
func (d *Decoder) binary() (string, error) {
	size, err := d.bytes(8)
	if err != nil {
		return "", err
	}
	var n uint64
	for i := 7; i >= 0; i-- {
		n = n<<8 | uint64(size[i])
	}
	if n > largestField {
		d.loss.unread("a journal's field with an impossible length")
		return "", nil // what follows is read as lines again
	}
	if n > longestLine {
		// No record is that long. It is passed over as what it is, and not as lines, which a program could have made to look like
		// entries of the kernel.
		return "", d.discard(n + 1)
	}
	value, err := d.bytes(int(n) + 1)
	if err != nil {
		return "", err
	}
	return value[:n], nil
}

// discard passes over n bytes.
func (d *Decoder) discard(n uint64) error {
	take := min(n, uint64(len(d.rest)))
	d.rest, n = d.rest[take:], n-take
	take = min(n, uint64(len(d.buf)))
	d.buf, n = d.buf[:copy(d.buf, d.buf[take:])], n-take
	for n > 0 {
		if d.err != nil {
			return d.err
		}
		if cap(d.buf) == 0 {
			d.buf = make([]byte, 0, chunk)
		}
		var got int
		if got, d.err = d.in.Read(d.buf[:min(n, uint64(cap(d.buf)))]); errors.Is(d.err, ErrQuiet) {
			d.err = nil
		}
		n -= uint64(got)
	}
	return nil
}

func (d *Decoder) bytes(n int) (string, error) {
	for len(d.rest) < n {
		whole := d.rest
		d.rest = ""
		if err := d.fill(); err != nil && !errors.Is(err, ErrQuiet) {
			return "", err
		}
		d.rest = whole + d.rest
	}
	text := d.rest[:n]
	d.rest = d.rest[n:]
	return text, nil
}
