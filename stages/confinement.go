package stages

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/selinux-provision/selinux-provision/avc/findings"
)

// Unconfined is a container that runs with a process which the policy does not confine, whatever the container's runtime was told.
type Unconfined struct {
	Container string `json:"container"` // its name; for Kubernetes NAMESPACE/POD/CONTAINER
	Domain    string `json:"domain"`    // of the process
	Why       string `json:"why"`       // in what way it is not confined

	names []string // every name by which a person may mean it
}

func (u Unconfined) String() string {
	return fmt.Sprintf("%s (%s, %s)", u.Container, u.Domain, u.Why)
}

// means tells whether one of some declared names is the container's.
func (u Unconfined) means(declared []string) bool {
	return slices.ContainsFunc(u.names, func(name string) bool { return slices.Contains(declared, name) })
}

// secondLook is when a container that seems not to be confined is looked at again: what starts one is in its cgroup for a moment.
const secondLook = time.Second

// confinement gives the containers that are not confined. look gives those that run and the host's own domain.
func confinement(ctx context.Context, look func() ([]findings.Container, string), policy func() LoadedPolicy) ([]Unconfined, error) {
	all, host := look()
	p := LoadedPolicy{}
	if slices.ContainsFunc(all, func(c findings.Container) bool { return len(c.Domains) > 0 }) {
		p = policy()
	}
	first := unconfined(all, host, p)
	if len(first) == 0 {
		return nil, nil
	}
	select {
	case <-time.After(secondLook):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	all, host = look()
	again := unconfined(all, host, p)
	return slices.DeleteFunc(again, func(u Unconfined) bool {
		return !slices.ContainsFunc(first, func(f Unconfined) bool { return f.Container == u.Container && f.Domain == u.Domain })
	}), nil
}

// unconfined picks those that have a process which the policy does not confine.
func unconfined(all []findings.Container, host string, p LoadedPolicy) (found []Unconfined) {
	for _, c := range all {
		for _, domain := range c.Domains {
			if why := p.lets(domain, host); why != "" {
				found = append(found, Unconfined{Container: c.Title, Domain: domain, Why: why, names: append(c.Names, c.Title)})
				break
			}
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].Container < found[j].Container })
	return found
}

// lets says in what way the policy does not confine a domain of a container, "" if it does.
func (p LoadedPolicy) lets(domain, host string) string {
	switch {
	case domain == host && host != "":
		return "as the host's own processes run"
	case p.Unlabeled != "" && domain == p.Unlabeled:
		return "the policy does not know its label"
	case p.Unconfined != nil && p.Unconfined(domain), slices.Contains(unconfinedDomains(), domain):
		return "a domain that may do everything"
	case p.Permissive != nil && p.Permissive(domain):
		return "a domain that is permissive by itself"
	}
	return ""
}

// unconfinedDomains are those of the reference policy, for a policy that this program cannot read, or that keeps no attributes.
func unconfinedDomains() []string {
	return []string{"init_t", "kernel_t", "spc_t", "unconfined_service_t", "unconfined_t"}
}

// unconfinedAttribute is what the reference policy gives domains that may do everything (kernel/domain.te, system/unconfined.te).
const unconfinedAttribute = "unconfined_domain_type"

// confine is the remedy.
const confine = "run it without --privileged and without label=disable, and with SELinux on in its runtime (Docker: --selinux-enabled, which Flatcar's docker.service has; containerd: enable_selinux = true)"

// declaredUnconfined gives those that readiness.containers names.
func declaredUnconfined(all []Unconfined, declared []string) []Unconfined {
	return slices.DeleteFunc(slices.Clone(all), func(u Unconfined) bool { return !u.means(declared) })
}

func listUnconfined(all []Unconfined) string {
	const most = 5
	var texts []string
	for _, u := range all[:min(most, len(all))] {
		texts = append(texts, u.String())
	}
	if more := len(all) - most; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, ", ")
}
