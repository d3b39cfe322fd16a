package propose

import (
	"slices"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/lazyregexp"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
)

// made is the first line of a module with a new domain, as write begins it.
var made = lazyregexp.New(`^; The domain ([A-Za-z0-9_.]+): all that ([A-Za-z0-9_.]+) is, `)

// Made tells which domain a module that Write made has, and the domain that it is to be like. ok is false for every other module.
func Made(text string) (domain, base string, ok bool) {
	found := made().FindStringSubmatch(text)
	if found == nil {
		return "", "", false
	}
	return found[1], found[2], true
}

// Behind says what a domain that Write made like another has not, since the other one got it, as an update of the OS gives it: what the module would
// get if it was made anew. forbidden is that of a Request.
func Behind(p *policydb.Policy, domain, base string, forbidden func(source, like, target, class, permission string) string) ([]string, error) {
	like, err := p.Like(base)
	if err != nil {
		return nil, err
	}
	own, err := p.Describe(domain)
	if err != nil {
		return nil, err
	}
	var lacks []string
	for _, attribute := range like.Attributes {
		if !slices.Contains(own.Attributes, attribute) {
			lacks = append(lacks, "the attribute "+attribute)
		}
	}
	for _, r := range like.Rules {
		if r.Statement != "allow" || r.Condition != "" {
			continue
		}
		q := policydb.Question{Domain: domain, Target: r.Target, Class: r.Class}
		who := ""
		if r.Source != policydb.Self {
			q.Domain, who = r.Source, r.Source+": "
		}
		on := " on " + r.Target
		if r.Target == policydb.Self {
			q.Target, on = domain, ""
		}
		var missing []string
		for _, permission := range r.Permissions {
			q.Permissions = []string{permission}
			if !p.Allowed(q) && (forbidden == nil || forbidden(q.Domain, "", q.Target, q.Class, permission) == "") {
				missing = append(missing, permission)
			}
		}
		if len(missing) > 0 {
			lacks = append(lacks, who+r.Class+" "+strings.Join(missing, " ")+on)
		}
	}
	slices.Sort(lacks)
	return lacks, nil
}
