package vmtests

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// formatVersion goes into every cache key: raise it when the way images are built changes and no other input does.
const formatVersion = "3"

// The lookalike's own files, laid over the Debian root.
//
//go:embed all:lookalike
var lookalikeFiles embed.FS

// What Flatcar's policy is made from, beside Debian's source of the reference policy.
//
//go:embed policy
var policyFiles embed.FS

// Suite is a generation of the operating system: a Debian release with its own kernel, systemd and SELinux tools.
type Suite string

// The suites.
const (
	Trixie Suite = "trixie" // kernel 6.12, systemd 257, policy.34: like Flatcar stable 4593
	Forky  Suite = "forky"  // a newer kernel, systemd and policy.35: the operating system after an update
)

// Layout says where the SELinux configuration lies, which changed over Flatcar's releases.
type Layout string

const (
	// LTS2023 has a plain /etc on ROOT, and links from there into /usr that tmpfiles makes.
	LTS2023 Layout = "LTS2023"
	// SymlinkEra has /etc as an overlay whose lower layer still holds the links into /usr.
	SymlinkEra Layout = "SymlinkEra"
	// Today has regular files in /etc's lower layer, and compatibility links in /usr that point to them.
	Today Layout = "Today"
	// Confext has the same files, and /etc merged by systemd-confext instead of mounted by a script of the initrd.
	Confext Layout = "Confext"
)

// Layouts returns every layout, oldest first.
func Layouts() []Layout { return []Layout{LTS2023, SymlinkEra, Today, Confext} }

func packages(suite Suite) []string {
	all := []string{
		"systemd", "systemd-sysv", "dbus", "udev", "kmod", "passwd", "procps", "iproute2", "util-linux", "mount",
		"linux-image-cloud-amd64", "dracut-core", "ignition", "systemd-cryptsetup",
		"policycoreutils", "selinux-utils", "semodule-utils", "checkpolicy", "auditd",
		// What builds the policy.
		"selinux-policy-src", "make", "m4", "gawk", "python3-minimal", "zstd",
		"e2fsprogs", "xfsprogs", "btrfs-progs", "dosfstools", "fdisk",
		"docker.io", "docker-cli", "busybox-static", "strace", "attr",
		// For volumes of every kind: NFS and SMB are served by the kernel, on the loopback interface.
		"lvm2", "xorriso", "nfs-kernel-server", "nfs-common", "ksmbd-tools", "cifs-utils", "bindfs",
	}
	if suite == Trixie { // the runtimes beside Docker are tested in one generation
		all = append(all, "podman", "crun")
	}
	return all
}

// Image is one generation of the operating system in one layout, ready to boot.
type Image struct {
	Suite  Suite
	Layout Layout
	Kernel string // uncompressed: the guest's own decompressor is slow without KVM
	Initrd string
	Usr    string // raw, Btrfs, only ever attached read-only
	Root   string // raw, ext4, backing file of a machine's own disk
	BootFS string // raw, vfat, holds the first-boot flag

	dir string // in the cache; "" for a ready image
}

// CacheDir is where images and running machines' disks are kept.
func CacheDir() string {
	if dir := os.Getenv("VMTEST_CACHE"); dir != "" {
		return dir
	}
	return "/var/cache/selinux-provision-vmtests"
}

