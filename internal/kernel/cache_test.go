package kernel

import (
	"strings"
	"testing"
)

const (
	countedCache = "lookups hits misses allocations reclaims frees\n4000000000 3999999000 1000 1001 480 500\n4000000000 3999998000 2000 2000 640 700\n"
	hashedCache  = "entries: 509\nbuckets used: 318/512\nlongest chain: 6\n"
)

func TestCache(t *testing.T) {
	s := fake(t, map[string]string{cacheThreshold: "512", "avc/cache_stats": countedCache, "avc/hash_stats": hashedCache})
	if n, err := s.CacheThreshold(); n != DefaultCacheThreshold || err != nil {
		t.Error(n, err)
	}
	if err := s.SetCacheThreshold(4096); err != nil {
		t.Error(err)
	}
	if n, err := s.CacheThreshold(); n != 4096 || err != nil {
		t.Error(n, err)
	}
	want := CacheStats{Lookups: 8_000_000_000, Misses: 3000, Reclaims: 1120, Entries: 509, Buckets: 512, Longest: 6}
	if got, known, err := s.CacheStats(); got != want || !known || err != nil {
		t.Errorf("%+v, %v, %v", got, known, err)
	}

	if _, known, err := fake(t, map[string]string{cacheThreshold: "512", "avc/hash_stats": hashedCache}).CacheStats(); known || err != nil {
		t.Errorf("a kernel that does not count: %v, %v", known, err)
	}
	none := fake(t, nil)
	if _, err := none.CacheThreshold(); err == nil {
		t.Error("a threshold that is not there was read")
	}
	if err := none.SetCacheThreshold(4096); err == nil {
		t.Error("and was written")
	}
	if err := fake(t, map[string]string{cacheThreshold: "->/dev/zero"}).SetCacheThreshold(4096); err == nil {
		t.Error("a kernel that does not obey was believed")
	}
}

func TestParseCacheStats(t *testing.T) {
	for _, c := range []struct{ name, counted, table, err string }{
		{"whole", countedCache, hashedCache, ""},
		{"names alone", "lookups hits misses allocations reclaims frees\n", hashedCache, ""},
		{"nothing", "", "", ""},
		{"a kernel with more columns", "lookups misses new reclaims\n1 2 3 4\n", hashedCache + "new: many\n", ""},
		{"a line that is cut off", "lookups hits misses\n1 2\n", "", "has not a number for each"},
		{"no number", "lookups\nmany\n", "", `"many" is not a number`},
		{"negative", "lookups\n-1\n", "", `"-1" is not a number`},
		{"no number in the table", "", "entries: many\n", `"many" is not a number`},
		{"no buckets", "", "buckets used: 5\n", "is not a number"},
	} {
		if _, err := parseCacheStats(c.counted, c.table); (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func FuzzParseCacheStats(f *testing.F) {
	f.Add(countedCache, hashedCache)
	f.Add("lookups\n1\n", "buckets used: 1/2\n")
	f.Fuzz(func(t *testing.T, counted, table string) {
		if stats, err := parseCacheStats(counted, table); err != nil && stats != (CacheStats{}) {
			t.Error("numbers beside an error")
		}
	})
}
