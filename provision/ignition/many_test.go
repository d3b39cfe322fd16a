package ignition

import (
	"bytes"
	"fmt"
	"syscall"
	"testing"
	"time"
)

// A file with four times as many things takes some four times as long, not sixteen times.
//
// Proves V14: 20,000 files are checked in linear time.
func TestManyFiles(t *testing.T) {
	config := func(n int) []byte {
		var b bytes.Buffer
		b.WriteString(`{"ignition":{"version":"3.3.0"},"storage":{"files":[`)
		for i := range n {
			fmt.Fprintf(&b, `%s{"path":"/opt/files/%d","contents":{"source":"data:,hello"}}`, comma(i), i)
		}
		b.WriteString(`],"links":[`)
		for i := range n / 10 {
			fmt.Fprintf(&b, `%s{"path":"/opt/links/%d","target":"/opt/files/%d"}`, comma(i), i, i)
		}
		b.WriteString(`]},"systemd":{"units":[`)
		for i := range n / 10 {
			fmt.Fprintf(&b, `%s{"name":"u%d.service","enabled":true,"contents":"[Service]\nExecStart=/opt/links/%d\n[Install]\nWantedBy=multi-user.target\n"}`, comma(i), i, i)
		}
		b.WriteString("]}}")
		return b.Bytes()
	}
	took := func(n int) time.Duration {
		content := config(n)
		begin := processorTime(t)
		if _, _, err := Check("many.ign", bytes.NewReader(content), Options{}); err != nil {
			t.Fatal(err)
		}
		return processorTime(t) - begin
	}
	took(1000) // what is made once
	few, many := took(5000), took(20000)
	// What others do on the machine makes either longer, never shorter.
	for range 2 {
		if many <= 9*few {
			break
		}
		few, many = min(few, took(5000)), min(many, took(20000))
	}
	t.Logf("5,000 files: %s, 20,000 files: %s", few, many)
	if many > 9*few {
		t.Errorf("20,000 files take %s, 5,000 take %s", many, few)
	}
}

func comma(i int) string {
	if i == 0 {
		return ""
	}
	return ","
}

// processorTime is what this process has used, which others that run beside it change little.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano())
}
