package policystore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/selinux-provision/selinux-provision/internal/command"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/internal/plan"
	"github.com/selinux-provision/selinux-provision/internal/seconfig"
)

// Runner runs a tool. command.Tools is one.
type Runner interface {
	Run(ctx context.Context, argv ...string) (command.Output, error)
}

// transaction builds the policy with some parts: for good in the host's store, or in a copy of it to see whether it builds. semodule's
// cost is per run, not per module, and a run is all or nothing.
type transaction struct {
	c          *Compiler
	policyType string
	rec        *Record
	parts      []part
	refused    []Quarantined // declared, and no part of any build
	strip      bool          // without dontaudit rules

	booleansBefore  map[string]bool // what the operator had set of what is declared
	dontauditBefore bool

	aside map[int]bool // the operator's parts that an earlier build of this transaction took out of the store
	trial bool         // there is a copy of the store
	runs  int
	took  time.Duration
	peak  int64 // bytes
}

// lockWait is how long a run waits for somebody else's semodule. libsemanage itself gives up after 5 seconds, which is less than one
// transaction takes.
const lockWait = 3 * time.Minute

// build runs semodule so that the policy has the parts in and no other. After an error the store is as it was.
func (tx *transaction) build(ctx context.Context, in []int, forGood bool) error {
	if forGood {
		return tx.commit(ctx, in)
	}
	if err := tx.prepareTrial(in); err != nil {
		return fmt.Errorf("cannot make a copy of the policy store to try in: %w", err)
	}
	_, refused, err := refusal(tx.semodule(ctx, tx.trialDir(), in))
	if err != nil && !refused {
		return trialError{err}
	}
	return err
}

// trialError is a fault of the host's in a copy of the store. What there was no room or memory for can be asked; it is not the tool's own error, because a
// tool that is killed there leaves the store alone.
type trialError struct{ err error }

func (e trialError) Error() string {
	return "cannot find out what keeps the policy from building: " + e.err.Error()
}

// Is tells of a system call's error.
func (e trialError) Is(target error) bool {
	errno, ok := target.(syscall.Errno)
	return ok && errors.Is(e.err, errno)
}

// commit builds in the host's store. What is the operator's and goes is safe before.
func (tx *transaction) commit(ctx context.Context, in []int) error {
	var (
		steps plan.Plan
		goes  []int
	)
	for i, p := range tx.parts {
		if p.kind == localFile {
			files, err := tx.localFile(p, slices.Contains(in, i))
			if err != nil {
				return fmt.Errorf("cannot look at %s: %w", p.name, err)
			}
			steps = append(steps, files...)
		}
		if p.origin != inStore || slices.Contains(in, i) || tx.aside[i] {
			continue
		}
		goes = append(goes, i)
		from, key := active(tx.policyType)+"/modules/"+p.key(), p.key()
		if p.kind == localFile {
			from, key = active(tx.policyType)+"/"+p.name, local+"/"+p.name
		}
		if err := tx.c.Shelf.take(from, key); err != nil {
			return fmt.Errorf("cannot put %s %s into quarantine: %w", p.kind, p.name, err)
		}
	}
	steps = append(steps, plan.Step{Action: "rebuild", Target: StoreDir, Do: func(ctx context.Context) (string, error) {
		return "", tx.semodule(ctx, "", in)
	}})
	if _, err := steps.Do(ctx, nil, nil); err != nil {
		return err
	}
	for _, i := range goes {
		tx.aside[i] = true
	}
	return nil
}

// localFile gives the steps that put a local file into the store from quarantine, or that take one out of it, and out of /etc, where
// libselinux obeys file_contexts.local and its compiled form as long as they are there: libsemanage takes neither away.
func (tx *transaction) localFile(p part, wanted bool) (steps plan.Plan, err error) {
	root, name, shelved := tx.c.Root, active(tx.policyType)+"/"+p.name, tx.c.Shelf.path(local+"/"+p.name)
	const out, back = "the policy cannot be built with it", "the policy may be built with it again"
	if wanted {
		if p.origin != onShelf {
			return nil, nil
		}
		content, err := root.ReadFile(shelved)
		if err != nil {
			return nil, err
		}
		attr, err := attributes(root, shelved)
		return plan.Plan{plan.Write(root, name, content, attr, back)}, err
	}
	from := name
	if root.Exists(name) {
		steps = append(steps, plan.Remove(root, name, out))
	} else {
		from = shelved
	}
	made := seconfig.ContextsDir(tx.policyType) + "/files/" + p.name
	if same, err := sameFile(root, from, made); err != nil || !same {
		return steps, err // somebody wrote it there
	}
	for _, name := range []string{made, made + ".bin"} {
		if root.Exists(name) {
			steps = append(steps, plan.Remove(root, name, out))
		}
	}
	return steps, nil
}

// trialDir is where the copy is that builds are tried in.
func (tx *transaction) trialDir() string { return tx.c.Scratch + "/trial" }

