package relabel

import (
	"errors"
	"fmt"
	"strings"
)

// Fixed gives all entries one context, which must have passed CheckContext.
func Fixed(context string) Labeler { return fixed(context) }

type fixed string

// Want gives the one context.
func (f fixed) Want(string, Kind, string) (string, Reason) { return string(f), "" }

func (f fixed) String() string { return string(f) }

// maxContext is the longest context in bytes: the kernel takes a page (security/selinux/selinuxfs.c, SIMPLE_TRANSACTION_LIMIT).
const maxContext = 4000

// CheckContext says what is wrong with the form of a context: user:role:type, and a range with MLS or MCS. Whether the loaded policy
// has these names, only the kernel knows.
func CheckContext(context string) error {
	fields := strings.SplitN(context, ":", 4)
	if len(fields) < 3 {
		return fmt.Errorf("cannot use context %q: it is not user:role:type:level, such as system_u:object_r:container_file_t:s0", context)
	}
	if len(context) > maxContext {
		return fmt.Errorf("cannot use a context of %d bytes: at most %d", len(context), maxContext)
	}
	for i, what := range []string{"user", "role", "type"} {
		// A type of a CIL block has a dot: "my_container.process".
		if !isName(strings.ReplaceAll(fields[i], ".", "_")) {
			return fmt.Errorf("cannot use context %q: %q is not the name of a %s", context, fields[i], what)
		}
	}
	if len(fields) == 4 {
		if err := checkRange(fields[3]); err != nil {
			return fmt.Errorf("cannot use context %q: %w", context, err)
		}
	}
	return nil
}

// checkRange checks "LEVEL" or "LEVEL-LEVEL", where a level is a sensitivity, and ":" with categories, "c1,c3.c7".
func checkRange(text string) error {
	levels := strings.Split(text, "-")
	if len(levels) > 2 {
		return errors.New("a range has at most two levels: s0-s0:c0.c1023")
	}
	for _, level := range levels {
		sensitivity, categories, found := strings.Cut(level, ":")
		if !isName(sensitivity) {
			return fmt.Errorf("%q is not a sensitivity such as s0", sensitivity)
		}
		if !found {
			continue
		}
		for category := range strings.SplitSeq(categories, ",") {
			first, last, between := strings.Cut(category, ".")
			if !isName(first) || between && !isName(last) {
				return fmt.Errorf("%q is not a category such as c1 or c0.c1023", category)
			}
		}
	}
	return nil
}

func isName(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		inner := letter || c >= '0' && c <= '9' || c == '_' || c == '-'
		if i == 0 && !letter || !inner {
			return false
		}
	}
	return true
}