// Build returns the images of one suite in every layout, from the cache if their inputs are unchanged. progress gets one line a step.
func Build(ctx context.Context, suite Suite, progress func(string)) (map[Layout]*Image, error) {
	if progress == nil {
		progress = func(string) {}
	}
	if path := readyImage(); path != "" {
		return map[Layout]*Image{Today: {Suite: suite, Layout: Today, Root: path}}, nil
	}
	b := &builder{ctx: ctx, suite: suite, progress: progress}
	guest, err := guestProgram()
	if err != nil {
		return nil, err
	}
	base := b.baseDir()
	files, err := treeDigest(lookalikeFiles)
	if err != nil {
		return nil, err
	}
	sources, err := treeDigest(policyFiles)
	if err != nil {
		return nil, err
	}
	policy := filepath.Join(CacheDir(), fmt.Sprintf("policy-%s-%s", suite, digest(base, sources)))
	dir := filepath.Join(CacheDir(), fmt.Sprintf("image-%s-%s", suite, digest(policy, files, string(guest))))

	err = b.build(
		part{string(suite) + " root", base, b.makeBase},
		part{"policy of " + string(suite), policy, func(out string) error { return b.makePolicy(base, out) }},
		part{string(suite) + " images", dir, func(out string) error { return b.makeImages(base, policy, out, guest) }},
	)
	if err != nil {
		return nil, err
	}
	images := map[Layout]*Image{}
	for _, layout := range Layouts() {
		images[layout] = &Image{
			Suite: suite, Layout: layout, dir: dir,
			Kernel: filepath.Join(dir, "vmlinux"),
			Initrd: filepath.Join(dir, "initrd"),
			BootFS: filepath.Join(dir, "boot.img"),
			Usr:    filepath.Join(dir, "usr-"+string(layout)+".img"),
			Root:   filepath.Join(dir, "root-"+string(layout)+".img"),
		}
	}
	return images, nil
}

func digest(parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

func treeDigest(tree embed.FS) (string, error) {
	var parts []string
	err := fs.WalkDir(tree, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := tree.ReadFile(path)
		parts = append(parts, path, string(content))
		return err
	})
	return digest(parts...), err
}

// lockCache keeps two test processes from building the images of one suite at once.
func lockCache(suite Suite) (unlock func(), err error) {
	if err := os.MkdirAll(CacheDir(), 0o755); err != nil {
		return nil, fmt.Errorf("cannot make the image cache: %w", err)
	}
	f, err := lockFile(filepath.Join(CacheDir(), "lock-"+string(suite)), syscall.LOCK_EX)
	if err != nil {
		return nil, fmt.Errorf("cannot lock the image cache: %w", err)
	}
	return func() { f.Close() }, nil
}

// lockDir locks a directory of the cache that must exist, until it is closed or the process ends.
func lockDir(dir string, how int) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), how); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// removeSuperseded removes the directories of the cache that have the name of this one up to its digest and that no machine uses:
// what they were made from has changed. One that cannot be removed now is the next build's to remove.
func removeSuperseded(dir string) {
	name := filepath.Base(dir)
	same, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), name[:strings.LastIndex(name, "-")+1]+"*"))
	for _, other := range same {
		if other == dir || strings.Count(filepath.Base(other), "-") != strings.Count(name, "-") {
			continue
		}
		if f, err := lockDir(other, syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			_ = os.RemoveAll(other)
			f.Close()
		}
	}
}

// lockFile locks a file, made if need be, until it is closed or the process ends.
func lockFile(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), how); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// baseDir is where the Debian root of the suite is kept.
func (b *builder) baseDir() string {
	return filepath.Join(CacheDir(), fmt.Sprintf("base-%s-%s", b.suite, digest(formatVersion, string(b.suite), strings.Join(packages(b.suite), " "))))
}

type builder struct {
	ctx      context.Context
	suite    Suite
	progress func(string)
}

// part is a directory of the cache and what makes it.
type part struct {
	what string // it is called in an error
	dir  string
	make func(out string) error
}

// build makes the last of some parts unless the cache has it, and before it those that it is made from; then it removes those that they take
// the place of. Nobody else builds for the suite meanwhile.
func (b *builder) build(parts ...part) error {
	if _, err := os.Stat(parts[len(parts)-1].dir); err == nil {
		return nil
	}
	unlock, err := lockCache(b.suite)
	if err != nil {
		return err
	}
	defer unlock()
	for _, p := range parts {
		if err := b.once(p.dir, p.make); err != nil {
			return fmt.Errorf("cannot build the %s: %w", p.what, err)
		}
	}
	for _, p := range parts {
		removeSuperseded(p.dir)
	}
	return nil
}

