package relabel

import (
	"github.com/selinux-provision/selinux-provision/internal/filecontexts"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

// FromPolicy gives each entry the context that the policy's file contexts have for its path, as restorecon does: only the type is
// set, and a type that was chosen for a single file (customizable_types) stays. With force, as with restorecon -F, the whole
// context is set, and those too.
func FromPolicy(contexts *filecontexts.Contexts, force bool) Descender {
	return &policy{contexts, force}
}

type policy struct {
	contexts *filecontexts.Contexts
	force    bool
}

// String names the version of the file contexts too: what was done by other ones is not done by these.
func (p *policy) String() string {
	name := "the policy's file contexts " + p.contexts.Digest()[:12]
	if p.force {
		return name + ", in full"
	}
	return name
}

// Want follows restorecon_sb in libselinux/src/selinux_restorecon.c.
func (p *policy) Want(path string, kind Kind, current string) (string, Reason) {
	match, found := p.contexts.Find(path, kind.Column())
	return p.judge(match, found, current)
}

func (p *policy) judge(match filecontexts.Match, found bool, current string) (string, Reason) {
	switch {
	case found && match.Unusable:
		return "", Unusable
	case !found || match.Context == "":
		return "", NoContext
	}
	context := match.Context
	if p.force || current == "" || current == context {
		return context, ""
	}
	now, wanted := secontext.Context(current), secontext.Context(context)
	if now.Type() == "" || wanted.Type() == "" { // not a context: nothing in it is worth keeping
		return context, ""
	}
	if p.contexts.Customizable(now.Type()) {
		return "", Customized
	}
	return string(now.WithType(wanted.Type())), ""
}

// Inside is a Descender's.
func (p *policy) Inside(dir string) Inside {
	if in := p.contexts.Inside(dir); in != nil {
		return &policyInside{p, in}
	}
	return nil
}

type policyInside struct {
	rule     *policy
	contexts *filecontexts.Inside
}

// Want is that of policy.
func (p *policyInside) Want(name string, kind Kind, current string) (string, Reason) {
	match, found := p.contexts.Find(name, kind.Column())
	return p.rule.judge(match, found, current)
}

// Enter is an Inside's.
func (p *policyInside) Enter(name string) Inside {
	return &policyInside{p.rule, p.contexts.Enter(name)}
}

// Column gives the kind as file contexts have it.
func (k Kind) Column() filecontexts.Kind {
	switch k {
	case Directory:
		return filecontexts.Directory
	case Regular:
		return filecontexts.Regular
	case Link:
		return filecontexts.Link
	case Character:
		return filecontexts.Character
	case Block:
		return filecontexts.Block
	case FIFO:
		return filecontexts.FIFO
	case Socket:
		return filecontexts.Socket
	}
	return filecontexts.Any
}
