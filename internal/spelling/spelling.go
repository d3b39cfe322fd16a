// Package spelling guesses which word a misspelt one was meant to be.
package spelling

import (
	"slices"
	"strings"
)

// Nearest gives the known word that a misspelt one is closest to, "" if none is close.
func Nearest(word string, known []string) string {
	const longest = 40
	if word == "" || len(word) > longest {
		return ""
	}
	word = strings.ToLower(word)
	known = slices.Sorted(slices.Values(known))
	// A word that was cut short is the likeliest.
	if i := slices.IndexFunc(known, func(k string) bool { return len(word) >= 3 && strings.HasPrefix(k, word) }); i >= 0 {
		return known[i]
	}
	best, least := "", 1+max(1, min(3, len(word)/2))
	for _, k := range known {
		if d := Distance(word, k); d < least {
			best, least = k, d
		}
	}
	return best
}

// Distance counts the letters to add, drop, change or swap with their neighbour to make one word the other.
func Distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(change, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
