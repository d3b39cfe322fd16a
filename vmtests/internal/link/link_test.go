package link

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestReaderFindsFramesAmongNoise(t *testing.T) {
	var wire bytes.Buffer
	var torn bytes.Buffer
	if err := Write(&torn, Header{ID: 1, Kind: Done}, []byte("lost")); err != nil {
		t.Fatal(err)
	}
	wire.WriteString("boot noise \xf5\x9dvm")
	wire.Write(mark()) // A mark with garbage lengths after it.
	wire.WriteString("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")
	for id := uint64(2); id < 4; id++ {
		if err := Write(&wire, Header{ID: id, Kind: Done, StdoutLen: 3}, append([]byte("abc"), mark()...)); err != nil {
			t.Fatal(err)
		}
	}
	wire.Write(torn.Bytes()[:torn.Len()-2])

	r := bufio.NewReader(&wire)
	for id := uint64(2); id < 4; id++ {
		h, body, err := Read(r)
		if err != nil || h.ID != id || !bytes.HasPrefix(body, []byte("abc")) {
			t.Fatalf("got frame %+v %q, error %v; want frame %d", h, body, err, id)
		}
	}
	if _, _, err := Read(r); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		t.Fatalf("a torn frame gave error %v, want an end of file", err)
	}
}
