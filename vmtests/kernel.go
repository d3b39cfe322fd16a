package vmtests

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// Kernel is a Debian release whose kernel a suite boots with in place of its own. The programs of the machine stay the suite's.
type Kernel string

// The kernels.
const (
	OwnKernel Kernel = ""         // the suite's
	Bookworm  Kernel = "bookworm" // 6.1: between those of Flatcar's LTS releases, 5.15 and 6.6
	Bullseye  Kernel = "bullseye" // 5.10: older than that of any release of Flatcar's that lives
)

// KernelImage is a kernel with its initrd and a disk with its modules, which the initrd mounts over those of /usr.
type KernelImage struct {
	Kernel  string // uncompressed
	Initrd  string
	Modules string // raw, ext4, label MODULES

	dir string // in the cache
}

// BuildKernel returns the image of another kernel for a suite, from the cache if its inputs are unchanged.
func BuildKernel(ctx context.Context, suite Suite, kernel Kernel, progress func(string)) (*KernelImage, error) {
	b := &builder{ctx: ctx, suite: suite, progress: progress}
	files, err := treeDigest(lookalikeFiles)
	if err != nil {
		return nil, err
	}
	base := b.baseDir()
	dir := filepath.Join(CacheDir(), fmt.Sprintf("kernel-%s-%s-%s", suite, kernel, digest(base, files, string(kernel))))
	if _, err := os.Stat(dir); err != nil {
		unlock, err := lockCache(suite)
		if err != nil {
			return nil, err
		}
		defer unlock()
		if err := b.once(base, b.makeBase); err != nil {
			return nil, fmt.Errorf("cannot build the %s root: %w", suite, err)
		}
		if err := b.once(dir, func(out string) error { return b.makeKernel(base, kernel, out) }); err != nil {
			return nil, fmt.Errorf("cannot build the kernel of %s for %s: %w", kernel, suite, err)
		}
		removeSuperseded(dir)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	return &KernelImage{in("vmlinux"), in("initrd"), in("modules.img"), dir}, nil
}

// makeKernel takes a kernel out of its Debian package and builds an initrd for it with the programs of the suite.
func (b *builder) makeKernel(base string, kernel Kernel, out string) error {
	defer b.step("kernel of %s", kernel)()
	root, packages := filepath.Join(out, "tree"), filepath.Join(out, "packages")
	if err := b.run("cp", "-a", "--reflink=auto", base, root); err != nil {
		return err
	}
	if err := addFiles(lookalikeFiles, "lookalike", root); err != nil {
		return err
	}
	if err := b.unpack(string(kernel), packages, "--variant=extract", "--include=linux-image-cloud-amd64",
		"--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", "--skip=check/empty"); err != nil {
		return err
	}
	for _, dir := range []string{"usr/lib/modules", "boot"} {
		if err := os.RemoveAll(filepath.Join(root, dir)); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(packages, dir), filepath.Join(root, dir)); err != nil {
			return err
		}
	}
	if err := b.makeKernelAndInitrd(root, out); err != nil {
		return err
	}
	modules := filepath.Join(out, "modules.img")
	if err := b.run("truncate", "-s", "512M", modules); err != nil {
		return err
	}
	// Features that the oldest of the kernels has.
	if err := b.run("mkfs.ext4", "-q", "-L", "MODULES", "-O", "^metadata_csum_seed,^orphan_file", "-d", filepath.Join(root, "usr/lib/modules"), modules); err != nil {
		return err
	}
	for _, dir := range []string{root, packages} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// unwrapKernel takes the kernel out of its self-extracting wrapper.
func (b *builder) unwrapKernel(wrapped, vmlinux string) error {
	content, err := os.ReadFile(wrapped)
	if err != nil {
		return err
	}
	unpack, packed := kernelStream(content)
	if packed == nil {
		return fmt.Errorf("cannot find the kernel inside %s: it is packed neither with zstd nor with xz", filepath.Base(wrapped))
	}
	stream := vmlinux + ".packed"
	if err := os.WriteFile(stream, packed, 0o644); err != nil {
		return err
	}
	defer os.Remove(stream)
	// The programs complain about what follows the stream, after they have written all of it: whether it worked shows in the result.
	return b.run("sh", "-c", unpack+` < "$0" > "$1" 2>/dev/null; test "$(head -c 4 "$1" | tail -c 3)" = ELF`, stream, vmlinux)
}

// kernelStream gives the packed kernel in a wrapper, from where it begins, and the program that unpacks it: the two ways that Debian has.
func kernelStream(wrapper []byte) (unpack string, packed []byte) {
	for _, way := range []struct{ begin, unpack string }{
		{"\x28\xb5\x2f\xfd", "zstd -dqc"},
		{"\xfd7zXZ\x00", "xz -dqc --single-stream"},
	} {
		if at := bytes.Index(wrapper, []byte(way.begin)); at >= 0 {
			return way.unpack, wrapper[at:]
		}
	}
	return "", nil
}
