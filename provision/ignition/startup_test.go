package ignition

import (
	"slices"
	"strings"
	"testing"
)

// What is started at boot is found from what is enabled on: systemd.unit(5), systemd.timer(5), systemd.path(5), systemd.preset(5), and
// podman-systemd.unit(5) on [Install]. What only lies there, or is started by what is not started, is not.
func TestStartup(t *testing.T) {
	files := func(all ...string) string {
		var text strings.Builder
		text.WriteString("storage:\n  files:\n")
		for i := 0; i < len(all); i += 2 {
			text.WriteString("    - path: " + all[i] + "\n      contents:\n        inline: |\n          " + strings.ReplaceAll(all[i+1], "\n", "\n          ") + "\n")
		}
		return text.String()
	}
	const (
		dir     = "/etc/systemd/system/"
		run     = "[Service]\nExecStart=/bin/a %i"
		install = "\n[Install]\nWantedBy=multi-user.target"
		preset  = "/etc/systemd/system-preset/10-x.preset"
		link    = "  links:\n    - {path: /etc/systemd/system/multi-user.target.wants/"
	)
	enabled := func(names ...string) string {
		text := "systemd:\n  units:\n"
		for _, name := range names {
			text += "    - {name: " + name + ", enabled: true}\n"
		}
		return text
	}
	for name, c := range map[string]struct{ file, want string }{
		"nothing":                         {files(dir+"x.service", run+install), ""},
		"enabled":                         {files(dir+"x.service", run) + enabled("x.service"), "x.service"},
		"masked":                          {files(dir+"x.service", run) + "systemd:\n  units:\n    - {name: x.service, enabled: true, mask: true}\n", ""},
		"a link":                          {files(dir+"x.service", run) + link + "x.service, target: ../x.service}\n", "x.service"},
		"an instance":                     {files(dir+"x@.service", run) + enabled("x@1.service"), "x@1.service"},
		"an instance by a link":           {files(dir+"x@.service", run) + link + "x@a.service, target: ../x@.service}\n", "x@a.service"},
		"an instance that another wants":  {files(dir+"x@.service", run, dir+"y.service", "[Unit]\nWants=x@b.service\n"+run) + enabled("y.service"), "x@b.service y.service"},
		"the instance of the same name":   {files(dir+"x@.service", run, dir+"y@.service", "[Unit]\nWants=x@%i.service\n"+run) + enabled("y@c.service"), "x@c.service y@c.service"},
		"a template":                      {files(dir+"x@.service", run+install) + enabled("x@.service"), ""},
		"a template with its instance":    {files(dir+"x@.service", run+install+"\nDefaultInstance=d") + enabled("x@.service"), "x@d.service"},
		"wanted":                          {files(dir+"x.service", run, dir+"y.target", "[Unit]\nWants=x.service") + enabled("y.target"), "x.service y.target"},
		"wanted by what is not started":   {files(dir+"x.service", run, dir+"y.target", "[Unit]\nWants=x.service"), ""},
		"wanted by a unit of the image":   {files(dir+"x.service", run, dir+"docker.service.d/a.conf", "[Unit]\nWants=x.service"), "x.service"},
		"wanted by what is masked":        {files(dir+"x.service", run, dir+"docker.service.d/a.conf", "[Unit]\nWants=x.service") + "systemd:\n  units:\n    - {name: docker.service, mask: true}\n", ""},
		"a timer":                         {files(dir+"x.service", run, dir+"x.timer", "[Timer]\nOnBootSec=1s") + enabled("x.timer"), "x.service x.timer"},
		"a timer of another unit":         {files(dir+"x.service", run, dir+"y.timer", "[Timer]\nOnBootSec=1s\nUnit=x.service") + enabled("y.timer"), "x.service y.timer"},
		"a timer of an instance":          {files(dir+"x@.service", run, dir+"x@.timer", "[Timer]\nOnBootSec=1s") + enabled("x@e.timer"), "x@e.service x@e.timer"},
		"a timer at night":                {files(dir+"x.service", run, dir+"x.timer", "[Timer]\nOnCalendar=daily") + enabled("x.timer"), "x.timer"},
		"a timer that is not started":     {files(dir+"x.service", run, dir+"x.timer", "[Timer]\nOnBootSec=1s"), ""},
		"a path":                          {files(dir+"x.service", run, dir+"x.path", "[Path]\nPathExists=/etc/foo") + enabled("x.path"), "x.path x.service"},
		"a path of another unit":          {files(dir+"x.service", run, dir+"y.path", "[Path]\nPathExists=/etc/foo\nUnit=x.service") + enabled("y.path"), "x.service y.path"},
		"also":                            {files(dir+"x.service", run, dir+"y.service", run+install+"\nAlso=x.service") + enabled("y.service"), "x.service y.service"},
		"also of what is not enabled":     {files(dir+"x.service", run, dir+"y.service", run+install+"\nAlso=x.service", dir+"z.service", "[Unit]\nWants=y.service\n"+run) + enabled("z.service"), "y.service z.service"},
		"also of each other":              {files(dir+"x.service", run+install+"\nAlso=y.service", dir+"y.service", run+install+"\nAlso=x.service") + enabled("y.service"), "x.service y.service"},
		"a preset":                        {files(dir+"x.service", run+install, preset, "# ours\nenable x.service"), "x.service"},
		"a preset of a pattern":           {files(dir+"x-a.service", run+install, preset, "enable x-*.service"), "x-a.service"},
		"a preset of instances":           {files(dir+"x@.service", run+install, preset, "enable x@.service f g"), "x@f.service x@g.service"},
		"a preset that does not":          {files(dir+"x.service", run+install, preset, "disable x.service\nenable *"), ""},
		"a preset behind Ignition's":      {files(dir+"x.service", run+install, preset, "enable x.service") + "systemd:\n  units:\n    - {name: x.service, enabled: false}\n", ""},
		"a preset of a unit of the image": {files(preset, "enable k3s.service"), "k3s.service"},
		"a quadlet":                       {files("/etc/containers/systemd/x.container", "[Container]\nImage=x"+install), "x.service"},
		"an upheld quadlet":               {files("/etc/containers/systemd/x.container", "[Container]\nImage=x\n[Install]\nUpheldBy=multi-user.target"), "x.service"},
		"a quadlet that nobody starts":    {files("/etc/containers/systemd/x.container", "[Container]\nImage=x"), ""},
		"a quadlet of instances":          {files("/etc/containers/systemd/x@.container", "[Container]\nImage=x"+install+"\nDefaultInstance=h"), "x@h.service"},
	} {
		var booted []string
		for _, u := range made(t, c.file).units() {
			if u.boots {
				booted = append(booted, u.name)
				if strings.HasPrefix(u.name, "x@") && strings.HasSuffix(u.name, ".service") && len(u.own) == 0 {
					t.Errorf("%s: %s has no lines", name, u.name)
				}
			}
		}
		slices.Sort(booted)
		if got := strings.Join(booted, " "); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, c.want)
		}
	}
}

// An instance of a template that starts containers is told of as itself, in the line of the template, and once.
func TestInstances(t *testing.T) {
	const unit = `systemd:
  units:
    - name: web@.service
      contents: |
        [Service]
        ExecStart=/usr/bin/podman run --rm -v /home/core/%i:/html nginx
        [Install]
        WantedBy=multi-user.target
    - name: web@a.service
      enabled: true
`
	expect(t, map[string]struct{ content, want string }{
		"an instance": {node + unit, "x:15: web@.service: cannot give /home/core/a to the container of web@a.service on an enforcing machine: nothing gives it a label\n" +
			"x:15: web@.service: cannot tell that web@a.service starts after the stages: it runs podman, and nothing orders it"},
		"one that is ordered": {node + unit + "      dropins: [{name: a.conf, contents: \"[Unit]\\nAfter=docker.service\\n\"}]\n", "x:15: web@.service: cannot give"},
	})
}
