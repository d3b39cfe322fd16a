package vmtests

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
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
	err = b.build(
		part{string(suite) + " root", base, b.makeBase},
		part{"kernel of " + string(kernel) + " for " + string(suite), dir, func(out string) error { return b.makeKernel(base, kernel, out) }},
	)
	if err != nil {
		return nil, err
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	return &KernelImage{in("vmlinux"), in("initrd"), in("modules.img"), dir}, nil
}

// makeKernel takes a kernel out of its Debian package and builds an initrd for it with the programs of the suite.
func (b *builder) makeKernel(base string, kernel Kernel, out string) error {
	defer b.step("kernel of %s", kernel)()
	root, packages := filepath.Join(out, "tree"), filepath.Join(out, "packages")
	if err := b.makeTree(base, root); err != nil {
		return err
	}
	// That of the release itself: its security updates go away when they are superseded.
	if err := b.unpack(string(kernel), packages, "--variant=extract", "--include=linux-image-cloud-amd64/"+string(kernel),
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
	unpack, packed, err := kernelPayload(content)
	if err != nil {
		return fmt.Errorf("cannot find the kernel inside %s: %w", filepath.Base(wrapped), err)
	}
	stream := vmlinux + ".packed"
	if err := os.WriteFile(stream, packed, 0o644); err != nil {
		return err
	}
	defer os.Remove(stream)
	return b.run("sh", "-c", unpack+` < "$0" > "$1" && test "$(head -c 4 "$1" | tail -c 3)" = ELF`, stream, vmlinux)
}

// kernelPayload gives the packed kernel in an image for x86, and the command that unpacks it. Where it is stands in the image's header
// (Documentation/arch/x86/boot.rst, payload_offset and payload_length since protocol 2.08): behind the sectors of the set-up code. Its last
// four bytes are the size that it has unpacked.
func kernelPayload(image []byte) (unpack string, packed []byte, err error) {
	if len(image) < 0x250 || string(image[0x202:0x206]) != "HdrS" || binary.LittleEndian.Uint16(image[0x206:]) < 0x208 {
		return "", nil, errors.New("it has no header of boot protocol 2.08")
	}
	begin := (int(image[0x1f1])+1)*512 + int(binary.LittleEndian.Uint32(image[0x248:]))
	end := begin + int(binary.LittleEndian.Uint32(image[0x24c:])) - 4
	if begin > end || end > len(image) {
		return "", nil, errors.New("its header leads out of it")
	}
	packed = image[begin:end]
	for _, way := range []struct{ magic, unpack string }{
		{"\x28\xb5\x2f\xfd", "zstd -dqc"},
		{"\x02\x21\x4c\x18", "lz4 -dqc"},
		{"\xfd7zXZ\x00", "xz -dqc"},
	} {
		if bytes.HasPrefix(packed, []byte(way.magic)) {
			return way.unpack, packed, nil
		}
	}
	return "", nil, errors.New("it is packed with none of zstd, lz4 and xz")
}
