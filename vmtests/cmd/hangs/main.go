// Command hangs mounts a FUSE file system at each directory, and stops answering when /run/hangs is there, in a test of those who look at it:
//
//	hangs DIRECTORY...
//
// It answers again when the file is gone. Do not use it on a machine that you need.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/fusetest"
)

func main() {
	var servers []*fusetest.Server
	for _, dir := range os.Args[1:] {
		server, err := fusetest.Serve(dir)
		if err != nil {
			fmt.Fprintln(os.Stderr, "hangs:", err)
			os.Exit(1)
		}
		servers = append(servers, server)
	}
	fmt.Println("mounted")
	for hangs := false; ; time.Sleep(100 * time.Millisecond) {
		_, err := os.Stat("/run/hangs")
		if want := err == nil; want != hangs {
			hangs = want
			for _, s := range servers {
				if hangs {
					s.HangAll()
				} else {
					s.Answer()
				}
			}
		}
	}
}
