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

// A file that is made to take the reader down is refused with one message: what is too deep, too much when it is unpacked, or no text.
func TestHostileFiles(t *testing.T) {
	file := func(i int, source string) string {
		return fmt.Sprintf("\n"+`{"path": "/etc/x%d", "contents": {"compression": "gzip", "source": "%s"}}`, i, source)
	}
	ignition := func(files ...string) string {
		return `{"ignition": {"version": "3.3.0"}, "storage": {"files": [` + strings.Join(files, ",") + "]}}"
	}
	const deep, large = "nothing that a machine is made from is that deep: look for what repeats itself", "or all that is in this file is larger than 256 MiB: correct its source, compression and hash"
	hundred := packed(t, 100<<20)
	for name, c := range map[string]struct{ content, want string }{
		"deep YAML":          {"variant: flatcar\nversion: 1.0.0\nx: " + strings.Repeat("[", 20000) + strings.Repeat("]", 20000), "x:3: cannot read this as YAML: exceeded max depth of 10000: " + deep},
		"deep JSON":          {"{\"ignition\":\n" + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + "}", "x:2: cannot read this as JSON: it is more than 200 levels deep: " + deep},
		"two documents":      {"variant: flatcar\nversion: 1.0.0\n---\n# x\nstorage:\n  files: []\n", "x:5: cannot read this as YAML: a second document begins here, which nobody reads: put both into one"},
		"two configurations": {"version: 1\n---\nmode: enforcing\n", "x:3: cannot read this as YAML: a second document begins here, which nobody reads: put both into one"},
		"one bomb":           {ignition(file(1, packed(t, 129<<20))), "x:2: /etc/x1: cannot read the content: it is larger than 128 MiB, " + large},
		"many bombs":         {ignition(file(1, hundred), file(2, hundred), file(3, hundred)), "x:4: /etc/x3: cannot read the content: it is larger than 128 MiB, " + large},
		"Latin-1":            {"variant: flatcar\n# caf\xe9\nversion: 1.0.0\n", "x:2: cannot read this: there is something that is no character of UTF-8: save it as UTF-8"},
		"UTF-16":             {"\xff\xfev\x00a\x00", "x:1: cannot read this: its characters are UTF-16: save it as UTF-8"},
		"a merged bomb":      {`{"ignition": {"version": "3.3.0", "config": {"merge": [` + "\n" + `{"compression": "gzip", "source": "` + packed(t, 129<<20) + `"}]}}}`, "x:2: cannot read merged config 1: it is larger than 128 MiB, " + large},
	} {
		_, findings, err := Check("x", strings.NewReader(c.content), Options{})
		if err != nil || len(findings) != 1 || findings[0].String() != c.want {
			t.Errorf("%s: %v\n%.400v\nwant %s", name, err, findings, c.want)
		}
	}
	// A bomb of aliases is as small as it looks.
	bomb := "variant: flatcar\nversion: 1.0.0\na0: &a0 [x, x, x, x, x, x, x, x, x]\n"
	for i := range 12 {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 9), ", "))
	}
	if _, findings, err := Check("x", strings.NewReader(bomb), Options{}); err != nil || len(findings) == 0 {
		t.Errorf("aliases: %v, %v", findings, err)
	}
}
