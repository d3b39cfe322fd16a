package avc

import (
	"fmt"
	"strings"
	"testing"
)

// said is a denial in one line.
func said(d *Denial) string {
	var b strings.Builder
	add := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	add("%s %s", d.Type, d.Kind)
	if len(d.Permissions) > 0 {
		add(" %v", d.Permissions)
	}
	add(" %s -> %s:%s %s", d.Source, d.Target, d.Class, d.Enforced)
	for _, f := range []Field{{"comm", d.Comm}, {"exe", d.Exe}, {"path", d.Path}, {"name", d.Name}, {"dev", d.Dev}, {"op", d.Op}, {"context", d.Context}} {
		if f.Value != "" {
			add(" %s=%q", f.Key, f.Value)
		}
	}
	if d.PID != 0 {
		add(" pid=%d", d.PID)
	}
	if d.Ino != 0 {
		add(" ino=%d", d.Ino)
	}
	if len(d.Ioctl) > 0 {
		add(" ioctl=%04x", d.Ioctl)
	}
	for _, f := range d.Extra {
		add(" +%s=%q", f.Key, f.Value)
	}
	return b.String()
}

// Records in the forms of many kernels and object managers, written after the kernel's sources (security/selinux/avc.c,
// security/lsm_audit.c, ss/services.c), systemd's selinux-access.c, dbus' selinux.c, and the manuals of the audit daemon.
//
// Proves V18.
func TestKernels(t *testing.T) {
	for _, c := range []struct{ kernel, text, want string }{
		{
			"2.6.9, syslog, unquoted",
			`Mar  7 10:11:12 host kernel: audit(1110193872.123:0): avc:  denied  { getattr } for  pid=2239 exe=/usr/sbin/httpd path=/home/x/index.html dev=dm-0 ino=1234 scontext=root:system_r:httpd_t tcontext=user_u:object_r:user_home_t tclass=file`,
			`AVC denied [getattr] root:system_r:httpd_t -> user_u:object_r:user_home_t:file unknown exe="/usr/sbin/httpd" path="/home/x/index.html" dev="dm-0" pid=2239 ino=1234`,
		}, {
			"2.6.18, path in a record of its own, no permissive",
			`type=AVC msg=audit(1169000000.100:7): avc:  denied  { getattr } for  pid=2465 comm="ls" name="x" dev=dm-0 ino=98 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=file
type=SYSCALL msg=audit(1169000000.100:7): arch=40000003 syscall=196 success=no exit=-13 a0=1 items=1 pid=2465 comm="ls" exe="/bin/ls" subj=a:b:c:s0 key=(null)
type=AVC_PATH msg=audit(1169000000.100:7):  path="/srv/x"`,
			`AVC denied [getattr] a:b:c:s0 -> d:e:f:s0:file yes comm="ls" exe="/bin/ls" path="/srv/x" name="x" dev="dm-0" pid=2465 ino=98 +arch="40000003" +syscall="196" +exit="-13"`,
		}, {
			"2.6.32, success=yes tells of permissive",
			`type=AVC msg=audit(1300000000.100:8): avc:  denied  { open } for  pid=1 comm="x" name="y" dev=sda1 ino=9 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=file
type=SYSCALL msg=audit(1300000000.100:8): arch=c000003e syscall=2 success=yes exit=3 pid=1 comm="x" exe="/bin/x"`,
			`AVC denied [open] a:b:c:s0 -> d:e:f:s0:file no comm="x" exe="/bin/x" name="y" dev="sda1" pid=1 ino=9 +arch="c000003e" +syscall="2" +exit="3"`,
		}, {
			"4.x, hexadecimal path and name",
			`type=AVC msg=audit(1500000000.100:9): avc:  denied  { read } for  pid=77 comm=6D7920636F6D6D path=2F7372762F6120620A63 dev="sda1" ino=9 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=file permissive=1`,
			`AVC denied [read] a:b:c:s0 -> d:e:f:s0:file no comm="my comm" path="/srv/a b\nc" dev="sda1" pid=77 ino=9`,
		}, {
			"4.x, a name that only looks hexadecimal is in quotes",
			`type=AVC msg=audit(1500000000.100:9): avc:  denied  { read } for  pid=77 comm="CAFE" name="BEEF" dev="10" ino=10 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=file permissive=0`,
			`AVC denied [read] a:b:c:s0 -> d:e:f:s0:file yes comm="CAFE" name="BEEF" dev="10" pid=77 ino=10`,
		}, {
			"4.x, ioctl",
			`audit: type=1400 audit(1500000000.100:9): avc:  denied  { ioctl } for  pid=7 comm="x" path="/dev/tty" dev="devtmpfs" ino=5 ioctlcmd=0x5401 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=chr_file permissive=0`,
			`AVC denied [ioctl] a:b:c:s0 -> d:e:f:s0:chr_file yes comm="x" path="/dev/tty" dev="devtmpfs" pid=7 ino=5 ioctl=[5401]`,
		}, {
			"3.x, ioctl without 0x",
			`type=AVC msg=audit(1400000000.100:9): avc:  denied  { ioctl } for  pid=7 comm="x" ioctlcmd=8927 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=udp_socket`,
			`AVC denied [ioctl] a:b:c:s0 -> d:e:f:s0:udp_socket unknown comm="x" pid=7 ioctl=[8927]`,
		}, {
			"5.x, capability",
			`type=AVC msg=audit(1600000000.100:9): avc:  denied  { net_admin } for  pid=7 comm="x" capability=12  scontext=a:b:c:s0 tcontext=a:b:c:s0 tclass=capability permissive=0`,
			`AVC denied [net_admin] a:b:c:s0 -> a:b:c:s0:capability yes comm="x" pid=7 +capability="12"`,
		}, {
			"5.x, ports and addresses",
			`type=AVC msg=audit(1600000000.100:9): avc:  denied  { name_connect } for  pid=7 comm="x" dest=3306 lport=1 faddr=10.0.0.1 fport=80 netif=eth0 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=tcp_socket permissive=0`,
			`AVC denied [name_connect] a:b:c:s0 -> d:e:f:s0:tcp_socket yes comm="x" pid=7 +dest="3306" +lport="1" +faddr="10.0.0.1" +fport="80" +netif="eth0"`,
		}, {
			"5.x, no process: a packet in an interrupt",
			`type=AVC msg=audit(1600000000.100:9): avc:  denied  { recv } for  saddr=10.0.0.1 src=80 daddr=10.0.0.2 dest=999 netif=eth0 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=peer permissive=0`,
			`AVC denied [recv] a:b:c:s0 -> d:e:f:s0:peer yes +saddr="10.0.0.1" +src="80" +daddr="10.0.0.2" +dest="999" +netif="eth0"`,
		}, {
			"5.x, a Unix socket's abstract name",
			`type=AVC msg=audit(1600000000.100:9): avc:  denied  { connectto } for  pid=7 comm="x" path=002F746D702F78 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=unix_stream_socket permissive=0`,
			"AVC denied [connectto] a:b:c:s0 -> d:e:f:s0:unix_stream_socket yes comm=\"x\" path=\"\\x00/tmp/x\" pid=7",
		}, {
			"5.x, contexts that the policy does not know",
			`type=AVC msg=audit(1600000000.100:9): avc:  denied  { read } for  pid=7 comm="x" name="y" dev="sda1" ino=3 scontext=a:b:c:s0 tcontext=system_u:object_r:unlabeled_t:s0 tclass=file permissive=1 srawcon="a:b:old_c:s0" trawcon="d:e:old_f:s0"`,
			`AVC denied [read] a:b:c:s0 -> system_u:object_r:unlabeled_t:s0:file no comm="x" name="y" dev="sda1" pid=7 ino=3 +srawcon="a:b:old_c:s0" +trawcon="d:e:old_f:s0"`,
		}, {
			"6.x, whole event, with CWD and PATH, enriched",
			`type=AVC msg=audit(1700000000.100:9): avc:  denied  { read } for  pid=7 comm="x" name="y" dev="sda1" ino=3 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=file permissive=0
type=SYSCALL msg=audit(1700000000.100:9): arch=c000003e syscall=257 success=no exit=-13 a0=ffffff9c items=1 ppid=1 pid=7 auid=4294967295 comm="x" exe="/usr/bin/x" subj=a:b:c:s0 key=(null)` + "\x1d" + `ARCH=x86_64 SYSCALL=openat AUID="unset"
type=CWD msg=audit(1700000000.100:9): cwd="/srv"
type=PATH msg=audit(1700000000.100:9): item=0 name="other" inode=30 dev=08:01 mode=0100644 nametype=NORMAL
type=PATH msg=audit(1700000000.100:9): item=1 name="data/y" inode=3 dev=08:01 mode=0100644 ouid=0 ogid=0 rdev=00:00 obj=d:e:f:s0 nametype=NORMAL
type=PROCTITLE msg=audit(1700000000.100:9): proctitle=636174006461
type=EOE msg=audit(1700000000.100:9): `,
			`AVC denied [read] a:b:c:s0 -> d:e:f:s0:file yes comm="x" exe="/usr/bin/x" path="/srv/data/y" name="y" dev="sda1" pid=7 ino=3 +arch="c000003e" +syscall="257" +exit="-13" +proctitle="cat da"`,
		}, {
			"6.x, fields that nobody knows yet",
			`type=AVC msg=audit(1700000000.100:9): avc:  denied  { read write } for  pid=7 comm="x" newfield=1 path="/x" other="a b" scontext=a:b:c:s0:c1,c2 tcontext=d:e:f:s0:c3.c5 tclass=file permissive=0 last=z`,
			`AVC denied [read write] a:b:c:s0:c1,c2 -> d:e:f:s0:c3.c5:file yes comm="x" path="/x" pid=7 +newfield="1" +other="a b" +last="z"`,
		}, {
			"granted",
			`type=AVC msg=audit(1700000000.100:9): avc:  granted  { setenforce } for  pid=7 comm="x" scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=security`,
			`AVC granted [setenforce] a:b:c:s0 -> d:e:f:s0:security unknown comm="x" pid=7`,
		}, {
			"USER_AVC, systemd",
			`type=USER_AVC msg=audit(1700000000.100:9): pid=1 uid=0 auid=4294967295 ses=4294967295 subj=system_u:system_r:init_t:s0 msg='avc:  denied  { start } for auid=n/a uid=0 gid=0 path="/usr/lib/systemd/system/x y.service" cmdline="systemctl start x" function="bus_unit_method_start" scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=service permissive=0  exe="/usr/lib/systemd/systemd" sauid=0 hostname=? addr=? terminal=?'`,
			`USER_AVC denied [start] a:b:c:s0 -> d:e:f:s0:service yes exe="/usr/lib/systemd/systemd" path="/usr/lib/systemd/system/x y.service" +auid="n/a" +uid="0" +gid="0" +cmdline="systemctl start x" +function="bus_unit_method_start" +sauid="0" +hostname="?" +addr="?" +terminal="?" +manager_pid="1" +manager_subj="system_u:system_r:init_t:s0"`,
		}, {
			"USER_AVC, dbus, by the kernel's log",
			`audit: type=1107 audit(1700000000.100:9): pid=500 uid=81 auid=4294967295 ses=4294967295 subj=s msg='avc:  denied  { send_msg } for msgtype=method_call interface=org.x.Y member=Z dest=:1.5 spid=800 tpid=900 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=dbus permissive=1`,
			`USER_AVC denied [send_msg] a:b:c:s0 -> d:e:f:s0:dbus no pid=800 +msgtype="method_call" +interface="org.x.Y" +member="Z" +dest=":1.5" +spid="800" +tpid="900" +manager_pid="500" +manager_subj="s"`,
		}, {
			"SELINUX_ERR since 3.16",
			`type=SELINUX_ERR msg=audit(1700000000.100:9): op=security_compute_sid invalid_context="a:r:new_t:s0" scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=process`,
			`SELINUX_ERR invalid a:b:c:s0 -> d:e:f:s0:process unknown op="security_compute_sid" context="a:r:new_t:s0"`,
		}, {
			"SELINUX_ERR before 3.16",
			`type=SELINUX_ERR msg=audit(1300000000.100:9): security_compute_sid:  invalid context a:r:new_t:s0 for scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=process`,
			`SELINUX_ERR invalid a:b:c:s0 -> d:e:f:s0:process unknown op="security_compute_sid" context="a:r:new_t:s0"`,
		}, {
			"SELINUX_ERR, bounded transition",
			`audit: type=1401 audit(1700000000.100:9): op=security_bounded_transition seresult=denied oldcontext=a:b:c:s0 newcontext=a:b:d:s0`,
			`SELINUX_ERR denied [nnp_transition] a:b:c:s0 -> a:b:d:s0:process2 unknown op="security_bounded_transition" +seresult="denied" +oldcontext="a:b:c:s0" +newcontext="a:b:d:s0"`,
		}, {
			"SELINUX_ERR, bounds: that the call succeeded does not say that the mode is permissive",
			`type=SELINUX_ERR msg=audit(1700000000.100:9): op=security_compute_av reason=bounds scontext=a:b:c:s0 tcontext=a:b:d:s0 tclass=process perms=siginh,rlimitinh
type=SYSCALL msg=audit(1700000000.100:9): arch=c000003e syscall=59 success=yes exit=0 pid=7 comm="x" exe="/bin/x"`,
			`SELINUX_ERR denied [siginh rlimitinh] a:b:c:s0 -> a:b:d:s0:process unknown comm="x" exe="/bin/x" op="security_compute_av" pid=7 +reason="bounds" +arch="c000003e" +syscall="59" +exit="0"`,
		}, {
			"SELINUX_ERR, validatetrans",
			`type=SELINUX_ERR msg=audit(1700000000.100:9): op=security_validate_transition seresult=denied oldcontext=a:b:c:s0 newcontext=a:b:d:s0 taskcontext=x:y:z:s0 tclass=file`,
			`SELINUX_ERR denied [relabelto] x:y:z:s0 -> a:b:d:s0:file unknown op="security_validate_transition" +seresult="denied" +oldcontext="a:b:c:s0" +newcontext="a:b:d:s0" +taskcontext="x:y:z:s0"`,
		}, {
			"SELINUX_ERR, setxattr",
			`type=SELINUX_ERR msg=audit(1700000000.100:9): op=setxattr invalid_context="a:b:no_t:s0"`,
			`SELINUX_ERR invalid  -> : unknown op="setxattr" context="a:b:no_t:s0"`,
		}, {
			"ausearch -i",
			`type=AVC msg=audit(11/14/2023 22:13:20.123:45) : avc:  denied  { read } for  pid=7 comm=x name=y dev="sda1" ino=3 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=file permissive=0 `,
			`AVC denied [read] a:b:c:s0 -> d:e:f:s0:file yes comm="x" name="y" dev="sda1" pid=7 ino=3`,
		}, {
			"journalctl, short",
			`Nov 14 22:13:20 host audit[7]: AVC avc:  denied  { read } for  pid=7 comm="x" scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=file permissive=0`,
			`AVC denied [read] a:b:c:s0 -> d:e:f:s0:file yes comm="x" pid=7`,
		}, {
			"cut off by the kernel's log",
			`audit: type=1400 audit(1700000000.100:9): avc:  denied  { read } for  pid=7 comm="x" scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=file permissive=0 path="/very/lo`,
			`AVC denied [read] a:b:c:s0 -> d:e:f:s0:file yes comm="x" path="/very/lo" pid=7`,
		},
		{"not a decision", `type=USER_AVC msg=audit(1.000:9): pid=1 uid=0 subj=s msg='avc:  received setenforce notice (enforcing=1)  exe="/usr/lib/systemd/systemd"'`, ""},
		{"AppArmor has the same number", `type=AVC msg=audit(1700000000.100:9): apparmor="DENIED" operation="open" profile="x" name="/y" pid=7 comm="x"`, ""},
		{"a load of policy", `type=MAC_POLICY_LOAD msg=audit(1700000000.100:9): auid=0 ses=1 lsm=selinux res=1`, ""},
		{"cut off too early", `audit: type=1400 audit(1700000000.100:9): avc:  denied  { read } for  pid=7 comm="x" scontext=a:b`, ""},
	} {
		t.Run(c.kernel, func(t *testing.T) {
			var got []string
			all, _ := read(t, c.text+"\n")
			for i := range all {
				got = append(got, said(&all[i]))
			}
			if strings.Join(got, "\n") != c.want {
				t.Errorf("\ngot  %s\nwant %s", strings.Join(got, "\n"), c.want)
			}
		})
	}
}
