package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

const (
	denialRecords = 1_000_000
	// denialRounds is how often denials is measured; ausearch and audit2allow, which take minutes, are measured once.
	denialRounds = 3
)

// denials compares reading a large audit log with what an operator does by hand on a machine that has Python.
func (b *bench) denials(ctx context.Context) error {
	policies, err := filepath.Glob("/etc/selinux/default/policy/policy.*")
	if err != nil || len(policies) == 0 {
		return errors.New("there is no policy: install selinux-policy-default")
	}
	policy := policies[len(policies)-1]
	log := filepath.Join(b.scratch, "audit.log")
	if err := writeAuditLog(log); err != nil {
		return err
	}
	defer os.Remove(log)
	host, err := newHost(filepath.Join(b.scratch, "denials"))
	if err != nil {
		return err
	}
	args := []string{"denials", "--input", log, "--policy", policy}
	var ours, theirs samples
	for range denialRounds {
		used, err := b.provision(ctx, host, args...)
		if err != nil {
			return err
		}
		ours.add(used.wall)
	}
	used, err := execute(ctx, "bash", "-o", "pipefail", "-c", `ausearch -m AVC --input "$0" | audit2allow -p "$1"`, log, policy)
	if err != nil {
		return err
	}
	theirs.add(used.wall)
	const goal = 3 * time.Second
	b.add(row{fmt.Sprintf("%d denials of an audit log: `denials` / `ausearch -m AVC \\| audit2allow`", denialRecords), ours.String(), theirs.String(),
		fmt.Sprintf("%.3f", ours.median().Seconds()/theirs.median().Seconds()), "< 3 s", ours.median() < goal})
	peak, err := b.peakMemory(ctx, host, args...)
	if err != nil {
		return err
	}
	b.add(row{"peak memory of `denials` on that log", megabytes(peak), "", "", "< 100 MB", peak < 100e6})
	return nil
}

// writeAuditLog writes denials as a busy host has them: many processes, some hundred files, a few domains and types that Debian's policy
// has too.
func writeAuditLog(name string) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	out := bufio.NewWriterSize(f, 1<<20)
	random := rand.New(rand.NewPCG(1, 2))
	permissions := []string{"read", "read open", "getattr", "write"}
	types := []string{"var_t", "etc_t", "nfs_t", "shadow_t", "var_log_t"}
	classes := []string{"file", "dir", "lnk_file"}
	for i := range denialRecords {
		k := random.IntN(500)
		fmt.Fprintf(out, "type=AVC msg=audit(%d.%03d:%d): avc:  denied  { %s } for  pid=%d comm=\"worker%d\" name=\"file%d\" dev=\"sda1\" ino=%d "+
			"scontext=system_u:system_r:httpd_t:s0:c%d,c%d tcontext=system_u:object_r:%s:s0 tclass=%s permissive=%d\n",
			1700000000+i/5000, i/5%1000, i+1, permissions[k%len(permissions)], 1000+k, k%7, k, 100000+k, k%100, 500+k%100, types[k%len(types)], classes[k%len(classes)], k%2)
	}
	return out.Flush()
}
