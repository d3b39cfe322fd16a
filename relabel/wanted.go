package relabel

import (
	"errors"
	"fmt"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/filecontexts"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/kernel"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/printable"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

// ContextError says why a context that was asked for cannot be used.
type ContextError struct{ Context, Reason string }

// Error names the context and the reason.
func (e *ContextError) Error() string {
	return fmt.Sprintf("cannot use context %s: %s", printable.Quote(e.Context), e.Reason)
}

// Policy knows the contexts of a host: those of the kernel's policy, or, where there is none, those of the policy in the tree. Close it.
type Policy struct {
	root   *hostfs.Root
	kernel *kernel.SELinux
	tree   *policydb.Symbols // nil: there is no policy either
}

// OpenPolicy finds the policy of a host. A tree without one, or with one that is damaged, is no reason not to label it.
func OpenPolicy(root *hostfs.Root) (*Policy, error) {
	if root.IsHost() {
		k, err := kernel.Open()
		if !errors.Is(err, kernel.ErrDisabled) {
			return &Policy{root: root, kernel: k}, err
		}
	}
	p := &Policy{root: root}
	if policyType, err := seconfig.Type(root); err == nil {
		p.tree, _ = policydb.ReadSymbols(seconfig.OpenPolicy(root, seconfig.Dir, policyType))
	}
	return p, nil
}

// Close gives the kernel's policy back.
func (p *Policy) Close() {
	if p.kernel != nil {
		_ = p.kernel.Close()
	}
}

// Fixed gives all entries one context; "default" is that of files which containers share. A *ContextError says that it is none, or one that the kernel does not know.
func (p *Policy) Fixed(context string) (Labeler, error) {
	if context == "default" {
		var err error
		if context, err = p.shared(); err != nil {
			return nil, err
		}
	}
	if !strings.Contains(context, ":") {
		return nil, &ContextError{context, `it is neither user:role:type:level, such as system_u:object_r:container_file_t:s0, nor "default"`}
	}
	if err := secontext.Context(context).Check(); err != nil {
		return nil, &ContextError{context, err.Error()}
	}
	context, err := p.canonical(context)
	return Fixed(context), err
}

// FileContexts is FromPolicy with the host's file contexts, as the policy writes contexts. Problems says what of them cannot be used.
func (p *Policy) FileContexts(force bool) (labels Labeler, problems []string, err error) {
	policyType, err := seconfig.Type(p.root)
	if err != nil {
		return nil, nil, err
	}
	contexts, err := filecontexts.Load(p.root, policyType)
	if err != nil {
		return nil, nil, err
	}
	contexts.Rewrite(func(context string) string {
		if canonical, err := p.canonical(context); err == nil {
			return canonical
		}
		return context // setting it says what is wrong with it
	})
	return FromPolicy(contexts, force), contexts.Problems(), nil
}

// shared gives the context of files that containers share.
func (p *Policy) shared() (string, error) {
	policyType, err := seconfig.Type(p.root)
	if err != nil {
		return "", err
	}
	contexts, err := seconfig.ReadContainers(p.root, policyType)
	if err == nil && contexts.File == "" {
		err = fmt.Errorf("%s has no line file=", p.root.Path(seconfig.ContainerContexts(policyType)))
	}
	if err != nil {
		return "", fmt.Errorf("cannot tell the default context: %w: give one with --context", err)
	}
	return contexts.File, nil
}

// canonical gives a context the form in which the policy writes it. It refuses what the kernel does not know; the policy of a tree may be
// about to get its modules.
func (p *Policy) canonical(context string) (string, error) {
	if p.kernel != nil {
		canonical, known, err := p.kernel.Canonical(context)
		if err == nil && !known {
			err = &ContextError{context, "the loaded policy does not know it: is the type spelled right, and its module loaded?"}
		}
		return canonical, err
	}
	if p.tree != nil {
		if canonical, known := p.tree.Canonical(context); known {
			return canonical, nil
		}
	}
	return string(secontext.Context(context).Tidy()), nil
}
