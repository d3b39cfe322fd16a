package policystore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/command"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// fakeHost is a small host with a store, and tools that only look like semodule: what a policy is made of is all that there is in it.
type fakeHost struct {
	t    *testing.T
	dir  string
	root *hostfs.Root

	calls  [][]string // what was run
	refuse func(modules map[string]string) (said string)
	lies   bool                 // semodule says that it succeeded and does nothing
	before func(call int) error // an error that a call fails with; nil: none
	kernel *fakeKernel
}

type fakeKernel struct {
	loads    uint32
	deaf     bool // it does not load
	booleans map[string]bool
	set      map[string]bool
}

func (k *fakeKernel) PolicyLoads() (uint32, error) { return k.loads, nil }
func (k *fakeKernel) Boolean(name string) (current, found bool, err error) {
	current, found = k.booleans[name]
	return current, found, nil
}
func (k *fakeKernel) SetBooleans(values map[string]bool) error {
	k.set = values
	maps.Copy(k.booleans, values)
	return nil
}

// newHost has the vendor's modules base and legacy at 100, built.
func newHost(t *testing.T) *fakeHost {
	t.Helper()
	dir, root := image(t)
	h := &fakeHost{t: t, dir: dir, root: root}
	for name, content := range map[string]string{
		VendorDir + "/semanage.conf": "expand-check=1\n", EtcDir + "/semanage.conf": "expand-check=1\n",
		VendorDir + "/mcs/contexts/lxc_contexts": "file = \"u:r:t:s0\"\n", EtcDir + "/mcs/contexts/lxc_contexts": "file = \"u:r:t:s0\"\n",
		VendorDir + "/mcs/contexts/files/file_contexts": "/etc u:r:etc_t:s0\n", VendorDir + "/mcs/policy/policy.33": "the vendor's",
		"/usr/lib/tmpfiles.d/selinux.conf": "L /var/lib/selinux - - - - ../../usr/lib/selinux/policy\n",
	} {
		h.write(name, content)
	}
	for _, store := range []string{VendorStore, StoreDir} {
		for _, name := range []string{"base", "legacy"} {
			h.module(store+"/mcs/active", "100/"+name, "(type "+name+"_t)")
		}
	}
	if err := h.build(h.dir, h.modules()); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *fakeHost) write(name, content string) {
	h.t.Helper()
	file := filepath.Join(h.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o644)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *fakeHost) read(name string) string {
	content, err := os.ReadFile(filepath.Join(h.dir, name))
	if err != nil {
		return ""
	}
	return string(content)
}

func (h *fakeHost) module(active, key, text string) {
	h.t.Helper()
	h.write(active+"/modules/"+key+"/cil", text)
	h.write(active+"/modules/"+key+"/lang_ext", "cil")
}

// modules are those of the store, with their texts.
func (h *fakeHost) modules() map[string]string { return modulesAt(h.dir) }

func modulesAt(dir string) map[string]string {
	found := map[string]string{}
	files, _ := filepath.Glob(filepath.Join(dir, active("mcs"), "modules/*/*/cil"))
	for _, file := range files {
		content, _ := os.ReadFile(file)
		name := filepath.Dir(file)
		found[filepath.Base(filepath.Dir(name))+"/"+filepath.Base(name)] = string(content)
	}
	return found
}

// build puts a policy of the modules in place, beneath dir.
func (h *fakeHost) build(dir string, modules map[string]string) error {
	store := filepath.Join(dir, active("mcs"))
	if err := os.RemoveAll(filepath.Join(store, "modules")); err != nil {
		return err
	}
	// A binary policy of a version that nobody knows: what its booleans are is asked of nobody.
	policy, contexts := "\x8c\xff\x7c\xf9\x08\x00\x00\x00SE Linux\x63\x00\x00\x00", ""
	for _, key := range slices.Sorted(maps.Keys(modules)) {
		policy += key + "\n"
		for line := range strings.Lines(modules[key]) {
			var path, kind, user, role, name string
			if n, _ := fmt.Sscanf(line, "(filecon %q %s (%s %s %s", &path, &kind, &user, &role, &name); n == 5 {
				contexts += path + " " + user + ":" + role + ":" + name + ":s0\n"
			}
		}
		at := filepath.Join(store, "modules", key)
		if err := errors.Join(os.MkdirAll(at, 0o700), os.WriteFile(at+"/cil", []byte(modules[key]), 0o600), os.WriteFile(at+"/lang_ext", []byte("cil"), 0o600)); err != nil {
			return err
		}
	}
	number, _ := os.ReadFile(store + "/commit_num")
	number = append(number, 'x')
	etc := filepath.Join(dir, EtcDir, "mcs")
	for name, content := range map[string]string{
		store + "/policy.kern": policy, etc + "/policy/policy.33": policy, store + "/file_contexts": contexts, etc + "/contexts/files/file_contexts": contexts,
		store + "/seusers": "", etc + "/seusers": "", store + "/commit_num": string(number),
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o644)); err != nil {
			return err
		}
	}
	return nil
}

