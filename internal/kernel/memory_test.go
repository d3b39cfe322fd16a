package kernel

import (
	"os"
	"strings"
	"testing"
)

func TestSmallPages(t *testing.T) {
	if err := SmallPages(); err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(status), "THP_enabled:\t0\n") {
		t.Errorf("/proc/self/status:\n%s", status)
	}
}
