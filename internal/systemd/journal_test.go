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
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/slogtest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/printable"
)

// journald is a socket that takes records as the journal does.
type journald struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func listen(t *testing.T) *journald {
	t.Helper()
	dir, err := os.MkdirTemp("", "journal") //nolint:usetesting // the name of a socket has room for 107 bytes only
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "socket")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		os.RemoveAll(dir)
	})
	return &journald{t, conn, path}
}

// receive gives the next record, from the datagram or from the file that came with it.
func (j *journald) receive() []byte {
	j.t.Helper()
	if err := j.conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		j.t.Fatal(err)
	}
	buf, oob := make([]byte, 1<<20), make([]byte, 128)
	n, nOOB, _, _, err := j.conn.ReadMsgUnix(buf, oob)
	if err != nil {
		j.t.Fatal(err)
	}
	if nOOB == 0 {
		return buf[:n]
	}
	messages, err := unix.ParseSocketControlMessage(oob[:nOOB])
	if err != nil {
		j.t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		j.t.Fatal(fds, err)
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if got, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GET_SEALS, 0); got != seals || err != nil {
		j.t.Errorf("seals %#x, %v", got, err)
	}
	file := os.NewFile(uintptr(fds[0]), "record")
	defer file.Close()
	var content []byte
	for {
		part := make([]byte, 64<<10)
		n, err := file.ReadAt(part, int64(len(content)))
		content = append(content, part[:n]...)
		if errors.Is(err, io.EOF) {
			return content
		}
		if err != nil {
			j.t.Fatal(err)
		}
	}
}

// decode reads the native protocol.
func decode(record []byte) (map[string]string, error) {
	fields := map[string]string{}
	for len(record) > 0 {
		line, rest, found := bytes.Cut(record, []byte("\n"))
		if !found {
			return nil, fmt.Errorf("no line break behind %q", line)
		}
		name, value, plain := bytes.Cut(line, []byte("="))
		if !plain {
			if len(rest) < 8 {
				return nil, fmt.Errorf("no length behind %q", line)
			}
			length := binary.LittleEndian.Uint64(rest)
			if rest = rest[8:]; uint64(len(rest)) < length+1 || rest[length] != '\n' {
				return nil, fmt.Errorf("wrong length behind %q", line)
			}
			value, rest = rest[:length], rest[length+1:]
		}
		if _, twice := fields[string(name)]; twice {
			return nil, fmt.Errorf("field %s twice", name)
		}
		fields[string(name)], record = string(value), rest
	}
	return fields, nil
}

func (j *journald) fields() map[string]string {
	j.t.Helper()
	fields, err := decode(j.receive())
	if err != nil {
		j.t.Fatal(err)
	}
	return fields
}