// once makes dir with the given function, beside its place, and renames it when it is whole.
func (b *builder) once(dir string, build func(dir string) error) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if os.Geteuid() != 0 {
		return errors.New("building images needs root: run as root, or with sudo, once")
	}
	unfinished := dir + ".unfinished"
	if err := os.RemoveAll(unfinished); err != nil {
		return err
	}
	if err := os.Mkdir(unfinished, 0o755); err != nil {
		return err
	}
	if err := build(unfinished); err != nil {
		return err
	}
	return os.Rename(unfinished, dir)
}

// step says what is done now, and gives the function that says how long it took.
func (b *builder) step(format string, args ...any) func() {
	what, start := fmt.Sprintf(format, args...), time.Now()
	b.progress(fmt.Sprintf("%s: %s ...", b.suite, what))
	return func() { b.progress(fmt.Sprintf("%s: %s (%.1fs)", b.suite, what, time.Since(start).Seconds())) }
}

func (b *builder) run(name string, args ...string) error {
	_, err := b.output(name, args...)
	return err
}

func (b *builder) output(name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(b.ctx, name, args...)
	// INITRD=No: the packaged initrd would be built for nothing, the lookalike makes its own.
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive", "INITRD=No")
	var out, all bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &all
	if err := cmd.Run(); err != nil {
		tail := all.Bytes()
		if len(tail) == 0 {
			tail = out.Bytes()
		}
		return nil, fmt.Errorf("cannot run %s: %w\n%s", name, err, lastLines(string(tail), 20))
	}
	return out.Bytes(), nil
}

// inRoot runs a program in the tree with /dev and /proc there, in a mount namespace that goes away with it.
func (b *builder) inRoot(root string, args ...string) error { return b.inRootWith(nil, root, args...) }

// inRootWith is inRoot with directories from elsewhere bound over those of the tree: their paths in the tree by where they come from.
func (b *builder) inRootWith(binds map[string]string, root string, args ...string) error {
	enter := `mount --bind /dev "$0/dev" && mount -t proc proc "$0/proc" && mount -t tmpfs tmpfs "$0/tmp" && `
	for _, from := range slices.Sorted(maps.Keys(binds)) {
		enter += fmt.Sprintf(`mount --bind '%s' "$0"'%s' && `, from, binds[from])
	}
	return b.run("unshare", append([]string{"--mount", "sh", "-c", enter + `exec chroot "$0" "$@"`, root}, args...)...)
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// guestProgram compiles the harness's end in the guest, once in a process: each boot asks for it, and the linker takes a second.
var guestProgram = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "vmtest-guest-")
	if err != nil {
		return nil, fmt.Errorf("cannot build the guest's shell: %w", err)
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", filepath.Join(dir, "guest"),
		"github.com/selinux-provision/selinux-provision/vmtests/cmd/vmtest-guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cannot build the guest's shell: %w\n%s", err, out)
	}
	return os.ReadFile(filepath.Join(dir, "guest"))
})

// makeBase unpacks and configures the Debian packages.
func (b *builder) makeBase(root string) error {
	defer b.step("packages")()
	// dpkg leaves out what nobody reads, and waits for no disk. mmdebstrap has an option to leave things out, which runs the first packages through a Python program.
	leaveOut := `cd "$1/usr/share" && rm -rf man/* doc/* locale/* info/* && printf 'path-exclude=/usr/share/%s/*\n' man doc locale info >"$1/etc/dpkg/dpkg.cfg.d/leave-out"`
	return b.unpack(string(b.suite), root, "--variant=minbase", "--include="+strings.Join(packages(b.suite), ","), "--essential-hook="+leaveOut, "--dpkgopt=force-unsafe-io")
}

// unpack unpacks Debian packages of a release, with the mirror and the settings of the host's apt where it has any.
func (b *builder) unpack(release, root string, args ...string) error {
	// A mirror frozen in time is beyond its own expiry date: a host set up for one says so in its apt configuration.
	if out, err := b.output("apt-config", "dump", "Acquire::Check-Valid-Until", "Acquire::Check-Date"); err == nil {
		for line := range strings.Lines(string(out)) {
			if line = strings.TrimSuffix(strings.TrimSpace(line), ";"); line != "" {
				args = append(args, "--aptopt="+line)
			}
		}
	}
	return b.run("mmdebstrap", append(args, release, root)...)
}
