package secontext

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/selinux-provision/selinux-provision/internal/printable"
)

// Range is what a context may have as its last part: a level, or all from one to another. With one level both are that. The zero value
// is s0.
type Range struct{ Low, High Level }

// Level is a sensitivity with its categories. The zero value is s0.
type Level struct {
	Sensitivity int
	Categories  Categories
}

// Categories is a set of categories, ordered, with a gap between each two spans.
type Categories []Span

// Span is the categories from First to Last.
type Span struct{ First, Last uint16 }

// ParseRange reads "s0", "s0:c1,c3.c7" or two such levels with "-" between them, as the kernel does: a range of categories goes upwards, and so do
// the levels (security/selinux/ss/mls.c, mls_context_to_sid and mls_range_isvalid).
func ParseRange(text string) (Range, error) {
	first, second, two := strings.Cut(text, "-")
	low, err := parseLevel(first)
	if err != nil || !two {
		return Range{low, low}, err
	}
	high, err := parseLevel(second)
	if err == nil && !high.dominates(low) {
		err = fmt.Errorf("%s is no range: its second level has not all of the first", printable.Quote(text))
	}
	return Range{low, high}, err
}

func parseLevel(text string) (Level, error) {
	name, list, found := strings.Cut(text, ":")
	sensitivity, ok := number(name, "s")
	if !ok {
		return Level{}, fmt.Errorf("%s is not a sensitivity such as s0", printable.Quote(name))
	}
	l := Level{Sensitivity: int(sensitivity)}
	if !found {
		return l, nil
	}
	for each := range strings.SplitSeq(list, ",") {
		from, to, between := strings.Cut(each, ".")
		first, ok := number(from, "c")
		last := first
		if between && ok {
			last, ok = number(to, "c")
		}
		if !ok {
			return Level{}, fmt.Errorf("%s is not a category such as c1 or c0.c1023", printable.Quote(each))
		}
		if between && last <= first {
			return Level{}, fmt.Errorf("%s is no range of categories: the second is not higher than the first", printable.Quote(each))
		}
		l.Categories = append(l.Categories, Span{first, last})
	}
	l.Categories = l.Categories.merged()
	return l, nil
}

// number reads "c17". No policy has a name with a zero before other digits.
func number(text, letter string) (uint16, bool) {
	digits, ok := strings.CutPrefix(text, letter)
	if !ok || digits == "" || len(digits) > 1 && digits[0] == '0' {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	return uint16(n), err == nil
}

func (c Categories) merged() Categories {
	slices.SortFunc(c, func(a, b Span) int { return cmp.Compare(a.First, b.First) })
	out := c[:1]
	for _, s := range c[1:] {
		if last := &out[len(out)-1]; int(s.First) <= int(last.Last)+1 {
			last.Last = max(last.Last, s.Last)
		} else {
			out = append(out, s)
		}
	}
	return out
}

// Contain tells whether all of other are among c.
func (c Categories) Contain(other Categories) bool {
	return !slices.ContainsFunc(other, func(o Span) bool {
		return !slices.ContainsFunc(c, func(s Span) bool { return s.First <= o.First && o.Last <= s.Last })
	})
}

// String gives the categories as the kernel writes them: "c1,c2,c4.c6".
func (c Categories) String() string {
	var b strings.Builder
	for i, s := range c {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "c%d", s.First)
		switch s.Last - s.First {
		case 0:
		case 1:
			fmt.Fprintf(&b, ",c%d", s.Last)
		default:
			fmt.Fprintf(&b, ".c%d", s.Last)
		}
	}
	return b.String()
}

func (l Level) equal(other Level) bool {
	return l.Sensitivity == other.Sensitivity && slices.Equal(l.Categories, other.Categories)
}

func (l Level) dominates(other Level) bool {
	return l.Sensitivity >= other.Sensitivity && l.Categories.Contain(other.Categories)
}

// String gives the level as the kernel writes it.
func (l Level) String() string {
	text := "s" + strconv.Itoa(l.Sensitivity)
	if len(l.Categories) > 0 {
		text += ":" + l.Categories.String()
	}
	return text
}

// cil gives "s0:c1,c3.c5" as (s0 (c1 (range c3 c5))).
func (l Level) cil() string {
	parts := make([]string, len(l.Categories))
	for i, s := range l.Categories {
		parts[i] = fmt.Sprintf("c%d", s.First)
		if s.Last > s.First {
			parts[i] = fmt.Sprintf("(range c%d c%d)", s.First, s.Last)
		}
	}
	if len(parts) == 0 {
		return fmt.Sprintf("(s%d)", l.Sensitivity)
	}
	return fmt.Sprintf("(s%d (%s))", l.Sensitivity, strings.Join(parts, " "))
}

// Equal tells whether two ranges have the same levels.
func (r Range) Equal(other Range) bool { return r.Low.equal(other.Low) && r.High.equal(other.High) }

// String gives the range as the kernel writes it: one level if both are the same.
func (r Range) String() string {
	if r.Low.equal(r.High) {
		return r.Low.String()
	}
	return r.Low.String() + "-" + r.High.String()
}