func TestJournalRecord(t *testing.T) {
	server := listen(t)
	handler, err := newJournalHandler(server.path, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(handler).With("stage", "policy").WithGroup("g").With("a-b", 1)
	log.WithGroup("").Error("cannot compile it:\nline 3", "error", errors.New("two\nlines"), slog.Group("in", "x", true, slog.Group("", "y", 2)),
		"", "dropped", "took", 3*time.Second, "ünï", "ü")
	want := map[string]string{
		"MESSAGE": "cannot compile it:\nline 3", "PRIORITY": "3", "SYSLOG_IDENTIFIER": "selinux-provision",
		"SELINUX_PROVISION_STAGE": "policy", "SELINUX_PROVISION_G_A_B": "1", "SELINUX_PROVISION_G_ERROR": "two\nlines",
		"SELINUX_PROVISION_G_IN_X": "true", "SELINUX_PROVISION_G_IN_Y": "2", "SELINUX_PROVISION_G_TOOK": "3s",
		"SELINUX_PROVISION_G__N_": "ü",
	}
	if got := server.fields(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}

	slog.New(handler).Info("", "message_id", "f3a1", slog.Group("x", "message_id", "no"))
	want = map[string]string{
		"MESSAGE": "", "PRIORITY": "6", "SYSLOG_IDENTIFIER": "selinux-provision", "MESSAGE_ID": "f3a1", "SELINUX_PROVISION_X_MESSAGE_ID": "no",
	}
	if got := server.fields(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestJournalPriorities(t *testing.T) {
	for level, want := range map[slog.Level]int{
		slog.LevelDebug: 7, -1: 7, slog.LevelInfo: 6, slog.LevelInfo + 2: 5, slog.LevelWarn: 4, slog.LevelWarn + 1: 4,
		slog.LevelError: 3, slog.LevelError + 4: 2,
	} {
		if got := priority(level); got != want {
			t.Errorf("%v: %d", level, got)
		}
	}
	if !new(journalHandler).Enabled(t.Context(), slog.LevelDebug) {
		t.Error("debug records are dropped")
	}
}

// A record that does not fit into a datagram arrives all the same.
func TestJournalLargeRecord(t *testing.T) {
	server := listen(t)
	handler, err := newJournalHandler(server.path, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("0123456789\n", 100_000)
	done := make(chan error)
	go func() {
		r := slog.NewRecord(time.Now(), slog.LevelInfo, "large", 0)
		r.AddAttrs(slog.String("output", long))
		done <- handler.Handle(context.Background(), r)
	}()
	if got := server.fields(); got["SELINUX_PROVISION_OUTPUT"] != long || got["MESSAGE"] != "large" {
		t.Errorf("%d fields, %d bytes", len(got), len(got["SELINUX_PROVISION_OUTPUT"]))
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// What others wrote reaches the journal, and what is said in its place, as text that prints, in the message and in every field.
func TestJournalHostile(t *testing.T) {
	server := listen(t)
	var rest bytes.Buffer
	handler, err := newJournalHandler(server.path, &rest)
	if err != nil {
		t.Fatal(err)
	}
	const hostile, shown = "a\x7f\u202eb\x1b[2J\xff", `a\x7f\u202eb\x1b[2J\xff`
	log := slog.New(handler).With("target", hostile)
	log.Info(hostile+"\nthe second line", "error", errors.New(hostile), slog.Group("in", "x", hostile))
	want := map[string]string{
		"MESSAGE": shown + "\nthe second line", "PRIORITY": "6", "SYSLOG_IDENTIFIER": "selinux-provision",
		"SELINUX_PROVISION_TARGET": shown, "SELINUX_PROVISION_ERROR": shown, "SELINUX_PROVISION_IN_X": shown,
	}
	if got := server.fields(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	server.conn.Close()
	log.Info(hostile + "\n<0>another")
	if want := "<6>" + shown + `\n<0>another` + "\n"; rest.String() != want {
		t.Errorf("got %q, want %q", rest.String(), want)
	}
}

// What the journal does not take is still said, with its priority.
func TestJournalGone(t *testing.T) {
	server := listen(t)
	var rest bytes.Buffer
	handler, err := newJournalHandler(server.path, &rest)
	if err != nil {
		t.Fatal(err)
	}
	server.conn.Close()
	slog.New(handler).Warn("still here", "x", 1)
	if rest.String() != "<4>still here\n" {
		t.Errorf("%q", rest.String())
	}
	lost := &journalHandler{out: &journal{conn: handler.(*journalHandler).out.conn, fallback: broken{}}}
	if err := lost.Handle(t.Context(), slog.NewRecord(time.Now(), 0, "x", 0)); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}

	_, err = newJournalHandler(server.path+"-none", io.Discard)
	if want := "cannot reach the journal at " + server.path + "-none: no such file or directory"; err == nil || err.Error() != want {
		t.Error(err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, os.ErrClosed }

// A journal that takes nothing any more must not hold up the program.
//
// Proves P1.
func TestJournalHangs(t *testing.T) {
	server := listen(t)
	var rest bytes.Buffer
	handler, err := newJournalHandler(server.path, &rest)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for range 10_000 {
		slog.New(handler).Info("again")
		if rest.Len() > 0 {
			break
		}
	}
	if took := time.Since(begin); rest.Len() == 0 || took > 10*sendLimit {
		t.Errorf("%q after %v", rest.String(), took)
	}
}

// The handler keeps the rules that log/slog has for handlers.
func TestJournalHandlerRules(t *testing.T) {
	server := listen(t)
	handler, err := newJournalHandler(server.path, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	slogtest.Run(t, func(*testing.T) slog.Handler { return handler }, func(t *testing.T) map[string]any {
		flat := server.fields()
		// The test wants groups as maps and a time if there was one. The time is journald's, so it is not sent.
		out := map[string]any{slog.MessageKey: flat["MESSAGE"], slog.LevelKey: flat["PRIORITY"]}
		if !strings.Contains(t.Name(), "zero-time") {
			out[slog.TimeKey] = "journald's"
		}
		for name, value := range flat {
			key, ours := strings.CutPrefix(name, fieldPrefix)
			if !ours {
				continue
			}
			at := out
			parts := strings.Split(key, "_")
			for _, part := range parts[:len(parts)-1] {
				for _, spelled := range []string{part, strings.ToLower(part)} {
					if spelled == "G" || spelled == "H" {
						part = spelled
					}
				}
				if at[part] == nil {
					at[part] = map[string]any{}
				}
				at = at[part].(map[string]any)
			}
			at[strings.ToLower(parts[len(parts)-1])] = value
		}
		return out
	})
}

func TestJournalStream(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	right := fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	for _, c := range []struct {
		stream string
		want   bool
	}{
		{right, true},
		{"", false}, {":", false}, {"1", false}, {"x:y", false}, {right + "x", false},
		{fmt.Sprintf("%d:%d", st.Dev, st.Ino+1), false}, {fmt.Sprintf("%d:%d", st.Dev+1, st.Ino), false},
	} {
		if got := journalStream(c.stream, int(file.Fd())); got != c.want {
			t.Errorf("%q: %v", c.stream, got)
		}
	}
	if journalStream(right, 1<<20) {
		t.Error("a closed descriptor is a stream")
	}
	t.Setenv("JOURNAL_STREAM", "")
	if JournalStream() {
		t.Error("a stream without the variable")
	}
}

func FuzzFieldEncoding(f *testing.F) {
	f.Add("stage", "policy")
	f.Add("a b=c\n", "x\ny")
	f.Add("", "=")
	f.Fuzz(func(t *testing.T, key, value string) {
		name := fieldName(key)
		if len(name) > maxFieldName || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
			t.Fatalf("name %q", name)
		}
		var record bytes.Buffer
		field{name, value}.encode(&record)
		field{"THE NEXT", "1"}.encode(&record) // no field has a blank in its name
		got, err := decode(record.Bytes())
		if err != nil || got[name] != printable.Lines(value) || got["THE NEXT"] != "1" || len(got) != 2 {
			t.Fatalf("%q: %v", got, err)
		}
	})
}
