// Package runtimes knows the units that start containers on Flatcar: those of the image, and those that come with its extensions and
// with the system extension images of the bakery (github.com/flatcar/sysext-bakery). It is the one table from which the order of the
// units that ship and the findings of check come.
//
// Do not use it to find out what runs on a host: there, ask systemd and the cgroups.
package runtimes

import "slices"

// Runtime is something that starts containers, by itself or for those who ask it to.
type Runtime struct {
	// Name is what it is called.
	Name string
	// From says who brings it.
	From string
	// Units start it. One that waits for a socket is there with its service alone: nothing starts before the service does.
	Units []string
}

const (
	image  = "Flatcar's image"
	podman = "Flatcar's extension podman"
	bakery = "the sysext bakery"
	anyone = image + ", and " + bakery
)

// All are the runtimes, in the order in which the units name them.
func All() []Runtime {
	return []Runtime{
		{"Docker", anyone, []string{"docker.service"}},
		{"containerd", anyone, []string{"containerd.service"}},
		{"CRI-O", bakery, []string{"crio.service"}},
		// podman-restart starts at boot what has a restart policy.
		{"Podman", podman, []string{"podman.service", "podman-restart.service"}},
		{"the kubelet", bakery, []string{"kubelet.service"}},
		{"K3s", bakery, []string{"k3s.service", "k3s-agent.service"}},
		{"RKE2", bakery, []string{"rke2-server.service", "rke2-agent.service"}},
		{"Nomad", bakery, []string{"nomad.service"}},
	}
}

// Units are those of all runtimes: what has to be done before the first container is ordered before each of them.
func Units() (all []string) {
	for _, r := range All() {
		all = append(all, r.Units...)
	}
	return all
}

// Unit tells whether a unit is one of a runtime.
func Unit(name string) bool { return slices.Contains(Units(), name) }
