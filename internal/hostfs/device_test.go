package hostfs

import "testing"

func TestSourceOf(t *testing.T) {
	const table = `22 1 254:1 / / rw,relatime - ext4 /dev/vda rw
30 22 0:32 / /usr ro,relatime - btrfs /dev/mapper/usr ro,subvol=/
31 22 0:40 / /usr\040local rw - ext4 /dev/odd\040name rw
40 30 0:50 / /usr/share/oem rw shared:1 - overlay overlay rw,lowerdir=/a
broken
`
	for name, want := range map[string]string{
		"/usr": "/dev/mapper/usr", "/usr/lib": "/dev/mapper/usr", "/usr/share/oem/x": "overlay",
		"/usr local": "/dev/odd name", "/var": "/dev/vda", "/usrx": "/dev/vda",
	} {
		if got := sourceOf([]byte(table), name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := sourceOf(nil, "/usr"); got != "" {
		t.Errorf("an empty table gives %q", got)
	}
}
