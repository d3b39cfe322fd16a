package ignition

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

// packed gives a data URL of so many zeros, compressed.
func packed(t *testing.T, size int) string {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return "data:;base64," + base64.StdEncoding.EncodeToString(out.Bytes())
}

// refused checks files that are each refused with one message.
func refused(t *testing.T, files map[string][2]string) {
	t.Helper()
	for name, c := range files {
		_, findings, err := Check("x", strings.NewReader(c[0]), Options{})
		if err != nil || len(findings) != 1 || findings[0].String() != c[1] {
			t.Errorf("%s: %v\n%.400v\nwant %s", name, err, findings, c[1])
		}
	}
}

// A file that is made to take the reader down is refused: what is too deep, is two files, or no text.
//
// Proves V14.
func TestHostileFiles(t *testing.T) {
	const deep = "nothing that a machine is made from is that deep: look for what repeats itself"
	const second = "a second document begins here, which nobody reads: put both into one"
	refused(t, map[string][2]string{
		"deep YAML":          {"variant: flatcar\nversion: 1.0.0\nx: " + strings.Repeat("[", 20000) + strings.Repeat("]", 20000), "x:3: cannot read this as YAML: exceeded max depth of 10000: " + deep},
		"deep JSON":          {"{\"ignition\":\n" + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + "}", "x:2: cannot read this as JSON: it is more than 200 levels deep: " + deep},
		"Latin-1":            {"variant: flatcar\n# caf\xe9\nversion: 1.0.0\n", "x:2: cannot read this: there is something that is no character of UTF-8: save it as UTF-8"},
		"UTF-16":             {"\xff\xfev\x00a\x00", "x:1: cannot read this: its characters are UTF-16: save it as UTF-8"},
		"two documents":      {"variant: flatcar\nversion: 1.0.0\n---\n# x\nstorage:\n  files: []\n", "x:5: cannot read this as YAML: " + second},
		"two configurations": {"version: 1\n---\nmode: enforcing\n", "x:3: cannot read this as YAML: " + second},
	})
	// A bomb of aliases is as small as it looks.
	bomb := "variant: flatcar\nversion: 1.0.0\na0: &a0 [x, x, x, x, x, x, x, x, x]\n"
	for i := range 12 {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 9), ", "))
	}
	if _, findings, err := Check("x", strings.NewReader(bomb), Options{}); err != nil || len(findings) == 0 {
		t.Errorf("aliases: %v, %v", findings, err)
	}
}

// What is small and large when it is unpacked is not unpacked to its end, whether one file does it or many.
//
// Proves V14.
func TestBombs(t *testing.T) {
	if testing.Short() {
		t.Skip("it packs and unpacks hundreds of megabytes: not in -short mode")
	}
	file := func(i int, source string) string {
		return fmt.Sprintf("\n"+`{"path": "/etc/x%d", "contents": {"compression": "gzip", "source": "%s"}}`, i, source)
	}
	ignition := func(files ...string) string {
		return `{"ignition": {"version": "3.3.0"}, "storage": {"files": [` + strings.Join(files, ",") + "]}}"
	}
	const large = ": it is larger than 128 MiB, or all that is in this file is larger than 256 MiB: correct its source, compression and hash"
	hundred := packed(t, 100<<20)
	refused(t, map[string][2]string{
		"one":    {ignition(file(1, packed(t, 129<<20))), "x:2: /etc/x1: cannot read the content" + large},
		"many":   {ignition(file(1, hundred), file(2, hundred), file(3, hundred)), "x:4: /etc/x3: cannot read the content" + large},
		"merged": {`{"ignition": {"version": "3.3.0", "config": {"merge": [` + "\n" + `{"compression": "gzip", "source": "` + packed(t, 129<<20) + `"}]}}}`, "x:2: cannot read merged config 1" + large},
	})
}
