package vmtests

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// partition is an entry of the GUID partition table of a whole disk.
type partition struct {
	label, kind, uuid string
	attributes        string // bits of sfdisk's attrs
	sizeMB            int64
	content           string // file
}

// What GRUB and Flatcar's partition table have as constants.
const (
	typeESP   = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	typeBIOS  = "21686148-6449-6E6F-744E-656564454649"
	typeUsr   = "5DFBF5F4-2848-4BAC-AA5E-0D9A20B745A6" // "Flatcar root", by which update_engine and GRUB know A and B
	typeLinux = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
	uuidUsrA  = "7130C94A-213A-4E5A-8E26-6CCE9662F132"
	uuidUsrB  = "E03DD35C-7C2D-4A47-B3FE-27F15780A57C"

	mebibyte, sector = int64(1 << 20), int64(512)
)

// BuildDisk returns a whole disk, to be booted by its own boot loader as a ready image: partitions as Flatcar's, /usr on dm-verity, and in
// USR-B the operating system after an update, as update_engine leaves it.
func BuildDisk(ctx context.Context, progress func(string)) (string, error) {
	images := map[Suite]*Image{}
	for _, suite := range []Suite{Trixie, Forky} {
		of, err := Build(ctx, suite, progress)
		if err != nil {
			return "", err
		}
		images[suite] = of[Today]
	}
	if progress == nil {
		progress = func(string) {}
	}
	b := &builder{ctx: ctx, suite: Trixie, progress: progress}
	dir := filepath.Join(CacheDir(), fmt.Sprintf("disk-%s-%s", Trixie, digest(formatVersion, images[Trixie].dir, images[Forky].dir)))
	if err := b.build(part{"disk", dir, func(out string) error { return b.makeDisk(images[Trixie], images[Forky], out) }}); err != nil {
		return "", err
	}
	return filepath.Join(dir, "disk.raw"), nil
}

func (b *builder) makeDisk(now, next *Image, out string) error {
	defer b.step("whole disk")()
	esp, core := filepath.Join(out, "esp.img"), filepath.Join(out, "core.img")
	table := []partition{
		{label: "EFI-SYSTEM", kind: typeESP, sizeMB: 128, content: esp},
		{label: "BIOS-BOOT", kind: typeBIOS, sizeMB: 2, content: core},
		// The bits are priority (48 to 51), tries (52 to 55) and successful (56): A has been booted, B is to be tried once.
		{label: "USR-A", kind: typeUsr, uuid: uuidUsrA, attributes: "GUID:48,56", sizeMB: 1024, content: filepath.Join(out, "usr-a.img")},
		{label: "USR-B", kind: typeUsr, uuid: uuidUsrB, attributes: "GUID:49,52", sizeMB: 1024, content: filepath.Join(out, "usr-b.img")},
		{label: "OEM", kind: typeLinux, sizeMB: 128, content: filepath.Join(out, "oem.img")},
		{label: "ROOT", kind: typeLinux, sizeMB: 6 << 10, content: now.Root},
	}
	hash, offset, err := b.makeVerity(now.Usr, filepath.Join(out, "usr-a.img"))
	if err != nil {
		return err
	}
	if _, _, err := b.makeVerity(next.Usr, filepath.Join(out, "usr-b.img")); err != nil {
		return err
	}
	if err := b.run("truncate", "-s", "128M", filepath.Join(out, "oem.img")); err != nil {
		return err
	}
	if err := b.run("mkfs.btrfs", "-q", "--mixed", "--label", "OEM", filepath.Join(out, "oem.img")); err != nil {
		return err
	}
	if err := b.makeESP(hash, offset, esp, out); err != nil {
		return err
	}
	if err := b.makeGRUB(core, out); err != nil {
		return err
	}
	if err := b.assemble(table, filepath.Join(out, "disk.raw")); err != nil {
		return err
	}
	for _, p := range table {
		if filepath.Dir(p.content) == out {
			if err := os.Remove(p.content); err != nil {
				return err
			}
		}
	}
	return nil
}

// makeVerity copies a file system and writes its hash tree behind it. offset is where the tree begins, in bytes.
func (b *builder) makeVerity(from, to string) (rootHash string, offset int64, err error) {
	if err := b.run("cp", "--reflink=auto", "--sparse=always", from, to); err != nil {
		return "", 0, err
	}
	info, err := os.Stat(to)
	if err != nil {
		return "", 0, err
	}
	offset = info.Size()
	text, err := b.output("veritysetup", "format", to, to, fmt.Sprintf("--hash-offset=%d", offset), fmt.Sprintf("--data-blocks=%d", offset/4096))
	if err != nil {
		return "", 0, err
	}
	found := regexp.MustCompile(`(?m)^Root hash:\s*([0-9a-f]{64})$`).FindSubmatch(text)
	if found == nil {
		return "", 0, fmt.Errorf("cannot find the root hash in what veritysetup says: %s", text)
	}
	return string(found[1]), offset, nil
}