// prepareTrial makes the copy of the store and of what semodule reads beside it, once, and gives it the local files of the parts.
func (tx *transaction) prepareTrial(in []int) error {
	root, dir := tx.c.Root, tx.trialDir()
	if !tx.trial {
		if err := tx.c.room(tx.policyType, path.Dir(tx.c.Scratch)); err != nil {
			return err
		}
		if err := root.RemoveTree(dir); err != nil {
			return err
		}
		for _, name := range []string{typeDir(tx.policyType), EtcDir + "/" + tx.policyType} {
			if err := root.MkdirAll(dir+path.Dir(name), 0o700); err != nil {
				return err
			}
			if _, err := root.CopyTree(name, dir+name); err != nil {
				return err
			}
		}
		for _, name := range []string{"config", "semanage.conf"} {
			if err := copyFile(root, EtcDir+"/"+name, dir+EtcDir+"/"+name); ignoreMissing(err) != nil {
				return err
			}
		}
		tx.trial = true
	}
	for i, p := range tx.parts {
		if p.kind != localFile {
			continue
		}
		name := active(tx.policyType) + "/" + p.name
		from := name
		if p.origin == onShelf {
			from = tx.c.Shelf.path(local + "/" + p.name)
		}
		var err error
		if slices.Contains(in, i) {
			err = copyFile(root, from, dir+name)
		} else {
			err = root.Remove(dir + name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// semodule runs it in the host's store, or beneath a directory, until nobody else has the store locked.
func (tx *transaction) semodule(ctx context.Context, beneath string, in []int) error {
	argv, err := tx.argv(beneath, in)
	if err != nil {
		return fmt.Errorf("cannot write semodule's input: %w", err)
	}
	for start := time.Now(); ; {
		out, err := tx.c.Tools.Run(ctx, argv...)
		tx.took, tx.peak = tx.took+out.Elapsed, max(tx.peak, out.MaxRSS)
		var failed *command.ExitError
		if !errors.As(err, &failed) || !strings.Contains(failed.Output.Stderr, lockedStore) {
			tx.runs++
			return err
		}
		if time.Since(start) > tx.c.lockWait() {
			return fmt.Errorf("another semodule or setsebool has been holding the policy store for %s: %w", tx.c.lockWait(), err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// argv writes the parts as files and gives the arguments that bring a store, the host's or one beneath a directory, from what it holds
// now to these parts.
func (tx *transaction) argv(beneath string, in []int) ([]string, error) {
	root, input := tx.c.Root, tx.c.Scratch+"/in"
	if err := root.RemoveTree(input); err != nil {
		return nil, err
	}
	have, err := modulesIn(root, beneath+typeDir(tx.policyType))
	if err != nil {
		return nil, err
	}
	argv := []string{"semodule", "--store", tx.policyType}
	if tx.c.Kernel == nil || beneath != "" {
		argv = append(argv, "--noreload")
	}
	if beneath != "" || !root.IsHost() {
		argv = append(argv, "--path", root.Path(beneath+"/"))
	}
	if tx.strip {
		argv = append(argv, "--disable_dontaudit")
	}
	bare := len(argv)
	installs := func(key string, content []byte, lang string) error {
		priority, base, _ := strings.Cut(key, "/")
		name := input + "/" + priority + "/" + base + "." + lang
		if bytes.HasPrefix(content, []byte("BZh")) {
			name += ".bz2" // else libsemanage takes the end of the name for that, and a dot in the rest for the language
		}
		if err := root.MkdirAll(path.Dir(name), 0o700); err != nil {
			return err
		}
		argv = append(argv, "--priority", priority, "--install", root.Path(name))
		return root.WriteFile(name, content, hostfs.Attributes{Mode: 0o600})
	}
	installsFrom := func(dir, key string) error {
		file, lang, err := moduleFile(root, dir)
		if err != nil {
			return err
		}
		content, err := root.ReadFile(file)
		if err != nil {
			return err
		}
		return installs(key, content, lang)
	}
	removes := func(key string) {
		priority, name, _ := strings.Cut(key, "/")
		argv = append(argv, "--priority", priority, "--remove", name)
	}

	files := map[string][]byte{} // of the declared parts, by module
	lang := map[string]string{}
	var order []string
	for i, p := range tx.parts {
		wanted := slices.Contains(in, i)
		_, there := have[p.key()]
		_, vendors := tx.rec.VendorModules[p.key()]
		var err error
		switch {
		case p.kind == localFile:
		case p.origin == declared && wanted:
			name := p.module()
			if files[name] == nil {
				order = append(order, name)
			}
			files[name], lang[name] = append(files[name], p.text...), p.lang
		case p.origin == declared:
		case wanted && p.origin == onShelf:
			err = installsFrom(tx.c.Shelf.path(p.key()), p.key())
		case wanted && (!there || vendors && beneath != ""): // an earlier trial may have put the vendor's in its place
			err = installsFrom(active(tx.policyType)+"/modules/"+p.key(), p.key())
		case !wanted && vendors:
			err = installsFrom(VendorStore+"/"+tx.policyType+"/active/modules/"+p.key(), p.key())
		case !wanted && there:
			removes(p.key())
		}
		if err != nil {
			return nil, err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(have)) {
		if priority, name, _ := splitKey(key); priority == Priority && files[name] == nil {
			removes(key)
		}
	}
	slices.Sort(order)
	for _, name := range order {
		if root.Exists(beneath + active(tx.policyType) + "/modules/disabled/" + name) {
			argv = append(argv, "--enable", name) // declared is declared, whoever switched it off
		}
		if err := installs(strconv.Itoa(Priority)+"/"+name, files[name], lang[name]); err != nil {
			return nil, err
		}
	}
	if len(argv) == bare {
		// An install or a removal rebuilds by itself and semodule refuses --build beside it.
		argv = append(argv, "--build")
	}
	return argv, nil
}
