package ignition

import (
	"strings"
	"testing"

	flatcar10 "github.com/coreos/butane/config/flatcar/v1_0"

	"github.com/coreos/butane/config/common"
	ign "github.com/coreos/ignition/v2/config"
)

// A file is read as those will who make a machine of it: Butane and the configuration with a byte order mark, Ignition without, nobody in UTF-16.
//
// Proves V14.
func TestForms(t *testing.T) {
	const (
		mark     = "\xef\xbb\xbf"
		butane   = "variant: flatcar\nversion: 1.0.0\n"
		ignition = `{"ignition": {"version": "3.3.0"}}`
		config   = "version: 1\nmode: enforcing\n"
	)
	wide := func(text string) string { return "\xff\xfe" + strings.Join(strings.Split(text, ""), "\x00") + "\x00" }
	if _, report, err := flatcar10.ToIgn3_3Bytes([]byte(mark+butane), common.TranslateBytesOptions{}); err != nil || report.IsFatal() {
		t.Errorf("Butane does not read a mark: %v", err)
	}
	if _, _, err := ign.Parse([]byte(mark + ignition)); err == nil {
		t.Error("Ignition reads a mark")
	}
	for name, c := range map[string]struct {
		content string
		kind    Kind
		want    string
	}{
		"Butane": {mark + butane, Butane, ""}, "a configuration": {mark + config, Configuration, ""},
		"Ignition":                     {mark + ignition, Ignition, "x:1: Ignition refuses this: it begins with a byte order mark, which is no JSON: save it as UTF-8 without a byte order mark (BOM)"},
		"its lines":                    {mark + "version: 1\nmodes: x\n", Configuration, `x:2: modes: cannot use an unknown key: did you mean "mode"?`},
		"Butane in UTF-16":             {wide(butane), "", "x:1: cannot read this: its characters are UTF-16: save it as UTF-8"},
		"UTF-16 without a mark":        {wide(config)[2:], "", "x:1: cannot read this: its characters are UTF-16: save it as UTF-8"},
		"compressed":                   {"\x1f\x8b\x08\x00\x00", "", "x:1: cannot read this: it is compressed with gzip: unpack it: gzip -dc"},
		"a configuration in a machine": {butane + "storage:\n  files:\n    - path: /etc/selinux-provision/config.yaml\n      contents: {source: 'data:;base64,77u/dmVyc2lvbjogMQo='}\n", Butane, ""},
		"and in UTF-16": {butane + "storage:\n  files:\n    - path: /etc/selinux-provision/config.yaml\n      contents: {source: 'data:;base64,//52AGUAcgA='}\n", Butane,
			"x:5: /etc/selinux-provision/config.yaml:1: cannot read this file: its characters are UTF-16: save it as UTF-8"},
		"Ignition of before 3.0": {`{"ignition": {"version": "2.3.0"}}`, Ignition,
			"x:1: an Ignition config of version 2.3.0 was not looked at: Flatcar translates it at boot, this program cannot: translate it to version 3.3.0 (ign-converter), and check that"},
	} {
		kind, findings, err := Check("x", strings.NewReader(c.content), Options{})
		var got []string
		for _, f := range findings {
			if !strings.Contains(f.Problem, "selinux-provision itself is not in") {
				got = append(got, f.String())
			}
		}
		if err != nil || kind != c.kind || strings.Join(got, "\n") != c.want {
			t.Errorf("%s: %s, %v\ngot  %s\nwant %s", name, kind, err, strings.Join(got, "\n"), c.want)
		}
	}
}
