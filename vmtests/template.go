package vmtests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// StartCopy is Start for tests that begin where another machine's first boot ended: the boot is done once for all of them, its
// memory and disks are kept under the name and a hash of everything that went into it, and each test gets a copy within a second
// or two. The verdict judges that first boot too, on every copy.
func StartCopy(t testing.TB, name string, options Options) *Machine {
	t.Helper()
	return start(t, options, func(ctx context.Context, options Options) (*Machine, error) { return Copy(ctx, name, options) })
}

// Copy gives a machine that has booted once with these options. As with Boot, a machine may be returned beside an error.
func Copy(ctx context.Context, name string, options Options) (*Machine, error) {
	options = options.withDefaults()
	template, err := makeTemplate(ctx, name, options)
	if err != nil {
		return nil, err
	}
	m := &Machine{options: options, snapshots: map[string]snapshot{}, held: []*os.File{template}}
	if err := m.copyFrom(ctx, template.Name()); err != nil {
		return m, fmt.Errorf("cannot copy the machine %s: %w", name, err)
	}
	return m, nil
}

// makeTemplate gives the locked directory of a template, which it makes unless the cache has it.
func makeTemplate(ctx context.Context, name string, options Options) (*os.File, error) {
	images, err := Build(ctx, options.Suite, options.Progress)
	if err != nil {
		return nil, err
	}
	image := images[options.Layout]
	accel, err := accelArgs(ctx, image.Kernel)
	if err != nil {
		return nil, err
	}
	m := &Machine{options: options}
	if image.ready() {
		name += ".ready" // it does not take the lookalike's place in the cache
	}
	version, err := qemuVersion(ctx)
	if err != nil {
		return nil, err
	}
	// Not the reasons for what is allowed: they do not change the machine.
	inputs, err := json.Marshal([]any{formatVersion, version, image.dir, image.Root, accel, options.Ignition, options.Kernel, m.kernelArgs(true), m.devices(image)})
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(CacheDir(), fmt.Sprintf("machine-%s-%s-%s-%s", name, options.Suite, options.Layout, digest(string(inputs))))
	lock, err := lockFile(filepath.Join(CacheDir(), fmt.Sprintf("lock-%s-%s-%s", name, options.Suite, options.Layout)), syscall.LOCK_EX)
	if err != nil {
		return nil, fmt.Errorf("cannot lock the machine %s: %w", name, err)
	}
	defer lock.Close()
	if _, err := os.Stat(dir); err != nil {
		if err := keepBooted(ctx, options, dir); err != nil {
			return nil, err
		}
		removeSuperseded(dir)
	}
	return lockDir(dir, syscall.LOCK_SH)
}

// qemuVersion is what QEMU says of itself: another release does not read the memory that one has written.
func qemuVersion(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "qemu-system-x86_64", "--version").Output()
	if err != nil {
		return "", fmt.Errorf("cannot tell the version of QEMU: %w", err)
	}
	return string(out), nil
}

// keepBooted boots a machine and moves it into dir: its disks, its console, and its memory.
func keepBooted(ctx context.Context, options Options, dir string) (err error) {
	m, err := Boot(ctx, options)
	if m != nil {
		defer m.Close()
	}
	if err != nil {
		return err
	}
	// What the boot wrote is for the disk, as it would be after a while.
	if _, err := m.Run(ctx, "sync"); err != nil {
		return err
	}
	if err := m.saveMemory(ctx, "memory"); err != nil {
		return err
	}
	m.PowerCut()
	unfinished := dir + ".unfinished"
	if err := errors.Join(os.RemoveAll(unfinished), os.Mkdir(unfinished, 0o755)); err != nil {
		return fmt.Errorf("cannot keep the machine: %w", err)
	}
	kept, err := filepath.Glob(m.path("*.qcow2"))
	if err != nil {
		return err
	}
	for _, file := range append(kept, m.path("config.ign"), m.path("console.log"), m.path("memory")) {
		if err := os.Rename(file, filepath.Join(unfinished, filepath.Base(file))); err != nil {
			return fmt.Errorf("cannot keep the machine: %w", err)
		}
	}
	return os.Rename(unfinished, dir)
}

// copyFrom starts the machine as what a template holds. Its disks are layers over the template's, its memory is read from there.
func (m *Machine) copyFrom(ctx context.Context, template string) error {
	begin := time.Now()
	if err := m.makeDir(); err != nil {
		return err
	}
	disks, err := filepath.Glob(filepath.Join(template, "*.qcow2"))
	if err != nil {
		return err
	}
	for _, disk := range disks {
		if err := layer(ctx, disk, "qcow2", m.path(filepath.Base(disk))); err != nil {
			return err
		}
	}
	for _, name := range []string{"config.ign", "console.log"} {
		content, err := os.ReadFile(filepath.Join(template, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(m.path(name), content, 0o600); err != nil {
			return err
		}
	}
	if err := m.start(ctx, "-incoming", "exec:cat "+filepath.Join(template, "memory")); err != nil {
		return err
	}
	if err := m.arrive(ctx); err != nil {
		return err
	}
	if err := m.waitShell(ctx); err != nil {
		return err
	}
	m.options.Progress(fmt.Sprintf("copied %s (%.1fs)", strings.TrimPrefix(filepath.Base(template), "machine-"), time.Since(begin).Seconds()))
	return nil
}

// saveMemory stops the machine and writes its memory and the state of its devices to a file in its directory.
func (m *Machine) saveMemory(ctx context.Context, file string) error {
	for _, step := range []struct {
		command   string
		arguments any
	}{
		{"stop", nil},
		// QEMU's own limit spares a network; this is a local file.
		{"migrate-set-parameters", map[string]any{"max-bandwidth": int64(1) << 40}},
		{"migrate", map[string]any{"uri": "exec:cat > " + m.path(file)}},
	} {
		if _, err := m.monitor.execute(step.command, step.arguments); err != nil {
			return err
		}
	}
	return m.poll(ctx, "query-migrate", map[string]bool{"completed": true, "failed": false, "cancelled": false})
}

// arrive waits until the memory of another machine is read, and lets the machine run.
func (m *Machine) arrive(ctx context.Context) error {
	if err := m.poll(ctx, "query-status", map[string]bool{"paused": true, "internal-error": false}); err != nil {
		return err
	}
	_, err := m.monitor.execute("cont", nil)
	return err
}

// poll asks QEMU until its status is one of those given, which say whether it is a good one.
func (m *Machine) poll(ctx context.Context, query string, ends map[string]bool) error {
	for {
		answer, err := m.monitor.execute(query, nil)
		if err != nil {
			log, _ := os.ReadFile(m.path("qemu.log"))
			return fmt.Errorf("%w\n%s", err, lastLines(string(log), 5))
		}
		var now struct {
			Status string `json:"status"`
		}
		if err := json.Unmarshal(answer, &now); err != nil {
			return fmt.Errorf("cannot %s: %w", query, err)
		}
		if good, end := ends[now.Status]; good {
			return nil
		} else if end {
			return fmt.Errorf("cannot move the machine's memory: QEMU says %s", now.Status)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
