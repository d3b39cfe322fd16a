package vmtests

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/selinux-provision/selinux-provision/vmtests/internal/link"
)

// Options say what machine to boot. The zero value is a fresh one of today's layout.
type Options struct {
	Suite      Suite    // default Trixie
	Layout     Layout   // default Today
	Kernel     Kernel   // default the suite's own
	Ignition   []byte   // config for the first boot, as JSON; none: Ignition runs without
	KernelArgs []string // added to the kernel command line
	CPUs       int      // default 1: two machines run at a time, and two processors of an emulated one are slower than one
	MemoryMB   int      // default 1536
	Disks      []Disk   // empty disks beside the machine's own
	Network    bool     // QEMU's own: the guest, once it has the address 10.0.2.15/24, reaches the host's loopback interface as 10.0.2.2
	Allowed    []Allowed

	// Progress gets one line for each step of building and booting.
	Progress func(string)
}

// Disk is an empty disk, found in the guest as /dev/disk/by-id/virtio-NAME.
type Disk struct {
	Name   string
	SizeMB int
}

func (o Options) withDefaults() Options {
	if o.Suite == "" {
		o.Suite = Trixie
	}
	if o.Layout == "" {
		o.Layout = Today
	}
	if o.CPUs == 0 {
		o.CPUs = 1
	}
	if o.MemoryMB == 0 {
		o.MemoryMB = 1536
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	return o
}

// Machine is one virtual machine with its own disks. It outlives its QEMU processes: each boot is a new one.
type Machine struct {
	options Options
	dir     string       // disks, sockets, console log
	inUse   *os.File     // locked, so that another test process leaves dir alone
	held    []*os.File   // directories of the cache that it uses, locked
	configs *http.Server // serves a config that a ready image fetches; nil without one

	qemu    *exec.Cmd
	exited  chan struct{} // closed when qemu has ended
	monitor *monitor
	shell   *shell

	snapshots map[string]snapshot
	failed    []string // what a test found wrong with it
}

// snapshot remembers what a restored machine must find again: the same /usr, and the console as it was.
type snapshot struct {
	options Options
	console int64
}

// Boot makes a machine and starts it. It returns when systemd is done with the boot, whether or not units failed. After an error
// the machine is returned as well if it exists, for a look at its console; Close it in any case.
func Boot(ctx context.Context, options Options) (*Machine, error) {
	m, err := newMachine(ctx, options)
	if err != nil {
		return nil, err
	}
	return m, m.PowerOn(ctx)
}

// newMachine makes a machine that is off.
func newMachine(ctx context.Context, options Options) (*Machine, error) {
	options = options.withDefaults()
	images, err := Build(ctx, options.Suite, options.Progress)
	if err != nil {
		return nil, err
	}
	m := &Machine{options: options, snapshots: map[string]snapshot{}}
	if err := m.makeDisks(ctx, images[options.Layout]); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func (m *Machine) makeDisks(ctx context.Context, image *Image) error {
	if err := m.makeDir(); err != nil {
		return err
	}
	if err := m.hold(image.dir); err != nil {
		return err
	}
	if err := layer(ctx, image.Root, image.rootFormat(), m.path("root.qcow2")); err != nil {
		return err
	}
	if !image.ready() {
		if err := layer(ctx, image.BootFS, "raw", m.path("boot.qcow2")); err != nil {
			return err
		}
	}
	for _, disk := range m.options.Disks {
		if err := tool(ctx, "qemu-img", "create", "-q", "-f", "qcow2", m.path("disk-"+disk.Name+".qcow2"), strconv.Itoa(disk.SizeMB)+"M"); err != nil {
			return err
		}
	}
	config := m.options.Ignition
	if image.ready() {
		var err error
		if config, err = withShell(ctx, config); err != nil {
			return err
		}
		if len(config) > largeConfig {
			if config, m.configs, err = serveConfig(config); err != nil {
				return err
			}
		}
	}
	return os.WriteFile(m.path("config.ign"), config, 0o600)
}

// makeDir makes the machine's own directory.
func (m *Machine) makeDir() error {
	parent := filepath.Join(CacheDir(), "run")
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("cannot make the machine's directory: %w", err)
	}
	removeAbandoned(parent)
	dir, err := os.MkdirTemp(parent, "")
	if err != nil {
		return fmt.Errorf("cannot make the machine's directory: %w", err)
	}
	m.dir = dir
	if m.inUse, err = lockFile(m.path("in-use"), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("cannot make the machine's directory: %w", err)
	}
	return nil
}

// layer makes a disk that starts as the given one and keeps what is written to it to itself.
func layer(ctx context.Context, base, format, disk string) error {
	return tool(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", format, "-b", base, disk)
}

// hold keeps a directory of the cache from being removed as superseded for as long as the machine exists. A ready image has none.
func (m *Machine) hold(dir string) error {
	if dir == "" {
		return nil
	}
	f, err := lockDir(dir, syscall.LOCK_SH)
	if err != nil {
		return fmt.Errorf("cannot use the image: %w", err)
	}
	m.held = append(m.held, f)
	return nil
}

// removeAbandoned removes the directories of machines whose process was killed: nobody holds their lock any more.
func removeAbandoned(parent string) {
	locks, _ := filepath.Glob(filepath.Join(parent, "*", "in-use"))
	for _, lock := range locks {
		if f, err := lockFile(lock, syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			_ = os.RemoveAll(filepath.Dir(lock))
			f.Close()
		}
	}
}

func (m *Machine) path(name string) string { return filepath.Join(m.dir, name) }

// tool runs a program of the host.
func tool(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot run %s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// firstBoot does what Flatcar's boot loader does: it looks for the flag file on the boot partition.
func (m *Machine) firstBoot(ctx context.Context) (bool, error) {
	raw := m.path("boot.raw")
	defer os.Remove(raw)
	if err := tool(ctx, "qemu-img", "convert", "-O", "raw", m.path("boot.qcow2"), raw); err != nil {
		return false, err
	}
	listing, err := exec.CommandContext(ctx, "mdir", "-b", "-i", raw, "::/flatcar").CombinedOutput()
	if err != nil {
		return false, fmt.Errorf("cannot read the boot partition: %w: %s", err, listing)
	}
	return strings.Contains(string(listing), "/first_boot"), nil
}

// kernelArgs returns what a boot loader passes at each boot. usr is the argument that says where /usr comes from.
func kernelArgs(usr string) []string {
	return []string{
		"root=LABEL=ROOT", "rootfstype=ext4", "rw",
		usr, "mount.usrfstype=btrfs", "mount.usrflags=ro",
		// Debian's list begins with AppArmor. A list without it needs neither security= nor selinux=, which Flatcar does not pass.
		"lsm=landlock,lockdown,yama,selinux",
		"console=ttyS0", "8250.nr_uarts=1", "panic=-1", "ignition.platform.id=qemu",
		// With addresses at random, QEMU's translation cache now and then hits a bad pattern: PID 1 then takes 20 s to load the policy
		// instead of one.
		"norandmaps",
		// To boot faster without KVM. lsm= is without bpf too: systemd would read the kernel's types for it, which takes seconds.
		"fsck.mode=skip", "mitigations=off", "random.trust_cpu=on", "tsc=reliable", "no_timer_check", "loglevel=6",
		"systemd.show_status=error", "rd.udev.log_level=err",
		// 112 is "rep_good" (arch/x86/include/asm/cpufeatures.h; 5.10 knows no names here): without it, a page is emptied by plain instructions,
		// which QEMU translates once, where "rep stosq" is a turn for each eight bytes. And the kernel's ciphers are not put to the test at each boot.
		"clearcpuid=112", "cryptomgr.notests",
		// A busy host may keep a processor of the guest waiting for longer than the watchdog allows. What hangs runs into the test's limit.
		"nosoftlockup",
	}
}

// kernelArgs returns the command line that the harness passes in the boot loader's place.
func (m *Machine) kernelArgs(firstBoot bool) string {
	args := kernelArgs("mount.usr=LABEL=USR")
	if firstBoot {
		args = append(args, "ignition.firstboot=1")
	}
	if m.options.Kernel != OwnKernel {
		args = append(args, "vmtest.modules") // the initrd is to mount the disk with its modules
	}
	return strings.Join(append(args, m.options.KernelArgs...), " ")
}

// PowerOn starts the machine from its disks, with changed options if any are given. It returns when systemd is done with the boot.
func (m *Machine) PowerOn(ctx context.Context, changes ...func(*Options)) error {
	if m.qemu != nil {
		return errors.New("cannot power on: the machine runs")
	}
	for _, change := range changes {
		change(&m.options)
	}
	start := time.Now()
	if err := m.start(ctx); err != nil {
		return err
	}
	if err := m.waitBooted(ctx); err != nil {
		return fmt.Errorf("cannot boot: %w\n%s", err, lastLines(m.Console(), 30))
	}
	m.options.Progress(fmt.Sprintf("booted %s, layout %s (%.1fs)", m.options.Suite, m.options.Layout, time.Since(start).Seconds()))
	return nil
}

// start runs QEMU and waits until its sockets answer. more are arguments that say where the machine goes on, if it does not boot.
func (m *Machine) start(ctx context.Context, more ...string) error {
	images, err := Build(ctx, m.options.Suite, m.options.Progress)
	if err != nil {
		return err
	}
	image := images[m.options.Layout]
	if err := m.hold(image.dir); err != nil {
		return err
	}
	accel, err := accelArgs(ctx, image.Kernel)
	if err != nil {
		return err
	}
	var kernel []string
	if !image.ready() {
		firstBoot, err := m.firstBoot(ctx)
		if err != nil {
			return err
		}
		initrd, vmlinux := image.Initrd, image.Kernel
		if m.options.Kernel != OwnKernel {
			other, err := BuildKernel(ctx, m.options.Suite, m.options.Kernel, m.options.Progress)
			if err != nil {
				return err
			}
			initrd, vmlinux = other.Initrd, other.Kernel
			if err := m.hold(other.dir); err != nil {
				return err
			}
			kernel = drive("modules", other.Modules, "raw", true)
		}
		if firstBoot && m.largeConfig() {
			with := m.path("initrd")
			defer os.Remove(with)
			if err := initrdWith(initrd, "usr/lib/ignition/user.ign", m.options.Ignition, with); err != nil {
				return fmt.Errorf("cannot put the Ignition config into the initrd: %w", err)
			}
			initrd = with
		}
		kernel = append(kernel, "-kernel", vmlinux, "-initrd", initrd, "-append", m.kernelArgs(firstBoot))
	}
	args := slices.Concat(accel, kernel, m.devices(image), more)

	log, err := os.OpenFile(m.path("qemu.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("cannot start QEMU: %w", err)
	}
	defer log.Close()
	for _, socket := range []string{"qmp.sock", "shell.sock"} {
		_ = os.Remove(m.path(socket))
	}
	cmd := exec.Command("qemu-system-x86_64", args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = m.dir, log, log
	exited, err := startTied(cmd)
	if err != nil {
		return fmt.Errorf("cannot start QEMU: %w", err)
	}
	m.qemu, m.exited = cmd, exited

	for {
		if m.monitor, err = dialMonitor(m.path("qmp.sock")); err == nil {
			break
		}
		select {
		case <-exited:
			m.forget()
			text, _ := os.ReadFile(m.path("qemu.log"))
			return fmt.Errorf("cannot start QEMU: %s", lastLines(string(text), 5))
		case <-ctx.Done():
			m.PowerCut()
			return fmt.Errorf("cannot start QEMU: %w", ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	if m.shell, err = dialShell(m.path("shell.sock")); err != nil {
		m.PowerCut()
		return fmt.Errorf("cannot reach the guest's shell: %w", err)
	}
	return nil
}

// AttachUsr plugs in the /usr image of a suite while the machine runs, found in the guest as /dev/disk/by-id/virtio-other-usr: the
// partition that an OS update was written to.
func (m *Machine) AttachUsr(ctx context.Context, suite Suite) error {
	images, err := Build(ctx, suite, m.options.Progress)
	if err != nil {
		return err
	}
	image := images[m.options.Layout]
	if err := m.hold(image.dir); err != nil {
		return err
	}
	for _, call := range []struct {
		command   string
		arguments map[string]any
	}{
		{"blockdev-add", map[string]any{"driver": "raw", "node-name": "other-usr", "read-only": true,
			"file": map[string]any{"driver": "file", "filename": image.Usr, "read-only": true}}},
		{"device_add", map[string]any{"driver": "virtio-blk-pci", "bus": freeSlot, "drive": "other-usr", "id": "other-usr", "serial": "other-usr"}},
	} {
		if _, err := m.monitor.execute(call.command, call.arguments); err != nil {
			return fmt.Errorf("cannot attach another /usr: %w", err)
		}
	}
	return nil
}

// largeConfig tells whether the Ignition config comes in the initrd, as a cloud image's own does, because it is too large for fw_cfg:
// the kernel reads that in quadratic time, which is more than a minute for the 3 MB of a config with our binary in it.
func (m *Machine) largeConfig() bool { return len(m.options.Ignition) > largeConfig }

const largeConfig = 256 << 10

// initrdWith writes an initrd and behind it an archive with one more file. The kernel unpacks both.
func initrdWith(initrd, name string, content []byte, to string) error {
	base, err := os.ReadFile(initrd)
	if err != nil {
		return err
	}
	out := bytes.NewBuffer(base)
	pad := func() { out.Write(make([]byte, -out.Len()&3)) }
	entry := func(name string, mode int, content []byte) {
		pad()
		// The "newc" format of cpio: number of inode, mode, owner, group, links, time, size, four numbers of devices, length of the name, checksum.
		fmt.Fprintf(out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", 0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
		out.WriteString(name + "\x00")
		pad()
		out.Write(content)
	}
	entry(path.Dir(name), syscall.S_IFDIR|0o755, nil) // those above it are there
	entry(name, syscall.S_IFREG|0o644, content)
	entry("TRAILER!!!", 0, nil)
	return os.WriteFile(to, out.Bytes(), 0o600)
}

// devices are QEMU's arguments for everything but the processor and the kernel. Files are relative to the machine's directory.
func (m *Machine) devices(image *Image) []string {
	nic := "none"
	if image.ready() || m.options.Network { // a ready image's Ignition may have to fetch
		nic = "user,model=virtio-net-pci"
	}
	args := []string{
		"-machine", "q35,sata=off,smbus=off", "-nodefaults", "-display", "none", "-no-reboot", "-nic", nic,
		"-smp", strconv.Itoa(m.options.CPUs), "-m", strconv.Itoa(m.options.MemoryMB),
		"-chardev", "file,id=console,path=console.log,append=on", "-serial", "chardev:console",
		"-qmp", "unix:qmp.sock,server=on,wait=off",
		"-device", "virtio-rng-pci",
		"-device", "virtio-serial-pci", "-chardev", "socket,id=shell,path=shell.sock,server=on,wait=off",
		"-device", "virtserialport,chardev=shell,name=" + link.PortName,
	}
	args = append(args, drive("root", "root.qcow2", "qcow2", false)...)
	if !image.ready() {
		boot := drive("boot", "boot.qcow2", "qcow2", false)
		// A real disk empties its cache within moments. QEMU keeps it until the guest asks, which vfat does not do at unmount: the removal of
		// the first-boot flag would be lost in a power cut a minute later.
		boot[len(boot)-1] += ",write-cache=off"
		args = append(args, boot...)
		args = append(args, drive("usr", image.Usr, "raw", true)...)
	}
	for _, disk := range m.options.Disks {
		args = append(args, drive(disk.Name, "disk-"+disk.Name+".qcow2", "qcow2", false)...)
	}
	if image.ready() || len(m.options.Ignition) > 0 && !m.largeConfig() {
		args = append(args, "-fw_cfg", "name="+image.configName()+",file=config.ign")
	}
	// A free slot: q35's own bus takes no device while the machine runs.
	return append(args, "-device", "pcie-root-port,id="+freeSlot+",chassis=1,slot=1")
}

const freeSlot = "free"

// startTied starts a program that dies with this process, however this process ends: a test that runs into its time limit is killed
// without a chance to clean up. The kernel ties the program to the thread that started it, so that thread is kept until the end.
func startTied(cmd *exec.Cmd) (exited chan struct{}, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	exited = make(chan struct{})
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(exited)
		}
	}()
	return exited, <-started
}

// drive attaches a disk. cache=unsafe: a flush by the guest reaches the host's page cache, which outlives a killed QEMU, and no more.
func drive(name, file, format string, readOnly bool) []string {
	mode := "off"
	if readOnly {
		mode = "on"
	}
	return []string{"-drive", fmt.Sprintf("if=none,id=%s,file=%s,format=%s,readonly=%s,cache=unsafe", name, file, format, mode),
		"-device", fmt.Sprintf("virtio-blk-pci,drive=%s,serial=%s", name, name)}
}

// waitShell returns when the guest's shell answers.
func (m *Machine) waitShell(ctx context.Context) error {
	select {
	case <-m.shell.up:
		return nil
	case <-m.exited:
		m.forget()
		return errors.New("the machine went down before its shell came up")
	case <-ctx.Done():
		return fmt.Errorf("no shell: %w", ctx.Err())
	}
}

// waitBooted returns when systemd has done everything that a boot queues, however long that takes on a busy host, as long as it moves on.
func (m *Machine) waitBooted(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	qemu := m.monitor
	ctx, stop := whileAlive(ctx, func() string { return m.signs(qemu) })
	defer stop()
	out, err := Output{}, m.waitShell(ctx)
	if err == nil {
		out, err = m.Run(ctx, "systemctl is-system-running --wait")
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return err
	}
	switch state := strings.TrimSpace(out.Stdout); state {
	case "running", "degraded": // Failed units are for the verdict.
		return nil
	default:
		return fmt.Errorf("systemd says %q %s", state, out.Stderr)
	}
}

// signs are those of a guest that moves on: how much it has written to its console, and how often it has used its disks. That its
// processors are busy is none.
func (m *Machine) signs(qemu *monitor) string {
	var disks []struct {
		Stats struct {
			Reads   int64 `json:"rd_operations"`
			Writes  int64 `json:"wr_operations"`
			Flushes int64 `json:"flush_operations"`
		} `json:"stats"`
	}
	answer, err := qemu.execute("query-blockstats", nil)
	if err == nil {
		err = json.Unmarshal(answer, &disks)
	}
	return fmt.Sprint(m.consoleSize(), disks, err)
}

// silence is how long a guest may show no sign of life: longer than a step of a boot takes on a busy host, and than systemd waits for a
// device that does not come, of which it says more than the harness can.
const silence = 3 * time.Minute

// whileAlive ends a context when the signs have been the same for too long. stop returns when nobody asks for signs any more.
func whileAlive(ctx context.Context, signs func() string) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(5 * time.Second)
		defer tick.Stop()
		last, since := "", time.Now()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if now := signs(); now != last {
				last, since = now, time.Now()
			} else if time.Since(since) >= silence {
				cancel(fmt.Errorf("the guest hangs: nothing on its console and its disks for %s", silence))
				return
			}
		}
	}()
	return ctx, func() { cancel(nil); <-ended }
}

// forget drops what belonged to a QEMU that has ended.
func (m *Machine) forget() {
	if m.monitor != nil {
		m.monitor.conn.Close()
	}
	if m.shell != nil {
		m.shell.conn.Close()
	}
	m.qemu, m.monitor, m.shell = nil, nil, nil
}

// Reboot shuts the machine down in good order and boots it again, with changed options if any are given: another Suite is an
// update of the operating system, or its rollback.
func (m *Machine) Reboot(ctx context.Context, changes ...func(*Options)) error {
	if err := m.goDown(ctx, "reboot"); err != nil {
		return err
	}
	return m.PowerOn(ctx, changes...)
}

// Shutdown powers the machine off in good order. Its disks stay, PowerOn starts it again.
func (m *Machine) Shutdown(ctx context.Context) error { return m.goDown(ctx, "poweroff") }

func (m *Machine) goDown(ctx context.Context, how string) error {
	if m.qemu == nil {
		return fmt.Errorf("cannot %s: the machine is off", how)
	}
	if _, err := m.Run(ctx, "systemctl --no-block "+how); err != nil && !errors.Is(err, errGone) {
		return err
	}
	return m.WaitOff(ctx)
}

// WaitOff returns when the machine has gone down by itself, however long that takes on a busy host, as long as it moves on.
func (m *Machine) WaitOff(ctx context.Context) error {
	if m.qemu == nil {
		return nil
	}
	qemu := m.monitor
	ctx, stop := whileAlive(ctx, func() string { return m.signs(qemu) })
	defer stop()
	select {
	case <-m.exited:
		m.forget()
		return nil
	case <-ctx.Done():
		return fmt.Errorf("cannot see the machine go down: %w\n%s", context.Cause(ctx), lastLines(m.Console(), 30))
	}
}

// PowerCut ends the machine at once, as if its plug were pulled. What the guest has not flushed is lost.
func (m *Machine) PowerCut() {
	if m.qemu == nil {
		return
	}
	_ = m.qemu.Process.Kill()
	<-m.exited
	m.forget()
}

// Snapshot keeps the running machine, memory and disks, under a name.
func (m *Machine) Snapshot(name string) error {
	if m.qemu == nil {
		return errors.New("cannot take a snapshot: the machine is off")
	}
	if err := m.monitor.human("savevm " + name); err != nil {
		return err
	}
	m.snapshots[name] = snapshot{options: m.options, console: m.consoleSize()}
	return nil
}

// Restore brings the machine back to a snapshot of its own, whatever has happened to it since.
func (m *Machine) Restore(ctx context.Context, name string) error {
	s, ok := m.snapshots[name]
	if !ok {
		return fmt.Errorf("cannot restore snapshot %s: there is none", name)
	}
	// Always in a new QEMU: one that goes back in time does not take its TSC back, and the guest's clock jumps ahead of its timers.
	m.PowerCut()
	m.options = s.options
	if err := os.Truncate(m.path("console.log"), s.console); err != nil {
		return fmt.Errorf("cannot restore snapshot %s: %w", name, err)
	}
	if err := m.start(ctx, "-loadvm", name); err != nil {
		return err
	}
	return m.waitShell(ctx)
}

// Console returns everything that the machine has said on its serial console, without the sequences that colour it.
func (m *Machine) Console() string {
	text, err := os.ReadFile(m.path("console.log"))
	if err != nil {
		return ""
	}
	return terminalSequence().ReplaceAllString(string(text), "")
}

func terminalSequence() *regexp.Regexp {
	return regexp.MustCompile("\x1b(\\[[0-9;:?!]*[a-zA-Z]|\\][^\a\x1b]*(\a|\x1b\\\\))")
}

func (m *Machine) consoleSize() int64 {
	info, err := os.Stat(m.path("console.log"))
	if err != nil {
		return 0
	}
	return info.Size()
}

// Close ends the machine and removes its disks.
func (m *Machine) Close() {
	m.PowerCut()
	if m.configs != nil {
		_ = m.configs.Close()
	}
	if m.dir != "" {
		_ = os.RemoveAll(m.dir)
	}
	for _, f := range append(m.held, m.inUse) {
		if f != nil {
			f.Close()
		}
	}
}
