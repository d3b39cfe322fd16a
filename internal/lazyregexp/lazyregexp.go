// Package lazyregexp gives regular expressions that are compiled when they are first needed. A stage of the boot starts the whole program and
// needs next to none of them: compiled at its start, they were a tenth of what a start costs.
package lazyregexp

import (
	"regexp"
	"sync"
)

// New gives what compiles a regular expression at its first call. It panics if the expression is wrong, as regexp.MustCompile does.
func New(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}
