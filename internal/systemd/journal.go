package systemd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/printable"
)

const (
	journalSocket = "/run/systemd/journal/socket"
	identifier    = "selinux-provision"
	fieldPrefix   = "SELINUX_PROVISION_"
	messageIDKey  = "message_id"

	// sendLimit bounds the wait for a journal whose queue is full: a log line must not hold up a boot.
	sendLimit = 2 * time.Second

	maxFieldName = 64 // journald drops fields with longer names
)

// JournalStream says whether standard error goes to the journal, so that records sent there by NewJournalHandler appear in
// the place of what would be written to standard error.
func JournalStream() bool {
	return journalStream(os.Getenv("JOURNAL_STREAM"), unix.Stderr)
}

// journalStream does what systemd asks of its clients: the variable alone proves nothing, since it is inherited by those
// whose standard error was redirected later.
func journalStream(stream string, fd int) bool {
	device, inode, found := strings.Cut(stream, ":")
	dev, errDev := strconv.ParseUint(device, 10, 64)
	ino, errIno := strconv.ParseUint(inode, 10, 64)
	var st unix.Stat_t
	return found && errDev == nil && errIno == nil && unix.Fstat(fd, &st) == nil && st.Dev == dev && st.Ino == ino
}

// NewJournalHandler gives a handler that sends each record to the journal in its native form. The text of the record is
// MESSAGE, alone: what a reader of plain journalctl output must know belongs into it. Its level becomes PRIORITY, an
// attribute message_id becomes MESSAGE_ID, and every other attribute a field SELINUX_PROVISION_NAME, with groups in front
// of the name. A record that the journal does not take goes to standard error.
func NewJournalHandler() (slog.Handler, error) {
	return newJournalHandler(journalSocket, os.Stderr)
}

func newJournalHandler(socket string, fallback io.Writer) (slog.Handler, error) {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		var reason *os.SyscallError
		if errors.As(err, &reason) {
			err = reason.Err
		}
		return nil, fmt.Errorf("cannot reach the journal at %s: %w", socket, err)
	}
	return &journalHandler{out: &journal{conn: conn, fallback: fallback}}, nil
}

type journalHandler struct {
	out    *journal
	fields []field // from WithAttrs
	groups string  // from WithGroup, each with a "_" behind it
}

type field struct{ name, value string }

// Enabled takes every level: the journal has its own limits, and a debug record that was kept can be looked at later.
func (h *journalHandler) Enabled(context.Context, slog.Level) bool { return true }

// WithAttrs gives a handler that adds attributes to each record.
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.fields = append([]field(nil), h.fields...)
	for _, a := range attrs {
		next.fields = appendAttr(next.fields, h.groups, a)
	}
	return &next
}

// WithGroup gives a handler that puts a name in front of those of the attributes.
func (h *journalHandler) WithGroup(name string) slog.Handler {
	next := *h
	if name != "" {
		next.groups += name + "_"
	}
	return &next
}

// Handle sends one record.
func (h *journalHandler) Handle(_ context.Context, r slog.Record) error {
	fields := append([]field{
		{"MESSAGE", r.Message},
		{"PRIORITY", strconv.Itoa(priority(r.Level))},
		{"SYSLOG_IDENTIFIER", identifier},
	}, h.fields...)
	r.Attrs(func(a slog.Attr) bool {
		fields = appendAttr(fields, h.groups, a)
		return true
	})
	var record bytes.Buffer
	for _, f := range fields {
		f.encode(&record)
	}
	return h.out.send(record.Bytes(), priority(r.Level), r.Message)
}

func appendAttr(fields []field, groups string, a slog.Attr) []field {
	value := a.Value.Resolve()
	switch {
	case value.Kind() == slog.KindGroup:
		if a.Key != "" {
			groups += a.Key + "_"
		}
		for _, inner := range value.Group() {
			fields = appendAttr(fields, groups, inner)
		}
		return fields
	case a.Key == "":
		return fields
	case groups == "" && a.Key == messageIDKey:
		return append(fields, field{"MESSAGE_ID", value.String()})
	}
	return append(fields, field{fieldName(groups + a.Key), value.String()})
}

// fieldName gives a name that journald takes: upper-case letters, digits and underscores.
func fieldName(key string) string {
	name := []byte(fieldPrefix)
	for _, r := range strings.ToUpper(key) {
		if r < 'A' || r > 'Z' {
			if r < '0' || r > '9' {
				r = '_'
			}
		}
		name = append(name, byte(r))
	}
	return string(name[:min(len(name), maxFieldName)])
}

// priority gives the syslog level.
func priority(level slog.Level) int {
	switch {
	case level < slog.LevelInfo:
		return 7
	case level == slog.LevelInfo:
		return 6
	case level < slog.LevelWarn:
		return 5
	case level < slog.LevelError:
		return 4
	case level < slog.LevelError+4:
		return 3
	}
	return 2
}

// encode writes a field as the journal's native protocol wants it: a value with a line break goes behind its length. What does not print is
// escaped: journalctl shows fields with names of others in them as they are.
func (f field) encode(to *bytes.Buffer) {
	f.value = printable.Lines(f.value)
	to.WriteString(f.name)
	if !strings.Contains(f.value, "\n") {
		to.WriteByte('=')
	} else {
		to.WriteByte('\n')
		to.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(f.value))))
	}
	to.WriteString(f.value)
	to.WriteByte('\n')
}

type journal struct {
	mutex    sync.Mutex
	conn     *net.UnixConn
	fallback io.Writer
}

func (j *journal) send(record []byte, priority int, message string) error {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	err := j.conn.SetWriteDeadline(time.Now().Add(sendLimit))
	if err == nil {
		_, err = j.conn.Write(record)
	}
	if errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.ENOBUFS) {
		err = j.sendFile(record)
	}
	if err == nil {
		return nil
	}
	// systemd reads the number in front as the priority.
	if _, lost := fmt.Fprintf(j.fallback, "<%d>%s\n", priority, printable.Text(message)); lost != nil {
		return fmt.Errorf("cannot send a record to the journal: %w", errors.Join(err, lost))
	}
	return nil
}

// sendFile hands over a record that is too large for a datagram, in a sealed memory file as journald wants it.
func (j *journal) sendFile(record []byte) error {
	fd, err := unix.MemfdCreate("journal-record", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for rest := record; len(rest) > 0; {
		n, err := unix.Write(fd, rest)
		if err != nil && err != unix.EINTR {
			return err
		}
		rest = rest[max(n, 0):]
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return err
	}
	// net.UnixConn refuses to send descriptors over a connected datagram socket.
	raw, err := j.conn.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(socket uintptr) bool {
		for {
			if sent = unix.Sendmsg(int(socket), nil, unix.UnixRights(fd), nil, 0); sent != unix.EINTR {
				return sent != unix.EAGAIN
			}
		}
	})
	if err != nil {
		return err
	}
	return sent
}
