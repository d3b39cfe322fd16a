package judge

import (
	"maps"
	"strconv"
	"strings"
)

// SameContext tells whether two contexts mean the same: the kernel writes categories in an order and with ranges of its own, so
// that what comes back from it may differ in letters from what went in.
func SameContext(a, b string) bool {
	if a == b {
		return true
	}
	fieldsA, fieldsB := strings.SplitN(a, ":", 4), strings.SplitN(b, ":", 4)
	if len(fieldsA) != 4 || len(fieldsB) != 4 {
		return false
	}
	for i := range 3 {
		if fieldsA[i] != fieldsB[i] {
			return false
		}
	}
	lowA, highA := levels(fieldsA[3])
	lowB, highB := levels(fieldsB[3])
	return lowA.equal(lowB) && highA.equal(highB)
}

// level is a sensitivity with its categories. Names that stand for a range of them in setrans.conf are kept as they are.
type level struct {
	sensitivity string
	categories  map[string]bool
}

func (l level) equal(other level) bool {
	return l.sensitivity == other.sensitivity && maps.Equal(l.categories, other.categories)
}

// levels reads LOW or LOW-HIGH.
func levels(text string) (low, high level) {
	first, second, isRange := strings.Cut(text, "-")
	low = readLevel(first)
	if !isRange {
		return low, low
	}
	return low, readLevel(second)
}

func readLevel(text string) level {
	sensitivity, list, _ := strings.Cut(text, ":")
	l := level{sensitivity: sensitivity, categories: map[string]bool{}}
	if list == "" {
		return l
	}
	for each := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(each, ".")
		from, errFrom := number(first)
		to, errTo := number(last)
		// A policy has at most some thousands of categories; what asks for more is not expanded.
		const most = 1 << 16
		if !isRange || errFrom != nil || errTo != nil || to < from || to > most {
			l.categories[each] = true
			continue
		}
		for n := from; n <= to; n++ {
			l.categories["c"+strconv.Itoa(n)] = true
		}
	}
	return l
}

func number(category string) (int, error) { return strconv.Atoi(strings.TrimPrefix(category, "c")) }
