package policypackage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"testing"
)

// packed is a package with sections of these contents.
func packed(sections ...[]byte) []byte {
	out := words(packageMagic, 1, uint32(len(sections)))
	at := len(out) + 4*len(sections)
	for _, s := range sections {
		out = append(out, words(uint32(at))...)
		at += len(s)
	}
	return append(out, slices.Concat(sections...)...)
}

func words(numbers ...uint32) []byte {
	var out []byte
	for _, n := range numbers {
		out = binary.LittleEndian.AppendUint32(out, n)
	}
	return out
}

func text(s string) []byte { return append(words(uint32(len(s))), s...) }

func module(kind, format uint32, texts ...string) []byte {
	out := slices.Concat(words(moduleMagic), text(formatName), words(kind, format, 1, 8, 0))
	for _, s := range texts {
		out = append(out, text(s)...)
	}
	return out
}

func file(t testing.TB, name string) []byte {
	t.Helper()
	content, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestRead(t *testing.T) {
	contexts := append(words(0xf97cff90), "/srv(/.*)? system_u:object_r:etc_t:s0\n"...)
	for _, c := range []struct {
		name    string
		content []byte
		want    Header
		refused bool
	}{
		{"made by semodule_package", file(t, "outer.pp"), Header{Name: "site_inner", Version: "1.0", Format: 21}, false},
		{"compressed", file(t, "outer.pp.bz2"), Header{Name: "site_inner", Version: "1.0", Format: 21}, false},
		{"of a newer tool", packed(module(kindModule, 99, "mycl", "2")), Header{Name: "mycl", Version: "2", Format: 99}, false},
		{"the module is the second section", packed(contexts, module(kindModule, 21, "mycl", "")), Header{Name: "mycl", Format: 21}, false},
		{"a name that no module may have", packed(module(kindModule, 21, "../x", "1")), Header{Name: "../x", Version: "1", Format: 21}, false},
		{"a whole policy", packed(module(kindBase, 21)), Header{Base: true, Format: 21}, false},
		{"a kind that there is not", packed(module(3, 21, "x", "1")), Header{}, true},
		{"text", []byte("(type site_t)\n"), Header{}, true},
		{"nothing", nil, Header{}, true},
		{"compressed by name only", []byte("BZh91AY"), Header{}, true},
		{"a module without its package", module(kindModule, 21, "mycl", "1"), Header{}, true},
		{"no section", packed(), Header{}, true},
		{"no module", packed(contexts), Header{}, true},
		{"more sections than can be", words(packageMagic, 1, 1<<31), Header{}, true},
		{"an offset before the header", append(words(packageMagic, 1, 1, 0), module(kindModule, 21, "mycl", "1")...), Header{}, true},
		{"a name without end", packed(append(module(kindModule, 21), words(1<<31)...)), Header{}, true},
		{"cut off within the name", packed(module(kindModule, 21, "mycl"))[:70], Header{}, true},
	} {
		got, err := Read(c.content)
		if got != c.want || (err != nil) != c.refused || err != nil && !errors.Is(err, ErrNotPackage) {
			t.Errorf("%s: %+v, %v, want %+v", c.name, got, err, c.want)
		}
	}
}

// FuzzRead holds what is read against a package that is made of it again.
func FuzzRead(f *testing.F) {
	f.Add(packed(module(kindModule, 21, "mycl", "1.0")))
	f.Add(file(f, "outer.pp.bz2"))
	f.Fuzz(func(t *testing.T, content []byte) {
		h, err := Read(content)
		if err != nil {
			return
		}
		again := packed(module(kindModule, h.Format, h.Name, h.Version))
		if h.Base {
			again = packed(module(kindBase, h.Format))
		}
		if got, err := Read(again); err != nil || got != h {
			t.Errorf("%+v became %+v, %v", h, got, err)
		}
		if !bytes.HasPrefix(content, []byte("BZh")) && len(h.Name) > len(content) {
			t.Errorf("a name of %d bytes in %d", len(h.Name), len(content))
		}
	})
}
