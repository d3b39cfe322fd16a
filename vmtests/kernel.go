package vmtests

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// unwrapKernel takes the kernel out of its self-extracting wrapper.
func (b *builder) unwrapKernel(wrapped, vmlinux string) error {
	content, err := os.ReadFile(wrapped)
	if err != nil {
		return err
	}
	packed, err := kernelPayload(content)
	if err != nil {
		return fmt.Errorf("cannot find the kernel inside %s: %w", filepath.Base(wrapped), err)
	}
	stream := vmlinux + ".packed"
	if err := os.WriteFile(stream, packed, 0o644); err != nil {
		return err
	}
	defer os.Remove(stream)
	return b.run("sh", "-c", `zstd -dqc < "$0" > "$1" && test "$(head -c 4 "$1" | tail -c 3)" = ELF`, stream, vmlinux)
}

// kernelPayload gives the packed kernel in an image for x86. Where it is stands in the image's header
// (Documentation/arch/x86/boot.rst, payload_offset and payload_length since protocol 2.08): behind the sectors of the set-up code. Its last
// four bytes are the size that it has unpacked.
func kernelPayload(image []byte) (packed []byte, err error) {
	if len(image) < 0x250 || string(image[0x202:0x206]) != "HdrS" || binary.LittleEndian.Uint16(image[0x206:]) < 0x208 {
		return nil, errors.New("it has no header of boot protocol 2.08")
	}
	begin := (int(image[0x1f1])+1)*512 + int(binary.LittleEndian.Uint32(image[0x248:]))
	end := begin + int(binary.LittleEndian.Uint32(image[0x24c:])) - 4
	if begin > end || end > len(image) {
		return nil, errors.New("its header leads out of it")
	}
	packed = image[begin:end]
	if !bytes.HasPrefix(packed, []byte("\x28\xb5\x2f\xfd")) {
		return nil, errors.New("it is not packed with zstd")
	}
	return packed, nil
}
