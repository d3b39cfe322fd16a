package judge

import (
	"cmp"
	"errors"

	"github.com/selinux-provision/selinux-provision/internal/secontext"
)

// ErrNoDefault says that a rule leaves the context to the image, and that the image has no default for volumes.
var ErrNoDefault = errors.New("it names no context, and the image's lxc_contexts has no \"file\" to take in its place")

// Want gives the context that the rule asks for. Where it names none, that is the image's default for the files of containers, at level
// s0, which every container may read; with Level it is at that level.
func (r *Rule) Want(defaultContext string) (string, error) {
	if r.Context != "" {
		return r.Context, nil
	}
	// Without a level it is shared: a volume that is nobody's has no categories, whatever the image says.
	context := secontext.Context(defaultContext).WithLevel(cmp.Or(r.Level, "s0"))
	if context.Check() != nil {
		return "", ErrNoDefault
	}
	return string(context), nil
}
