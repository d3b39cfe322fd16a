package vmtests

import (
	"encoding/binary"
	"testing"
)

// TestKernelPayload reads headers of kernels.
func TestKernelPayload(t *testing.T) {
	image := func(change func(image []byte)) []byte {
		image := make([]byte, 5*512+0x100+24)
		image[0x1f1] = 4
		copy(image[0x202:], "HdrS")
		binary.LittleEndian.PutUint16(image[0x206:], 0x20f)
		binary.LittleEndian.PutUint32(image[0x248:], 0x100)
		binary.LittleEndian.PutUint32(image[0x24c:], 20)
		copy(image[5*512+0x100:], "\x02\x21\x4c\x18the kernel--sizebehind")
		if change != nil {
			change(image)
		}
		return image
	}
	for name, tc := range map[string]struct {
		image  []byte
		unpack string
		want   string
	}{
		"lz4":                  {image(nil), "lz4 -dqc", "\x02\x21\x4c\x18the kernel--"},
		"zstd":                 {image(func(i []byte) { copy(i[5*512+0x100:], "\x28\xb5\x2f\xfd") }), "zstd -dqc", "\x28\xb5\x2f\xfdthe kernel--"},
		"packed otherwise":     {image(func(i []byte) { copy(i[5*512+0x100:], "\x1f\x8b\x08\x00") }), "", ""},
		"an old protocol":      {image(func(i []byte) { i[0x206] = 0x07 }), "", ""},
		"no header":            {image(func(i []byte) { i[0x202] = 'h' }), "", ""},
		"ends before":          {image(func(i []byte) { i[0x24c] = 200 }), "", ""},
		"begins behind":        {image(func(i []byte) { i[0x24b] = 0x7f }), "", ""},
		"shorter than nothing": {image(func(i []byte) { i[0x24c] = 3 }), "", ""},
		"short":                {make([]byte, 100), "", ""},
	} {
		unpack, packed, err := kernelPayload(tc.image)
		if unpack != tc.unpack || string(packed) != tc.want && tc.want != "" || (err != nil) != (tc.unpack == "") {
			t.Errorf("%s: %q, %q, %v", name, unpack, packed, err)
		}
	}
}
