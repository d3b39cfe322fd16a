package avc

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// script gives one piece after the other; an empty one is a moment in which nothing comes.
type script []string

func (s *script) Read(p []byte) (int, error) {
	if len(*s) == 0 {
		return 0, io.EOF
	}
	piece := (*s)[0]
	*s = (*s)[1:]
	if piece == "" {
		return 0, ErrQuiet
	}
	return copy(p, piece), nil
}

// What is read of a log while it is written is the same as of the whole, and is given when a moment has passed.
func TestQuiet(t *testing.T) {
	const (
		avc  = "type=AVC msg=audit(1700000000.001:5): avc:  denied  { read } for  pid=7 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=file permissive=0\n"
		old  = "type=AVC msg=audit(1700000000.001:5): avc:  denied  { read } for  pid=7 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=file\n"
		call = "type=SYSCALL msg=audit(1700000000.001:5): arch=c000003e syscall=257 success=no exit=-13 pid=7 exe=\"/usr/bin/cat\"\n"
		head = "__CURSOR=s=1\n_TRANSPORT=audit\n_AUDIT_TYPE=1400\n_AUDIT_ID=5\n"
		tail = "_SOURCE_REALTIME_TIMESTAMP=1700000000001000\nMESSAGE=AVC avc:  denied  { read } for  pid=7 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=file permissive=0\n\n"
		size = "X\n\x02\x00\x00\x00\x00\x00\x00\x00"
	)
	for name, c := range map[string]struct {
		pieces string // apart at "|"
		want   string // q: quiet, d: a denial, e: with what its SYSCALL record says
	}{
		"a record":                        {avc, "d"},
		"the next one comes in a moment":  {avc + "||" + call, "qe"},
		"and not after two":               {avc + "||||", "qdqq"},
		"half a line":                     {avc[:70] + "||||" + avc[70:] + "||||", "qqqqdqq"},
		"without a mode":                  {old + "||||", "qdq"},
		"half an entry":                   {head + "||" + tail + "||||", "qdqq"},
		"half a length":                   {head + size[:5] + "||" + size[5:] + "a||b\n" + tail + "||||", "qdqq"},
		"between entries":                 {head + tail + "||||||" + strings.Replace(head, "=5\n", "=6\n", 1) + tail, "qdqqqd"},
		"a record that is whole at once":  {avc + call + "type=EOE msg=audit(1700000000.001:5): \n||", "eqq"},
		"nothing that has to be told yet": {"||||||", "qqqqqqq"},
	} {
		pieces := script(strings.Split(c.pieces, "|"))
		r := NewReader(NewDecoder(&pieces))
		var got strings.Builder
		for {
			d, err := r.Next()
			switch {
			case errors.Is(err, ErrQuiet):
				got.WriteByte('q')
			case err == nil && d.Exe != "":
				got.WriteByte('e')
			case err == nil:
				got.WriteByte('d')
			}
			if err != nil && !errors.Is(err, ErrQuiet) {
				break
			}
		}
		if got.String() != c.want {
			t.Errorf("%s: got %s, want %s", name, got.String(), c.want)
		}
	}
}
