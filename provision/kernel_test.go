package provision

import (
	"strings"
	"testing"
)

// The size of the kernel's cache of decisions is a number in sane bounds.
func TestAVCCacheThreshold(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"{avc_cache_threshold: 128}": 128, "{avc_cache_threshold: 65536}": 65536, "{}": 0, "": 0} {
		doc, err := Parse("c.yaml", strings.NewReader("version: 1\nkernel: "+text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var s State
		set(&s.AVCCacheThreshold, doc.avcCacheThreshold)
		if s.AVCCacheThreshold != want {
			t.Errorf("%s: %d", text, s.AVCCacheThreshold)
		}
	}
	for text, want := range map[string]string{
		"{avc_cache_threshold: 127}":    `kernel.avc_cache_threshold: cannot use "127" as a number of entries: write a number from 128 to 65536, or remove the key`,
		"{avc_cache_threshold: 65537}":  `kernel.avc_cache_threshold: cannot use "65537" as a number of entries: write a number from 128 to 65536, or remove the key`,
		"{avc_cache_threshold: '4096'}": `kernel.avc_cache_threshold: cannot use "4096" as a number of entries: write a number from 128 to 65536, or remove the key`,
		"{avc_cache_threshold: 4k}":     `kernel.avc_cache_threshold: cannot use "4k" as a number of entries: write a number from 128 to 65536, or remove the key`,
		"{avc_cache_treshold: 4096}":    `kernel.avc_cache_treshold: cannot use an unknown key: did you mean "avc_cache_threshold"?`,
		"4096":                          `kernel: cannot use "4096" here: write keys with values: avc_cache_threshold`,
	} {
		if _, err := Parse("c.yaml", strings.NewReader("version: 1\nkernel: "+text)); err == nil || err.Error() != "c.yaml:2: "+want {
			t.Errorf("%s: %v\nwant %s", text, err, want)
		}
	}
}
