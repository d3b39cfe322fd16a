// Package link is the wire between the test harness and its shell in the guest: frames over a virtio-serial port.
//
// A frame carries its own lengths, so no output of a command can be taken for the end of it, and begins with a mark and a checksum,
// so a reader that joins in the middle (a guest that rebooted, a harness that came back) finds the next frame by itself.
package link

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"time"
)

// PortName is the name of the virtio-serial port in the guest.
const PortName = "vmtest.shell"

// Kinds of frames. The harness sends the first five, the guest answers with Done, and says Pong once when it starts.
const (
	Ping   = "ping"
	Run    = "run"
	Put    = "put"
	Get    = "get"
	Cancel = "cancel"
	Pong   = "pong"
	Done   = "done"
)

// Header describes a frame. ID pairs an answer with its request.
type Header struct {
	ID   uint64 `json:"id"`
	Kind string `json:"kind"`

	Command string        `json:"command,omitempty"` // Run: handed to bash
	Timeout time.Duration `json:"timeout,omitempty"` // Run: the guest kills the command's process group after this
	Path    string        `json:"path,omitempty"`    // Put, Get
	Mode    uint32        `json:"mode,omitempty"`    // Put

	BootID    string `json:"bootID,omitempty"`    // Pong: tells one boot from the next
	StdoutLen int    `json:"stdoutLen,omitempty"` // Done, of a Run: the body is stdout, then stderr
	Exit      int    `json:"exit,omitempty"`      // Done, of a Run: 128+N for a command killed by signal N
	TimedOut  bool   `json:"timedOut,omitempty"`  // Done, of a Run
	Error     string `json:"error,omitempty"`     // Done: the request itself could not be carried out
}

const (
	maxHeader = 1 << 20
	maxBody   = 1 << 29
)

func mark() []byte { return []byte("\xf5\x9dvmtest\x00\x1e") }

// Write sends one frame in a single Write call.
func Write(w io.Writer, h Header, body []byte) error {
	header, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("cannot encode frame header: %w", err)
	}
	var frame bytes.Buffer
	frame.Write(mark())
	var lengths [12]byte
	binary.LittleEndian.PutUint32(lengths[0:], uint32(len(header)))
	binary.LittleEndian.PutUint32(lengths[4:], uint32(len(body)))
	binary.LittleEndian.PutUint32(lengths[8:], crc32.ChecksumIEEE(append(lengths[:8:8], header...)))
	frame.Write(lengths[:])
	frame.Write(header)
	frame.Write(body)
	_, err = w.Write(frame.Bytes())
	return err
}

// Read returns the next whole frame and silently skips what is none.
func Read(r *bufio.Reader) (Header, []byte, error) {
	for {
		if err := skipToMark(r); err != nil {
			return Header{}, nil, err
		}
		var lengths [12]byte
		if _, err := io.ReadFull(r, lengths[:]); err != nil {
			return Header{}, nil, err
		}
		headerLen := binary.LittleEndian.Uint32(lengths[0:])
		bodyLen := binary.LittleEndian.Uint32(lengths[4:])
		if headerLen > maxHeader || bodyLen > maxBody {
			continue
		}
		header := make([]byte, headerLen)
		if _, err := io.ReadFull(r, header); err != nil {
			return Header{}, nil, err
		}
		if crc32.ChecksumIEEE(append(lengths[:8:8], header...)) != binary.LittleEndian.Uint32(lengths[8:]) {
			continue
		}
		var h Header
		if err := json.Unmarshal(header, &h); err != nil {
			continue
		}
		body := make([]byte, bodyLen)
		if _, err := io.ReadFull(r, body); err != nil {
			return Header{}, nil, err
		}
		return h, body, nil
	}
}

func skipToMark(r *bufio.Reader) error {
	want := mark()
	for matched := 0; matched < len(want); {
		b, err := r.ReadByte()
		if err != nil {
			return err
		}
		switch b {
		case want[matched]:
			matched++
		case want[0]:
			matched = 1
		default:
			matched = 0
		}
	}
	return nil
}
