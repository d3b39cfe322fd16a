package provision

import (
	"strings"
	"testing"
)

// What an editor puts in front of a text is no part of it, in a configuration, a drop-in and a module; UTF-16 and what is compressed are refused by name.
func TestForms(t *testing.T) {
	const mark = "\xef\xbb\xbf"
	s, err := Load(plant(t, map[string]string{
		dir + "config.yaml": mark + "version: 1\nmode: enforcing\n", dir + "config.d/10-a.yaml": mark + "version: 1\naudit: {log_denials: true}\n",
		dir + "modules/site.cil": mark + "(type site_t)\n", dir + "modules/made.pp": mark + "\x00",
	}), "")
	if err != nil || s.Mode != Enforcing || !s.LogDenials || len(s.Modules) != 2 || string(s.Modules[0].Content) != mark+"\x00" || string(s.Modules[1].Content) != "(type site_t)\n" {
		t.Errorf("with a mark: %+v, %v", s, err)
	}
	for name, want := range map[string]string{
		"config.yaml": ":1: cannot read this file: ", "config.d/10-a.yaml": ":1: cannot read this file: ", "modules/site.cil": ": cannot use this module: ",
	} {
		for content, is := range map[string]string{
			"\xff\xfe(\x00t\x00": "its characters are UTF-16: save it as UTF-8", "(\x00t\x00": "its characters are UTF-16: save it as UTF-8",
			"\x1f\x8b\x08\x00": "it is compressed with gzip: unpack it: gzip -dc",
		} {
			if _, err := Load(plant(t, map[string]string{dir + name: content}), ""); err == nil || err.Error() != dir+name+want+is {
				t.Errorf("%s, %q:\ngot  %v\nwant %s", name, content, err, strings.TrimSpace(dir+name+want+is))
			}
		}
	}
}
