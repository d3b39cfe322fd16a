package stages

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/selinux-provision/selinux-provision/avc/findings"
)

func TestUnconfined(t *testing.T) {
	t.Parallel()
	policy := LoadedPolicy{
		Unlabeled:  "unlabeled_t",
		Unconfined: func(domain string) bool { return domain == "site_free_t" },
		Permissive: func(domain string) bool { return domain == "site_trial_t" },
	}
	for _, c := range []struct {
		domains string
		policy  LoadedPolicy
		want    string // the domain that is named; "": it is confined
	}{
		{"container_t", policy, ""},
		{"kube_logreader_t", policy, ""}, // a domain of an operator's own
		{"", policy, ""},                 // none of its processes could be asked
		{"kernel_t", policy, "kernel_t"},
		{"container_t kernel_t", policy, "kernel_t"}, // privileged from within
		{"spc_t", policy, "spc_t"},
		{"site_free_t", policy, "site_free_t"},
		{"site_trial_t", policy, "site_trial_t"},
		{"unlabeled_t", policy, "unlabeled_t"},
		{"container_t", LoadedPolicy{}, ""}, // a policy that this program cannot read
		{"spc_t", LoadedPolicy{}, "spc_t"},
		{"host_t", LoadedPolicy{}, "host_t"},
	} {
		host := "kernel_t"
		if c.domains == "host_t" {
			host = "host_t"
		}
		got := unconfined([]findings.Container{{Title: "shop/cart/web", Names: []string{"web"}, Domains: strings.Fields(c.domains)}}, host, c.policy)
		named := ""
		if len(got) == 1 {
			named = got[0].Domain
			if got[0].Why == "" || !got[0].means([]string{"web"}) || !got[0].means([]string{"shop/cart/web"}) || got[0].means([]string{"other"}) {
				t.Errorf("%q: %+v", c.domains, got)
			}
		}
		if named != c.want || len(got) > 1 {
			t.Errorf("%q: %+v, want %q", c.domains, got, c.want)
		}
	}
}

// What starts a container is in its cgroup for a moment, and is not the container.
func TestConfinementLooksTwice(t *testing.T) {
	t.Parallel()
	web := func(domain string) findings.Container {
		return findings.Container{Title: "web", Domains: []string{domain}}
	}
	for _, c := range []struct {
		first, second []findings.Container
		want          int
	}{
		{[]findings.Container{web("container_t")}, nil, 0},
		{[]findings.Container{web("kernel_t")}, []findings.Container{web("container_t")}, 0},
		{[]findings.Container{web("kernel_t")}, nil, 0}, // it has ended
		{[]findings.Container{web("kernel_t")}, []findings.Container{web("kernel_t")}, 1},
		{[]findings.Container{web("container_t")}, []findings.Container{web("kernel_t")}, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			looks := [][]findings.Container{c.first, c.second}
			got, err := confinement(t.Context(), func() ([]findings.Container, string) {
				now := looks[0]
				if len(looks) > 1 {
					looks = looks[1:]
				}
				return now, "kernel_t"
			}, func() LoadedPolicy { return LoadedPolicy{} })
			if err != nil || len(got) != c.want {
				t.Errorf("%v, then %v: %+v, %v", c.first, c.second, got, err)
			}
		})
	}
}
