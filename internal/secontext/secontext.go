// Package secontext is the one place that knows what a security context looks like: its parts, its level, when two of them mean the
// same, and how each is written for mount(8) and in CIL.
//
// Two contexts are the same if the kernel would write them alike. For the level that can be told from the text: categories in another
// order or as a range are the same ones. That one type is another's alias only the policy knows: package kernel asks the loaded one for
// the canonical form, package policydb one in a file. Contexts are made canonical where they are read; what is compared after that is
// compared with Same.
//
// Do not use it to find out whether a policy knows a context: package kernel and package policydb answer that.
package secontext

import (
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/selinux/go-selinux/label"

	"github.com/selinux-provision/selinux-provision/internal/printable"
)

// None stands in file contexts where a path gets no context.
const None Context = "<<none>>"

// Context is a security context, user:role:type:level, as it was read. Its parts can be asked for whatever it is, since records and
// disks hold anything; only Check says that it is one.
type Context string

// part reads without a copy: it is asked for each record of a log.
func (c Context) part(n int) string {
	rest := string(c)
	for range n {
		_, after, found := strings.Cut(rest, ":")
		if !found {
			return ""
		}
		rest = after
	}
	if n == 3 {
		return rest // a level has colons of its own
	}
	part, _, _ := strings.Cut(rest, ":")
	return part
}

// User gives the SELinux user.
func (c Context) User() string { return c.part(0) }

// Role gives the role.
func (c Context) Role() string { return c.part(1) }

// Type gives the type, for a process its domain.
func (c Context) Type() string { return c.part(2) }

// Level gives the level or range with its categories, "" without MCS.
func (c Context) Level() string { return c.part(3) }

// WithType gives the context with another type.
func (c Context) WithType(name string) Context {
	text := c.User() + ":" + c.Role() + ":" + name
	if level := c.Level(); level != "" {
		text += ":" + level
	}
	return Context(text)
}

// WithLevel gives the context with another level or range.
func (c Context) WithLevel(level string) Context {
	return Context(c.User() + ":" + c.Role() + ":" + c.Type() + ":" + level)
}

// MaxSize is the longest context in bytes: the kernel takes a page with some bytes of its own in it (security/selinux/selinuxfs.c,
// SIMPLE_TRANSACTION_LIMIT).
const MaxSize = 4000

const (
	maxName = 255

	form = "it is not user:role:type:level, such as system_u:object_r:container_file_t:s0"
)

// Check says what is wrong with the form of a context. Whether a policy has these names, only the policy knows.
func (c Context) Check() error {
	if len(c) > MaxSize {
		return fmt.Errorf("it has %d bytes, and the kernel takes at most %d", len(c), MaxSize)
	}
	if strings.Count(string(c), ":") < 3 {
		return errors.New(form)
	}
	for _, part := range []struct{ what, name string }{{"user", c.User()}, {"role", c.Role()}, {"type", c.Type()}} {
		if !IsName(part.name) {
			return fmt.Errorf("%s is not the name of a %s", printable.Quote(part.name), part.what)
		}
	}
	_, err := ParseRange(c.Level())
	return err
}

// IsName tells whether CIL and libsemanage take a text as a name: a letter, then letters, digits, "_", "-", and single dots between
// them, which a name in a CIL block has: "my_container.process".
func IsName(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		inner := letter || c >= '0' && c <= '9' || c == '_' || c == '-'
		dot := c == '.' && i < len(s)-1 && s[i+1] != '.'
		if i == 0 && !letter || !inner && !dot {
			return false
		}
	}
	return true
}

// Same tells whether two contexts mean the same. Levels that cannot be read are the same only to the letter.
func Same(a, b string) bool {
	if a == b {
		return true
	}
	one, other := Context(a), Context(b)
	if one.User() != other.User() || one.Role() != other.Role() || one.Type() != other.Type() {
		return false
	}
	r, err := ParseRange(one.Level())
	s, otherErr := ParseRange(other.Level())
	return err == nil && otherErr == nil && r.Equal(s)
}

// Tidy gives the context with its level as the kernel writes it. One whose level cannot be read stays as it is.
func (c Context) Tidy() Context {
	r, err := ParseRange(c.Level())
	if err != nil {
		return c
	}
	return c.WithLevel(r.String())
}

// Shared tells whether a context is at the level that every container may use.
func (c Context) Shared() bool {
	r, err := ParseRange(c.Level())
	return err == nil && r.Equal(Range{})
}

// MountOption gives the mount option for the context, as mount(8), fstab and unit files take it and container runtimes write it: in
// quotes, for the commas of its categories. fsconfig(2) takes the bare context.
func (c Context) MountOption() string { return label.FormatMountLabel("", string(c)) }

// CIL gives the context as CIL has it. It must have passed Check.
func (c Context) CIL() string {
	if c == None {
		return "()"
	}
	level := "(" + c.Level() + ")" // which no compiler takes
	if r, err := ParseRange(c.Level()); err == nil {
		level = r.Low.cil() + " " + r.High.cil()
	}
	return fmt.Sprintf("(%s %s %s (%s))", c.User(), c.Role(), c.Type(), level)
}
