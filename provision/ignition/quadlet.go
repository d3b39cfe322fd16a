package ignition

import (
	"path"
	"slices"
	"strings"
)

// quadletKind is a kind of file that podman's generator makes a service out of (podman-systemd.unit(5)).
type quadletKind struct {
	section, suffix string
	// starts says that its service starts containers; the others fetch images, and make networks and volumes.
	starts bool
}

func quadletKinds() map[string]quadletKind {
	return map[string]quadletKind{
		".container": {"Container", "", true}, ".pod": {"Pod", "-pod", true}, ".kube": {"Kube", "", true}, ".build": {"Build", "-build", true},
		".image": {"Image", "-image", false}, ".volume": {"Volume", "-volume", false}, ".network": {"Network", "-network", false}, ".artifact": {"Artifact", "-artifact", false},
	}
}

// quadletFile is such a file, or a drop-in of one.
type quadletFile struct {
	name string // of the file itself, such as web.container
	text text
	user bool // systemd --user starts it
}

// quadletFiles gives those that the machine has, drop-ins behind the files that they change.
func (m *machine) quadletFiles() (all []quadletFile) {
	var dropins []quadletFile
	for _, name := range m.fileNames() {
		below, ok := strings.CutPrefix(name, "/etc/containers/systemd/")
		user := strings.HasPrefix(below, "users/")
		if !ok {
			_, below, user = strings.Cut(name, "/.config/containers/systemd/")
			ok = user
		}
		if !ok || !m.files[name].known {
			continue
		}
		one := quadletFile{name: path.Base(below), text: m.files[name], user: user}
		if dir := path.Base(path.Dir(below)); path.Ext(below) == ".conf" && strings.HasSuffix(dir, ".d") {
			one.name = strings.TrimSuffix(dir, ".d")
			dropins = append(dropins, one)
			continue
		}
		if _, known := quadletKinds()[path.Ext(below)]; known {
			all = append(all, one)
		}
	}
	return append(all, dropins...)
}

// quadlets adds the services that podman's generator makes, with the order that it puts them into.
func (m *machine) quadlets(named func(string) *unitFile) {
	services := map[string]*unitFile{}
	var files []string
	for _, q := range m.quadletFiles() {
		ext := path.Ext(q.name)
		kind, known := quadletKinds()[ext]
		id := q.name
		if q.user {
			id = "user/" + q.name
		}
		u := services[id]
		if u == nil {
			if !known {
				continue
			}
			probe := unitFile{}
			probe.read(q.text)
			service := strings.TrimSuffix(q.name, ext) + kind.suffix
			if given := probe.list(kind.section, "ServiceName"); len(given) > 0 {
				service = given[len(given)-1]
			}
			service += ".service"
			if q.user {
				service = q.text.name // another manager's, which is ordered by nothing of the system's
			}
			u = named(service)
			u.quadlet, u.user = ext, q.user
			services[id] = u
			files = append(files, id)
			u.text = q.text
		}
		u.read(q.text)
		u.own = u.options
	}
	for _, id := range files {
		u := services[id]
		section := quadletKinds()[u.quadlet].section
		order := func(from *unitFile, name, to string) {
			from.options = append(from.options, unitOption{section: "Unit", name: name, value: to, at: u.text.at, key: u.text.inside})
			from.own = from.options
		}
		for _, key := range []string{"Pod", "Volume", "Network", "Image", "Mount"} {
			for _, value := range u.list(section, key) {
				other := volumeName(value)
				if u.user {
					other = "user/" + other
				}
				needed := services[other]
				if needed == nil || needed == u {
					continue
				}
				order(u, "Requires", needed.name)
				order(u, "After", needed.name)
				if key == "Pod" {
					order(needed, "Wants", u.name)
				}
			}
		}
	}
}

// startsContainers tells whether the service of a quadlet does.
func (u *unitFile) startsContainers() bool { return quadletKinds()[u.quadlet].starts }

// quadletDirectories looks at the directories of the host that a quadlet's containers get.
func (c *checker) quadletDirectories(m *machine, u *unitFile, s *situation) {
	section := quadletKinds()[u.quadlet].section
	if !slices.Contains([]string{".container", ".pod", ".build"}, u.quadlet) {
		return
	}
	run := containerRun{}
	var first *unitOption
	for i, o := range u.options {
		if o.section != section {
			continue
		}
		before := len(run.binds)
		switch o.name {
		case "Volume":
			run.volume(o.value)
		case "Mount":
			run.mount(o.value)
		case "SecurityLabelDisable":
			run.free = run.free || slices.Contains([]string{"true", "yes", "on", "1"}, strings.ToLower(o.value))
		case "SecurityLabelType":
			run.free = true
		case "PodmanArgs", "GlobalArgs":
			for _, words := range execWords("podman "+o.value, nil) {
				run.options(words[1:])
			}
		}
		if len(run.binds) > before && first == nil {
			first = &u.options[i]
		}
	}
	if first != nil {
		c.binds(m, run, "the containers of "+u.text.name, first.at, first.key, s)
	}
}
