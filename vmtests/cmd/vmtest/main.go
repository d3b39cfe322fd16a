package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/selinux-provision/selinux-provision/vmtests"
)

func main() {
	ctx := context.Background()
	m, err := vmtests.Boot(ctx, vmtests.Options{Progress: func(s string) { fmt.Println(s) }, KernelArgs: os.Args[1:]})
	if m != nil {
		defer m.Close()
		fmt.Println(m.Console())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	for _, c := range []string{"systemd-analyze; systemd-analyze blame | head -30", "systemctl --failed", "getenforce; sestatus; id -Z", "ls -laZ / /etc/selinux/ /var/lib", "mount | grep -E 'usr|etc|root'", "journalctl -b --no-pager", "semodule -l | wc -l; semodule -l | head -3; auditctl -l; ls -la /etc/systemd/system"} {
		t := time.Now()
		o, err := m.Run(ctx, c)
		fmt.Println(">>", c, err, o.Exit, time.Since(t), "\n", o.Stdout, o.Stderr)
	}
}