// makeESP makes the partition that the boot loader reads: kernel, initrd, its own configuration and the first-boot flag.
func (b *builder) makeESP(hash string, offset int64, esp, out string) error {
	root := filepath.Join(out, "tree")
	if err := b.makeTree(b.baseDir(), root); err != nil {
		return err
	}
	if err := b.makeKernelAndInitrd(root, out, "lookalike-disk"); err != nil {
		return err
	}
	kernels, err := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		return fmt.Errorf("cannot tell the kernel: found %q", kernels)
	}
	args := append(kernelArgs("mount.usr=/dev/mapper/usr"),
		"usrhash="+hash, "systemd.verity_usr_data=PARTUUID="+strings.ToLower(uuidUsrA), "systemd.verity_usr_hash=PARTUUID="+strings.ToLower(uuidUsrA),
		fmt.Sprintf("systemd.verity_usr_options=hash-offset=%d", offset))
	config := filepath.Join(out, "grub.cfg")
	if err := os.WriteFile(config, []byte(grubConfig(args)), 0o644); err != nil {
		return err
	}
	if err := b.makeBootFS(esp, 128<<10, map[string]string{"vmlinuz-a": kernels[0], "initrd-a": filepath.Join(out, "initrd"), "grub.cfg": config}, "-F", "32"); err != nil {
		return err
	}
	for _, path := range []string{root, config, filepath.Join(out, "initrd"), filepath.Join(out, "vmlinux")} {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

// grubConfig is the boot loader's story. Flatcar's chooses A or B by the bits of the partition table, which takes a GRUB with its patches.
func grubConfig(args []string) string {
	return `set timeout=0
if [ -f /flatcar/first_boot ]; then
	set first_boot="flatcar.first_boot=detected ignition.firstboot=1"
fi
linux /flatcar/vmlinuz-a ` + strings.Join(args, " ") + ` $first_boot
initrd /flatcar/initrd-a
boot
`
}

// makeGRUB makes the part of the boot loader that the partition table has a partition for.
func (b *builder) makeGRUB(core, out string) error {
	early := filepath.Join(out, "early.cfg")
	text := "serial --unit=0 --speed=115200\nterminal_output serial\nsearch --no-floppy --label EFI-SYSTEM --set root\nconfigfile /flatcar/grub.cfg\n"
	if err := os.WriteFile(early, []byte(text), 0o644); err != nil {
		return err
	}
	defer os.Remove(early)
	return b.run("grub-mkimage", "-O", "i386-pc", "-o", core, "-p", "(hd0,gpt1)/flatcar", "-c", early,
		"biosdisk", "part_gpt", "fat", "search", "search_label", "configfile", "normal", "test", "linux", "serial", "terminal", "echo", "boot")
}

// assemble writes the partition table, the partitions, and the boot loader's first sector.
func (b *builder) assemble(table []partition, disk string) error {
	script := "label: gpt\nunit: sectors\n"
	start := 1 * mebibyte
	starts := make([]int64, len(table))
	for i, p := range table {
		starts[i] = start
		script += fmt.Sprintf("start=%d, size=%d, type=%s, name=%q", start/sector, p.sizeMB*mebibyte/sector, p.kind, p.label)
		if p.uuid != "" {
			script += ", uuid=" + p.uuid
		}
		if p.attributes != "" {
			script += fmt.Sprintf(", attrs=%q", p.attributes)
		}
		script += "\n"
		start += p.sizeMB * mebibyte
	}
	if err := b.run("truncate", "-s", fmt.Sprint(start+mebibyte), disk); err != nil {
		return err
	}
	if err := b.run("sh", "-c", `printf '%s' "$1" | sfdisk --quiet "$0"`, disk, script); err != nil {
		return err
	}
	for i, p := range table {
		info, err := os.Stat(p.content)
		if err != nil {
			return err
		}
		if info.Size() > p.sizeMB*mebibyte {
			return fmt.Errorf("%s has %d bytes, and partition %s holds %d MiB", filepath.Base(p.content), info.Size(), p.label, p.sizeMB)
		}
		if err := b.run("dd", "if="+p.content, "of="+disk, "bs=1M", fmt.Sprintf("seek=%d", starts[i]/mebibyte), "conv=notrunc,sparse", "status=none"); err != nil {
			return err
		}
		if p.kind == typeBIOS {
			if err := installGRUB(disk, starts[i]/sector); err != nil {
				return err
			}
		}
	}
	return nil
}

// installGRUB makes the disk boot the image of GRUB that begins at a sector: what grub-bios-setup does, which wants a block device. The offsets
// are those of GRUB's include/grub/i386/pc/boot.h: where the first sector has the number of the sector to load, and the first sector of
// the image that of its second one.
func installGRUB(disk string, at int64) error {
	const (
		bootSector = "/usr/lib/grub/i386-pc/boot.img"
		kernelAt   = 0x5c  // GRUB_BOOT_MACHINE_KERNEL_SECTOR
		driveCheck = 0x66  // GRUB_BOOT_MACHINE_DRIVE_CHECK: a jump that a hard disk does without
		blocksAt   = 0x1f4 // the last entry of the list of blocks: sector (8 bytes), length and segment
		codeEnd    = 0x1b8 // behind it are the disk's signature and the protective partition table
	)
	boot, err := os.ReadFile(bootSector)
	if err != nil {
		return fmt.Errorf("cannot read GRUB's boot sector: %w", err)
	}
	if len(boot) != int(sector) {
		return errors.New("cannot use GRUB's boot sector: it is not one sector")
	}
	binary.LittleEndian.PutUint64(boot[kernelAt:], uint64(at))
	boot[driveCheck], boot[driveCheck+1] = 0x90, 0x90
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	first := make([]byte, sector)
	if _, err := io.ReadFull(io.NewSectionReader(f, at*sector, sector), first); err != nil {
		return err
	}
	binary.LittleEndian.PutUint64(first[blocksAt:], uint64(at+1))
	if _, err := f.WriteAt(boot[:codeEnd], 0); err != nil {
		return err
	}
	if _, err := f.WriteAt(first, at*sector); err != nil {
		return err
	}
	return f.Close()
}
