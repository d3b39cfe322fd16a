package kernel

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/selinux-provision/selinux-provision/internal/printable"
)

// DefaultCacheThreshold is the kernel's own threshold of the cache of decisions (AVC_DEF_CACHE_THRESHOLD).
const DefaultCacheThreshold = 512

// CacheThresholdFile is where the threshold stands.
const CacheThresholdFile = mountPoint + "/" + cacheThreshold

const cacheThreshold = "avc/cache_threshold"

// CacheStats says how the kernel's cache of decisions (the access vector cache) fares. What is counted is counted since the boot, by each processor in
// 32 bits: the sums of a host that runs for long go back now and then.
type CacheStats struct {
	Lookups  uint64 `json:"lookups"`  // decisions that were asked for
	Misses   uint64 `json:"misses"`   // of those, how many were not in the cache
	Reclaims uint64 `json:"reclaims"` // entries that had to go to make room for others
	Entries  uint64 `json:"entries"`  // that are in it now
	Buckets  uint64 `json:"buckets"`  // of its hash table
	Longest  uint64 `json:"longest"`  // chain of entries in one bucket
}

// CacheThreshold gives the number of entries above which the kernel's cache of decisions gives up some for each that is new.
func (s *SELinux) CacheThreshold() (int, error) {
	n, err := s.number(cacheThreshold)
	return int(n), err
}

// SetCacheThreshold sets that number until the next boot, and reads it back.
func (s *SELinux) SetCacheThreshold(entries int) error {
	err := s.write(cacheThreshold, []byte(strconv.Itoa(entries)))
	if err != nil {
		return err
	}
	now, err := s.CacheThreshold()
	if err == nil && now != entries {
		err = fmt.Errorf("cannot set %s to %d: the kernel took the order and says %d", s.name+"/"+cacheThreshold, entries, now)
	}
	return err
}

// CacheStats tells how the cache fares, and whether the kernel says so: it may have been built without.
func (s *SELinux) CacheStats() (stats CacheStats, known bool, err error) {
	counted, err := s.read("avc/cache_stats")
	if errors.Is(err, unix.ENOENT) {
		return CacheStats{}, false, nil
	}
	if err != nil {
		return CacheStats{}, false, err
	}
	table, err := s.read("avc/hash_stats")
	if err != nil {
		return CacheStats{}, false, err
	}
	if stats, err = parseCacheStats(string(counted), string(table)); err != nil {
		return CacheStats{}, false, fmt.Errorf("cannot use %s/avc: %w", s.name, err)
	}
	return stats, true, nil
}

// parseCacheStats reads what the kernel counted, a line of names and one of numbers for each processor, and what it says of the table.
func parseCacheStats(counted, table string) (CacheStats, error) {
	var stats CacheStats
	names, lines, _ := strings.Cut(counted, "\n")
	columns := strings.Fields(names)
	for line := range strings.Lines(lines) {
		numbers := strings.Fields(line)
		if len(numbers) == 0 {
			continue
		}
		if len(numbers) != len(columns) {
			return CacheStats{}, fmt.Errorf("the line %s has not a number for each of %s", printable.Quote(line), printable.Quote(names))
		}
		for i, text := range numbers {
			n, err := strconv.ParseUint(text, 10, 32)
			if err != nil {
				return CacheStats{}, fmt.Errorf("%s is not a number", printable.Quote(text))
			}
			switch columns[i] {
			case "lookups":
				stats.Lookups += n
			case "misses":
				stats.Misses += n
			case "reclaims":
				stats.Reclaims += n
			}
		}
	}
	for line := range strings.Lines(table) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		var to *uint64
		switch name {
		case "entries":
			to = &stats.Entries
		case "buckets used":
			to = &stats.Buckets
			_, value, _ = strings.Cut(value, "/")
		case "longest chain":
			to = &stats.Longest
		default:
			continue
		}
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return CacheStats{}, fmt.Errorf("%s is not a number", printable.Quote(value))
		}
		*to = n
	}
	return stats, nil
}