// Run is semodule and load_policy.
func (h *fakeHost) Run(_ context.Context, argv ...string) (command.Output, error) {
	h.calls = append(h.calls, argv)
	fail := func(said string) (command.Output, error) {
		return command.Output{}, &command.ExitError{Tool: argv[0], Code: 1, Output: command.Output{Stderr: said}}
	}
	if h.before != nil {
		if err := h.before(len(h.calls)); err != nil {
			return command.Output{}, err
		}
	}
	if argv[0] != "semodule" || h.lies {
		return command.Output{}, nil
	}
	dir, priority, strip := h.dir, "400", false
	modules := map[string]string{}
	var enabled []string
	for i := 1; i < len(argv); i++ {
		value := ""
		if i+1 < len(argv) {
			value = argv[i+1]
		}
		switch argv[i] {
		case "--path":
			dir, i = value, i+1
			modules = modulesAt(dir)
		case "--store":
			i++
		case "--priority":
			priority, i = value, i+1
		case "--enable":
			enabled, i = append(enabled, value), i+1
		case "--disable_dontaudit":
			strip = true
		case "--remove":
			if _, there := modules[priority+"/"+value]; !there {
				return fail("libsemanage.semanage_direct_remove_key: Unable to remove module " + value + " at priority " + priority + ".")
			}
			delete(modules, priority+"/"+value)
			i++
		case "--install":
			content, err := os.ReadFile(value)
			if err != nil {
				return fail(err.Error())
			}
			modules[priority+"/"+strings.TrimSuffix(filepath.Base(value), filepath.Ext(value))] = string(content)
			i++
		}
	}
	if h.refuse != nil {
		if said := h.refuse(modules); said != "" {
			return fail(said)
		}
	}
	for _, name := range enabled {
		_ = os.Remove(filepath.Join(dir, active("mcs"), "modules/disabled", name))
	}
	if err := h.build(dir, modules); err != nil {
		return command.Output{}, err
	}
	if strip {
		h.write(strings.TrimPrefix(dir, h.dir)+"/"+active("mcs")+"/"+dontauditFlag, "")
	}
	if h.kernel != nil && !h.kernel.deaf && !slices.Contains(argv, "--noreload") {
		h.kernel.loads++
	}
	return command.Output{}, nil
}

// compiler is the one under test.
func (h *fakeHost) compiler() *Compiler {
	c := &Compiler{Root: h.root, Tools: h, Scratch: "/var/lib/selinux-provision/transaction", Shelf: h.shelf()}
	if h.kernel != nil {
		c.Kernel = h.kernel
	}
	return c
}

func (h *fakeHost) shelf() Shelf {
	return Shelf{Root: h.root, Quarantine: "/var/lib/selinux-provision/quarantine", Kept: "/var/lib/selinux-provision/kept", Copies: "/var/lib/selinux-provision/copies"}
}

// record is what is remembered of the host as newHost makes it.
func (h *fakeHost) record() *Record {
	h.t.Helper()
	vendor, err := FindVendor(h.root)
	if err != nil {
		h.t.Fatal(err)
	}
	return &Record{Type: "mcs", Vendor: vendor.Fingerprint, VendorModules: vendor.Modules, VendorEtc: vendor.Etc}
}

// apply plans and does; it gives what the plan said it would do.
func (h *fakeHost) apply(rec *Record, want Declared) (actions []string, err error) {
	h.t.Helper()
	want.Digest = fmt.Sprint(want)
	steps, err := h.compiler().Plan("mcs", rec, want)
	if err != nil {
		return nil, err
	}
	for _, s := range steps {
		actions = append(actions, s.Action+" "+s.Target)
	}
	_, err = steps.Do(h.t.Context(), nil, nil)
	return actions, err
}
