package textform

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func packed(text string) string {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write([]byte(text))
	_ = w.Close()
	return out.String()
}

// bzipped is "type=AVC\n", as bzip2 packs it.
func bzipped(t *testing.T) string {
	t.Helper()
	content, err := hex.DecodeString("425a683931415926535999ca5332000003cf80001000022800010002004420200022069ea3420c988420d7cfc5dc914e1424267294cc80")
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// Each form that people have is read as the same text, or refused by its name with what to do.
func TestForms(t *testing.T) {
	const text = "type=AVC\n"
	for name, c := range map[string]struct{ content, asText, asLog string }{
		"plain":                      {text, text, text},
		"nothing":                    {"", "", ""},
		"short":                      {"a", "a", "a"},
		"a mark":                     {mark + text, text, text},
		"nothing but a mark":         {mark, "", ""},
		"a second mark is a text's":  {mark + mark, mark, mark},
		"UTF-16":                     {"\xff\xfet\x00y\x00", "its characters are UTF-16: save it as UTF-8", "its characters are UTF-16: save it as UTF-8"},
		"UTF-16, the high end first": {"\xfe\xff\x00t\x00y", "its characters are UTF-16: save it as UTF-8", "its characters are UTF-16: save it as UTF-8"},
		"UTF-16 without a mark":      {"t\x00y\x00p\x00", "its characters are UTF-16: save it as UTF-8", "its characters are UTF-16: save it as UTF-8"},
		"and the high end first":     {"\x00t\x00y\x00p", "its characters are UTF-16: save it as UTF-8", "its characters are UTF-16: save it as UTF-8"},
		"UTF-32":                     {"\xff\xfe\x00\x00t\x00\x00\x00", "its characters are UTF-32: save it as UTF-8", "its characters are UTF-32: save it as UTF-8"},
		"gzip":                       {packed(text), "it is compressed with gzip: unpack it: gzip -dc", text},
		"gzip twice in a row":        {packed(text) + packed(text), "it is compressed with gzip: unpack it: gzip -dc", text + text},
		"gzip of a mark":             {packed(mark + text), "it is compressed with gzip: unpack it: gzip -dc", text},
		"gzip of UTF-16":             {packed("\xff\xfet\x00"), "it is compressed with gzip: unpack it: gzip -dc", "its characters are UTF-16: save it as UTF-8"},
		"gzip of gzip":               {packed(packed(text)), "it is compressed with gzip: unpack it: gzip -dc", "it is compressed with gzip: unpack it: gzip -dc"},
		"gzip, cut off":              {packed(text)[:20], "it is compressed with gzip: unpack it: gzip -dc", "it is compressed, and damaged: unexpected EOF"},
		"bzip2":                      {bzipped(t), "it is compressed with bzip2: unpack it: bzip2 -dc", text},
		"xz":                         {"\xfd7zXZ\x00\x00\x04", "it is compressed with xz: unpack it: xz -dc", "it is compressed with xz: unpack it: xz -dc"},
		"zstd":                       {"\x28\xb5\x2f\xfd\x04\x00", "it is compressed with zstd: unpack it: zstd -dc", "it is compressed with zstd: unpack it: zstd -dc"},
	} {
		got, err := Text([]byte(c.content))
		if err != nil {
			got = []byte(err.Error())
		}
		if string(got) != c.asText {
			t.Errorf("%s: as a text %q, want %q", name, got, c.asText)
		}
		for _, in := range []io.Reader{strings.NewReader(c.content), iotest.OneByteReader(strings.NewReader(c.content))} {
			log, err := io.ReadAll(Reader(in))
			if err != nil {
				log = []byte(err.Error())
			}
			if string(log) != c.asLog {
				t.Errorf("%s: as a log %q, want %q", name, log, c.asLog)
			}
		}
	}
	if _, err := io.ReadAll(Reader(iotest.ErrReader(io.ErrClosedPipe))); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("an error of the reader: %v", err)
	}
}

func FuzzText(f *testing.F) {
	for _, seed := range []string{"", mark + "version: 1\n", "\xff\xfev\x00", "v\x00e\x00", packed("type=AVC\n"), "BZh9", "\xfd7zXZ\x00", "\x00\x00\xfe\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		text, err := Text(content)
		var refused *Error
		if err != nil && (!errors.As(err, &refused) || refused.Is == "" || refused.Do == "") {
			t.Errorf("refused without a reason: %v", err)
		}
		if err == nil && !bytes.HasSuffix(content, text) {
			t.Errorf("changed to %q", text)
		}
		log, logErr := io.ReadAll(io.LimitReader(Reader(bytes.NewReader(content)), 1<<20))
		if err == nil && (logErr != nil || !bytes.Equal(log, text[:min(len(text), 1<<20)])) {
			t.Errorf("as a text %q, as a log %q, %v", text, log, logErr)
		}
	})
}
