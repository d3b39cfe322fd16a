package ignition

import (
	"path"
	"slices"
	"strings"
)

// generatorDirs are where systemd looks in /etc for programs to start itself.
func generatorDirs() []string {
	return []string{
		"/etc/systemd/system-generators", "/etc/systemd/user-generators",
		"/etc/systemd/system-environment-generators", "/etc/systemd/user-environment-generators",
	}
}

// notExecutable finds programs below /etc that are started. From Flatcar 4628 on, /etc is merged by systemd-confext, which mounts it with
// noexec: the kernel starts nothing from there. An interpreter may read it all the same, and a link may lead elsewhere.
func (c *checker) notExecutable(m *machine) {
	const why = "from Flatcar 4628 on, /etc is a confext, mounted with noexec, and the kernel starts no program from there"
	for _, one := range m.allCommands() {
		if len(one.argv) == 0 {
			continue
		}
		if name := path.Clean(one.argv[0]); m.below("/etc", name) {
			name = m.real(name)
			c.add(one.at, one.key, "cannot run "+name+": "+why, m.elsewhere(name))
		}
	}
	for _, name := range m.fileNames() {
		if f := m.files[name]; slices.Contains(generatorDirs(), path.Dir(name)) && m.below("/etc", name) {
			c.add(f.at, f.name, "cannot have systemd run the generator "+name+": "+why, "write the program below /opt/bin, and a link to it here in storage.links")
		}
	}
}

// below says whether a path is in a directory when the links in the file have been followed.
func (m *machine) below(dir, name string) bool {
	return path.IsAbs(name) && strings.HasPrefix(m.real(name), dir+"/")
}

// elsewhere says how a program that lies where none can be started is started nevertheless.
func (m *machine) elsewhere(name string) string {
	const move = "write it below /opt/bin and run it from there"
	first, _, _ := strings.Cut(m.files[name].content, "\n")
	if interpreter, ok := strings.CutPrefix(first, "#!"); ok && strings.TrimSpace(interpreter) != "" {
		return "write " + strings.TrimSpace(interpreter) + " " + name + ", or " + move
	}
	return move
}
