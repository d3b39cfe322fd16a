package judge_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selinux-provision/selinux-provision/avc"
	"github.com/selinux-provision/selinux-provision/avc/attribution"
	"github.com/selinux-provision/selinux-provision/avc/judge"
	"github.com/selinux-provision/selinux-provision/internal/policydb"
	"github.com/selinux-provision/selinux-provision/internal/policytest"
)

const (
	volumeContext  = "system_u:object_r:container_file_t:s0"
	processContext = "system_u:system_r:container_t:s0"
)

// evidence is a host with one container, web, that has /srv/data (a file system of its own) as /data, /srv/plain as /plain, and
// /var/log as /logs.
func evidence(t *testing.T) *judge.Evidence {
	t.Helper()
	in, err := os.Open(policytest.Build(t, map[string]string{"homes": "(type user_home_t)(roletype object_r user_home_t)", "logs": "(type var_log_t)(roletype object_r var_log_t)",
		"bounds":  "(type parent_t)(roletype system_r parent_t)(type child_t)(roletype system_r child_t)(typebounds parent_t child_t)(allow parent_t nfs_t (file (read)))(allow child_t nfs_t (file (read open)))",
		"sockets": "(type var_run_t)(roletype object_r var_run_t)(allow container_domain container_file_t (sock_file (read write)))(allow spc_t file_type (sock_file (write)))(allow spc_t var_run_t (sock_file (write)))"}))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	p, err := policydb.Parse(in)
	if err != nil {
		t.Fatal(err)
	}
	web := &attribution.Container{Subject: avc.Subject{ID: "1", Container: "web"}, Mounts: []attribution.Mount{
		{Source: "/srv/data", Destination: "/data"}, {Source: "/srv/plain", Destination: "/plain"}, {Source: "/var/log", Destination: "/logs"},
		{Source: "/home/core/data", Destination: "/home"}, {Source: "/tmp/x", Destination: "/temp"}, {Source: "/home/core", Destination: "/all"},
		{Source: "/var/lib/kubelet/pods/1/volumes/c", Destination: "/config"}, {Source: "/run/docker.sock", Destination: "/docker.sock"}, {Source: "/run/x.sock", Destination: "/run/x.sock"},
	}}
	return &judge.Evidence{
		Policy: p, VolumeContext: volumeContext, ProcessContext: processContext,
		Container: func(s avc.Subject) *attribution.Container {
			if s.ID == "1" {
				return web
			}
			return nil
		},
		Mounts: attribution.Mounts{
			{Path: "/", Type: "ext4", Dev: "vda", Block: true}, {Path: "/srv/data", Type: "xfs", Dev: "vdb", Block: true}, {Path: "/mnt/other", Type: "ext4", Dev: "vdc", Block: true}, {Path: "/usr", Type: "ext4", Dev: "vdusr", Block: true},
		},
		Inode: func(name string) uint64 {
			return map[string]uint64{"/srv/plain": 10, "/srv/plain/file": 11, "/var/log/containers/a.log": 12, "/var/log/containers": 13}[name]
		},
		Expected: func(class, name string) string {
			switch {
			case strings.HasPrefix(name, "/srv/data/web") && class == "file":
				return volumeContext
			case strings.HasPrefix(name, "/etc"):
				return "system_u:object_r:etc_t:s0"
			case strings.HasPrefix(name, "/var/log/pods"), strings.HasPrefix(name, "/var/log/containers"):
				return "system_u:object_r:container_log_t:s0"
			}
			return ""
		},
	}
}

// denial is one of container_t, in words: WHO PERMISSIONS TYPE:LEVEL CLASS KEY=VALUE...
func denial(text string) *avc.Denial {
	words := strings.Fields(text)
	d := &avc.Denial{
		Type: avc.TypeAVC, Source: processContext + ":c1,c2", Target: avc.Context("system_u:object_r:" + words[2]), Class: words[3], PID: 7, Comm: "x",
		Permissions: strings.Split(words[1], ","), Enforced: avc.EnforcedYes, Time: time.Unix(1700000000, 0), Serial: 5, Dev: "vda",
	}
	for _, word := range words[4:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "path":
			d.Path = value
		case "name":
			d.Name = value
		case "dev":
			if d.Dev = value; value == "-" { // of a file that is being made
				d.Dev = ""
			}
		case "domain":
			d.Source = avc.Context("system_u:system_r:" + value)
		case "source":
			d.Source = avc.Context(value)
		case "target":
			d.Target = avc.Context(value)
		case "self":
			d.Target = d.Source
		case "ioctl":
			command := 0
			_, _ = fmt.Sscanf(value, "%x", &command)
			d.Ioctl = []uint16{uint16(command)}
		case "raw":
			d.Extra = []avc.Field{{Key: "trawcon", Value: "system_u:object_r:" + value + ":s0"}}
		case "srawcon":
			d.Extra = append(d.Extra, avc.Field{Key: "srawcon", Value: value})
		case "ino":
			_, _ = fmt.Sscan(value, &d.Ino)
		case "serial":
			_, _ = fmt.Sscan(value, &d.Serial)
		case "pid":
			_, _ = fmt.Sscan(value, &d.PID)
		case "after": // so many seconds
			seconds := 0
			_, _ = fmt.Sscan(value, &seconds)
			d.Time = d.Time.Add(time.Duration(seconds) * time.Second)
		}
	}
	d.Comm = words[0] // the attributor of these tests looks here
	return d
}

type byComm struct{}

func (byComm) Subject(d *avc.Denial) avc.Subject {
	if d.Comm == "web" {
		return avc.Subject{ID: "1", Container: "web", Image: "img"}
	}
	return avc.Subject{}
}

func judged(t *testing.T, e *judge.Evidence, denials ...string) []*judge.Finding {
	t.Helper()
	groups := avc.NewGroups(byComm{})
	for _, text := range denials {
		groups.Add(denial(text))
	}
	return e.Judge(groups.List())
}

// The first answer that holds is the one given.
//
// Proves V19.
func TestFixes(t *testing.T) {
	e := evidence(t)
	for _, c := range []struct {
		name, denial string
		kind         judge.Kind
		says         []string // in text, command, config or also
	}{
		{"mislabelled for its path", "web read,open etc_t:s0 file path=/data/web/index.html dev=vdb", judge.Relabel, []string{"/srv/data/web/index.html has the type etc_t", "container_file_t", "restorecon -RFv /srv/data/web/index.html"}},
		{"mislabelled, but that would not help", "- read shadow_t:s0 file path=/etc/shadow domain=container_t:s0", judge.Rule, []string{"no rule lets container_t"}},
		{"a volume without a label, mounted", "web search unlabeled_t:s0 dir path=/data/sub dev=vdb", judge.Volume, []string{"/srv/data has no label", "match: {mountpoint: /srv/data}", "context: " + volumeContext, ":z (shared)"}},
		{"a directory without a label", "web write unlabeled_t:s0 file name=file ino=11", judge.Volume, []string{"/srv/plain has no label", "'/srv/plain(/.*)?'"}},
		{"the directory itself", "web add_name unlabeled_t:s0 dir name=plain ino=10", judge.Volume, []string{"/srv/plain has no label"}},
		{"a volume with the host's label", "web write etc_t:s0 file path=/plain/file", judge.Volume, []string{"/srv/plain has the type etc_t, which is not for containers"}},
		{"what the system owns is no volume", "web read container_log_t:s0 file path=/logs/x.log", judge.Role, []string{"the role log-reader allows this", "roles: [log-reader]", "label=type:container_log_reader_t"}},
		{"a volume that nobody knows", "- write unlabeled_t:s0 file name=file domain=container_t:s0:c2,c3 dev=sdz", judge.Volume, []string{"a volume that nobody labelled", "find it on the host"}},
		{"a volume known by its device", "- write unlabeled_t:s0 file name=file domain=container_t:s0:c2,c3 dev=vdc", judge.Volume, []string{"/mnt/other has no label", "mountpoint: /mnt/other"}},
		{"the host's own", "- read nfs_t:s0 file path=/opt/x domain=kernel_t:s0", judge.Rule, []string{"no rule lets kernel_t do this", "--source kernel_t --domain kernel_t"}},
		{"the host's own, without a label", "- read unlabeled_t:s0 file path=/opt/x domain=kernel_t:s0", judge.Relabel, []string{"/opt/x has no label", "restorecon -RFv /opt/x", "mount option context="}},
		{"the same, known by its number", "- read unlabeled_t:s0 dir name=boot domain=kernel_t:s0 dev=vdc ino=14", judge.Relabel, []string{"find /mnt/other -xdev -inum 14 -exec restorecon"}},
		{"a volume in a home", "web write etc_t:s0 file path=/home/x dev=vda", judge.Volume, []string{"/home/core/data has the type etc_t", "path: '/home/core/data(/.*)?'", ":z (shared)"}},
		{"a volume in /tmp", "web write etc_t:s0 file path=/temp/x dev=vda", judge.Volume, []string{"/tmp/x has the type etc_t", ":z (shared)"}},
		{"the home itself is none", "web write etc_t:s0 file path=/all/x dev=vda", judge.Rule, []string{"no rule"}},
		{"a pod's volume", "web read etc_t:s0 file path=/config/x dev=vda", judge.Volume, []string{"/var/lib/kubelet/pods/1/volumes/c is a volume of a pod", "enable_selinux = true"}},
		{"a host's directory, and a container that is gone", "- write user_home_t:s0 dir name=data domain=container_t:s0:c2,c3", judge.Volume, []string{"looks like a volume that nobody labelled", ":z (shared)"}},
		{"a host's file of its own type, and a container that is gone", "- read shadow_t:s0 file name=shadow domain=container_t:s0:c2,c3", judge.Rule, []string{"no rule"}},
		{"an alias of the container type", "- write user_home_t:s0 dir name=data domain=svirt_lxc_net_t:s0", judge.Volume, []string{":z (shared)"}},
		{"a type that the policy lacks", "- read gone_t:s0 file name=x domain=container_t:s0:c2,c3", judge.Context, []string{`the policy has no type "gone_t"`, "--policy FILE"}},
		{"a domain that the policy lacks", "- read etc_t:s0 file name=x domain=gone_t:s0", judge.Context, []string{`the policy has no domain "gone_t"`}},
		{"a user that the policy lacks", "- read container_file_t:s0 file target=container_u:object_r:container_file_t:s0:c1,c2", judge.Context, []string{"another policy", "container_u:object_r:container_file_t:s0:c1,c2 is not valid in it: the policy has no user container_u", "--policy FILE"}},
		{"a sensitivity that it lacks", "- read container_file_t:s15 file name=x", judge.Context, []string{"another policy", "the policy has no level s15"}},
		{"categories that it lacks", "- read container_file_t:s0:c1,c2000 file name=x", judge.Context, []string{"another policy", "the policy has no level s0:c1,c2000"}},
		{"no level at all", "- read container_file_t:s0 file target=system_u:object_r:container_file_t", judge.Context, []string{"another policy", "not of the form user:role:type:level"}},
		{"a process's user that it lacks", "- read container_file_t:s0 file source=container_u:system_r:container_t:s0", judge.Context, []string{"another policy", "the policy has no user container_u"}},
		{"the same, of a rule", "- read shadow_t:s0 file source=container_u:system_r:container_t:s0", judge.Context, []string{"another policy"}},
		{"a file on a file system", "- associate etc_t:s0 filesystem name=/ domain=container_file_t:s0:c2,c3 dev=tmpfs", judge.Context, []string{"a file with the label system_u:system_r:container_file_t:s0:c2,c3 may not be on the file system tmpfs", "context="}},
		{"a boolean", "web read,open nfs_t:s0 file path=/nfs/x dev=nfs", judge.Boolean, []string{"container_use_nfs on", "booleans: {container_use_nfs: true}"}},
		{"two booleans", "web read sysctl_t:s0 file", judge.Boolean, []string{"container_read_sysctl: true, container_safe: false"}},
		{"categories", "web read container_file_t:s0:c3 file path=/other", judge.Categories, []string{"no allow rule helps", "s0:c1,c2 is asked for s0:c3", "label=level:s0:c3"}},
		{"a mount by a container", "- mount tmpfs_t:s0 filesystem name=/ dev=tmpfs domain=container_t:s0:c2,c3", judge.Rule, []string{"a domain of its own", "selinux-provision denials --module NAME --only "}},
		{"a mount by a container without categories", "- mount nfs_t:s0 filesystem domain=svirt_lxc_net_t:s0", judge.Rule, []string{"a domain of its own", "selinux-provision denials --module NAME --only "}},
		{"a mount by the host", "- mount tmpfs_t:s0 filesystem name=/ dev=tmpfs domain=kernel_t:s0", judge.Rule, []string{"--source kernel_t --domain kernel_t"}},
		{"the socket of a runtime", "- write var_run_t:s0 sock_file name=containerd.sock dev=tmpfs", judge.Domain, []string{"connects to a container runtime, and whoever commands that is root", "with :z every container could connect", "label=type:spc_t"}},
		{"the same, without a label", "- write unlabeled_t:s0 sock_file name=docker.sock dev=tmpfs", judge.Domain, []string{"connects to a container runtime"}},
		{"the same, mounted by itself", "web write var_run_t:s0 sock_file path=/docker.sock dev=tmpfs", judge.Domain, []string{"connects to a container runtime"}},
		{"another socket of the host", "- write var_run_t:s0 sock_file name=x.sock dev=tmpfs", judge.Rule, []string{"connects to a program of the host", "a domain of its own", "--module NAME --only"}},
		{"another, mounted by itself", "web write var_run_t:s0 sock_file path=/run/x.sock dev=tmpfs", judge.Rule, []string{"connects to a program of the host"}},
		{"a socket in a volume without a label", "web write unlabeled_t:s0 sock_file path=/data/x.sock dev=vdb", judge.Volume, []string{"/srv/data has no label"}},
		{"a socket that is looked at", "- read unlabeled_t:s0 sock_file name=x.sock", judge.Volume, []string{"looks like a volume"}},
		{"the init of docker", "- entrypoint unlabeled_t:s0 file path=/sbin/docker-init dev=sda3", judge.Volume, []string{"the host's program for --init", "without --init, or have an init in its image"}},
		{"the init of podman", "- entrypoint,execute unlabeled_t:s0 file path=/run/podman-init dev=dm-0", judge.Volume, []string{"the host's program for --init"}},
		{"the host's kernel modules", "- read unlabeled_t:s0 file path=/usr/lib/modules/6.6.1/modules.dep dev=dm-0", judge.Volume, []string{"is in the host's /usr, which is read-only and has no labels", "no volume option gives it one"}},
		{"a file of /usr without a path", "- read unlabeled_t:s0 file name=x dev=vdusr", judge.Volume, []string{"is in the host's /usr"}},
		{"a volume at a path that ends so", "web read unlabeled_t:s0 file path=/data/sbin/docker-init dev=vdb", judge.Volume, []string{"/srv/data has no label"}},
		{"a bounded type", "- open nfs_t:s0 file path=/x domain=child_t:s0", judge.Categories, []string{"the type child_t is bounded by parent_t (typebounds)", "no allow rule for it alone helps: allow it to both"}},
		{"a bounded type without a rule", "- write nfs_t:s0 file path=/x domain=child_t:s0", judge.Categories, []string{"bounded by parent_t"}},
		{"a bounded type, and what both may", "- read nfs_t:s0 file path=/x domain=child_t:s0", judge.Nothing, []string{"by now"}},
		{"another constraint", "- relabelto etc_t:s0 file domain=kernel_t:s0", judge.Rule, []string{"no rule"}},
		{"an ioctl that the rules leave out", "web ioctl nfs_t:s0 chr_file ioctl=5402", judge.Rule, []string{"no rule"}},
		{"an ioctl that they allow by now", "web ioctl nfs_t:s0 chr_file ioctl=8910", judge.Nothing, []string{"by now"}},
		{"a level that is not that of its path", "web read container_file_t:s0:c3 file path=/data/web/x dev=vdb", judge.Relabel, []string{"has the level s0:c3", "has s0, with which it is allowed"}},
		{"a level, and a type that is not that of its path", "web read tmpfs_t:s0:c3 file path=/data/web/x dev=vdb", judge.Categories, []string{"s0:c1,c2 is asked for s0:c3"}},
		{"a label that the policy does not know", "- read unlabeled_t:s0 file path=/srv/x domain=kernel_t:s0 raw=gone_t", judge.Context, []string{"has the label system_u:object_r:gone_t:s0", "the module that declares gone_t", "restorecon -RFv /srv/x"}},
		{"a process whose domain is gone", "- write container_file_t:s0:c1,c2 file name=d source=system_u:object_r:unlabeled_t:s0 srawcon=system_u:system_r:web_t:s0:c1,c2", judge.Context, []string{
			"the process has the label system_u:system_r:web_t:s0:c1,c2, which the policy in force does not know any more", "install the module that declares web_t", "a domain that exists", "selinux-provision status"}},
		{"the same, and a file whose label is gone", "- read unlabeled_t:s0 file name=d raw=gone_t source=system_u:object_r:unlabeled_t:s0 srawcon=system_u:system_r:web_t:s0:c1,c2", judge.Context, []string{"the process has the label", "web_t"}},
		{"a process whose domain is back", "- write container_file_t:s0:c1,c2 file name=d source=system_u:object_r:unlabeled_t:s0 srawcon=system_u:system_r:container_reader_t:s0:c1,c2", judge.Nothing, []string{"the policy that is asked has it"}},
		{"logs of pods without their label", "web read var_log_t:s0 dir path=/logs/pods", judge.Relabel, []string{"the kubelet made /var/log/pods and /var/log/containers with the type var_log_t", "they have container_log_t",
			"    - {path: '/var/log/containers(/.+)?', context: 'system_u:object_r:container_log_t:s0'}\n    - {path: '/var/log/pods(/.+)?', context: 'system_u:object_r:container_log_t:s0'}"}},
		{"a link to a pod's log", "web read var_log_t:s0 lnk_file name=a.log ino=12", judge.Relabel, []string{"file_contexts"}},
		{"the directory of links, of a container that is gone", "- read var_log_t:s0 dir name=containers ino=13 domain=container_t:s0:c2,c3", judge.Relabel, []string{"file_contexts"}},
		{"a directory of that name", "- read var_log_t:s0 dir name=containers ino=14 domain=container_t:s0:c2,c3", judge.Role, []string{"the role log-reader"}},
		{"logs of pods with it", "web read container_log_t:s0 dir path=/logs/pods/x", judge.Role, []string{"the role log-reader"}},
		{"another log of the host", "web read var_log_t:s0 file path=/logs/messages", judge.Role, []string{"the role log-reader"}},
		{"a rule", "web sys_module x_t:s0 capability self=1", judge.Rule, []string{"a domain of its own"}},
		{"allowed by now", "web read container_file_t:s0 file path=/x", judge.Nothing, []string{"allows this by now"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := judged(t, e, c.denial)
			if len(f) != 1 || f[0].Fix.Kind != c.kind {
				t.Fatalf("got %+v, want %s", f[0].Fix, c.kind)
			}
			fix := f[0].Fix
			all := strings.Join([]string{fix.Text, fix.Command, fix.Config, fix.Also}, "\n")
			for _, want := range c.says {
				if !strings.Contains(all, want) {
					t.Errorf("does not say %q:\n%s", want, all)
				}
			}
		})
	}
}

// What helps against levels depends on what has the other one: a file can be shared, two processes run with one level, and that of the host, or one that
// opens the files of every container, is proposed to nobody.
//
// Proves V19.
func TestLevels(t *testing.T) {
	const shared, own, together, hosts = "share the target at level s0", "run the container with its level (--security-opt label=level:", "two that work together run with one level: containers of one pod do, others with the same --security-opt label=level:", "a process of the host"
	for denied, want := range map[string][]string{
		"- read container_file_t:s0:c3,c4 file path=/x":                                                         {shared, own + "s0:c3,c4)"},
		"- read container_file_t:s0:c3.c6 file path=/x":                                                         {shared, own + "s0:c3.c6)"},
		"- read container_file_t:s0:c0.c1023 file path=/x":                                                      {shared},
		"- read container_file_t:s0:c1,c3,c5,c7,c9 file path=/x":                                                {shared},
		"- read container_file_t:s0:c3-s0:c3,c4 file path=/x":                                                   {shared},
		"- connectto x_t:s0 unix_stream_socket path=/run/x.sock target=system_u:system_r:container_t:s0:c3,c4":  {together + "s0:c3,c4"},
		"- search x_t:s0 key target=system_u:system_r:container_t:s0:c3,c4":                                     {together + "s0:c3,c4"},
		"- read,write,associate x_t:s0 shm target=system_u:system_r:container_t:s0:c3,c4":                       {together + "s0:c3,c4"},
		"- read x_t:s0 file name=status target=system_u:system_r:container_t:s0:c3,c4":                          {together + "s0:c3,c4"}, // in /proc
		"- sendto x_t:s0 unix_dgram_socket path=/run/log target=system_u:system_r:kernel_t:s0:c0.c1023":         {hosts},
		"- connectto x_t:s0 unix_stream_socket target=unconfined_u:unconfined_r:unconfined_t:s0:c0-s0:c0.c1023": {hosts},
	} {
		f := judged(t, &judge.Evidence{}, denied)
		text := f[0].Fix.Text
		said := 0
		for _, one := range []string{shared, own, together, hosts} {
			if strings.Contains(text, one) {
				said++
			}
		}
		if f[0].Fix.Kind != judge.Categories || said != len(want) || slices.ContainsFunc(want, func(one string) bool { return !strings.Contains(text, one) }) {
			t.Errorf("%s: %s, want %q", denied, text, want)
		}
	}
}

// A boolean is for every process of a domain, and what it allows besides is said where it is dangerous. The one that allows least comes first.
//
// Proves V19.
func TestBooleansAllowLeast(t *testing.T) {
	e := evidence(t)
	in, err := os.Open(policytest.Build(t, map[string]string{"capabilities": `
(boolean container_use_all_caps false) (boolean container_use_sysadmin false) (boolean container_use_chown false) (boolean kernel_chown false)
(booleanif container_use_all_caps (true (allow container_domain self (capability (sys_admin chown dac_read_search)))))
(booleanif container_use_sysadmin (true (allow container_domain self (capability (sys_admin)))))
(booleanif container_use_chown (true (allow container_domain self (capability (chown)))))
(booleanif kernel_chown (true (allow kernel_t self (capability (chown)))))`}))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if e.Policy, err = policydb.Parse(in); err != nil {
		t.Fatal(err)
	}
	for denied, want := range map[string]string{
		"web chown x_t:s0 capability self=1":                       "container_use_chown: true | it is so for every container in container_t then",
		"web sys_admin x_t:s0 capability self=1":                   "container_use_sysadmin: true | it is so for every container in container_t then, with what is dangerous: the capability sys_admin; a domain of its own gives what was denied to this container alone: selinux-provision denials --module NAME --only ID --container web --allow-dangerous sys_admin",
		"web dac_read_search x_t:s0 capability self=1":             "container_use_all_caps: true | it is so for every container in container_t then, with what is dangerous: the capability dac_read_search, the capability sys_admin; a domain of its own gives what was denied to this container alone: selinux-provision denials --module NAME --only ID --container web --allow-dangerous dac_read_search",
		"web chown,sys_admin x_t:s0 capability self=1":             "container_use_chown: true, container_use_sysadmin: true | it is so for every container in container_t then, with what is dangerous: the capability sys_admin; a domain of its own gives what was denied to this container alone: selinux-provision denials --module NAME --only ID --container web --allow-dangerous sys_admin",
		"- chown x_t:s0 capability domain=kernel_t:s0 self=1":      "kernel_chown: true | it is so for every process in kernel_t then",
		"web read sysctl_t:s0 file":                                "container_read_sysctl: true, container_safe: false | it is so for every container in container_t then",
		"- read sysctl_t:s0 file path=/x domain=container_t:s0:c3": "container_read_sysctl: true, container_safe: false | it is so for every container in container_t then",
	} {
		f := judged(t, e, denied)
		fix := f[0].Fix
		got := strings.TrimSuffix(strings.TrimPrefix(fix.Config, "policy:\n  booleans: {"), "}") + " | " + strings.ReplaceAll(fix.Also, f[0].ID, "ID")
		if fix.Kind != judge.Boolean || got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", denied, got, want)
		}
	}
}

// What needs a rule and is denied by categories too says both: the rule alone would not help.
func TestRuleAndCategories(t *testing.T) {
	f := judged(t, evidence(t), "web read container_log_t:s0:c3 file path=/logs/x")
	if f[0].Fix.Kind != judge.Role || !strings.Contains(f[0].Fix.Also, "the categories forbid it too") {
		t.Errorf("%+v", f[0].Fix)
	}
}

// The label of the logs' directories is the answer to what has no path too, if the same process asked for it at that time, and not to a log of the host.
func TestLogsOfPods(t *testing.T) {
	f := judged(t, evidence(t), "web read var_log_t:s0 dir path=/logs/pods pid=9", "web read var_log_t:s0 lnk_file name=0.log ino=99 pid=9 serial=6", "web read var_log_t:s0 file path=/logs/messages pid=9 serial=7",
		"web read var_log_t:s0 lnk_file name=b.log ino=98 pid=8 serial=8 dev=vdz")
	got := map[string]judge.Kind{}
	for _, one := range f {
		got[one.Paths[0].Path] = one.Fix.Kind
	}
	if want := map[string]judge.Kind{"/logs/pods": judge.Relabel, "0.log": judge.Relabel, "/logs/messages": judge.Role, "b.log": judge.Role}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Of a pod with several containers a path is the host's only if the file there is the one that was denied, and the command that is proposed names the pod.
func TestSeveralContainersOfAPod(t *testing.T) {
	e := evidence(t)
	pod := &attribution.Container{Several: true, Mounts: []attribution.Mount{{Source: "/srv/plain", Destination: "/plain"}}}
	e.Container = func(avc.Subject) *attribution.Container { return pod }
	for text, want := range map[string]judge.Kind{
		"pod write etc_t:s0 file path=/plain/file ino=11": judge.Volume, "pod write shadow_t:s0 file path=/plain/file ino=77": judge.Rule, "pod write shadow_t:s0 file path=/plain/file": judge.Rule,
	} {
		groups := avc.NewGroups(inPod{})
		groups.Add(denial(text))
		f := e.Judge(groups.List())
		if f[0].Fix.Kind != want || (f[0].Paths[0].Host != "") != (want == judge.Volume) {
			t.Errorf("%s: %+v on %+v", text, f[0].Fix, f[0].Paths)
		}
		if want == judge.Rule && !strings.HasSuffix(f[0].Fix.Command, " --pod shop/web") {
			t.Errorf("%s: %s", text, f[0].Fix.Command)
		}
	}
}

type inPod struct{}

func (inPod) Subject(*avc.Denial) avc.Subject { return avc.Subject{Pod: "shop/web"} }

// Another domain is an answer only if it is one to everything that is left of a subject's denials.
func TestAnotherDomain(t *testing.T) {
	e := evidence(t)
	f := judged(t, e, "- read container_log_t:s0 file path=/a domain=container_t:s0:c1", "- search container_log_t:s0 dir path=/b domain=container_t:s0:c1")
	for _, one := range f {
		if len(one.Fix.Alternatives) != 1 || one.Fix.Alternatives[0].Domain != "container_reader_t" {
			t.Errorf("%s: %+v", one.Class, one.Fix)
		}
	}
	f = judged(t, e, "- read container_log_t:s0 file path=/a domain=container_t:s0:c1", "- read shadow_t:s0 file path=/b domain=container_t:s0:c1")
	for _, one := range f {
		if one.Fix.Kind != judge.Rule || len(one.Fix.Alternatives) != 0 {
			t.Errorf("%s: %+v", one.Target, one.Fix)
		}
	}
}

// Without a policy, and without anything of the host, there is still an answer.
func TestLittleEvidence(t *testing.T) {
	e := &judge.Evidence{}
	for text, want := range map[string]judge.Kind{
		"- read container_file_t:s0:c3 file domain=container_t:s0:c1": judge.Categories,
		"- read nfs_t:s0 file domain=container_t:s0:c1":               judge.Rule,
	} {
		if f := judged(t, e, text); f[0].Fix.Kind != want {
			t.Errorf("%s: %+v", text, f[0].Fix)
		}
	}
}

// Paths that differ in nothing else are one finding, whose name stays the same when more come.
func TestMerge(t *testing.T) {
	e := evidence(t)
	var denials []string
	for i := range 30 {
		denials = append(denials, fmt.Sprintf("web read,open shadow_t:s0 file path=/x/%d serial=%d", i, i+1))
	}
	denials = append(denials, "web read shadow_t:s0 file path=/x/7", "web read shadow_t:s0 lnk_file path=/x/l")
	f := judged(t, e, denials...)
	if len(f) != 2 || f[0].Count != 31 || f[0].PathCount != 30 || len(f[0].Paths) != 20 || f[0].Paths[0] != (judge.Seen{Path: "/x/7", Count: 2}) ||
		f[0].Permissions["read"] != 31 || f[0].Permissions["open"] != 30 || f[0].Enforced != 31 || len(f[0].Serials) != 4 {
		t.Fatalf("got %+v", f[0])
	}
	if again := judged(t, e, slices.Concat(denials[5:6], denials[31:])...); again[0].ID != f[0].ID && again[1].ID != f[0].ID {
		t.Errorf("the finding %s has another name: %s, %s", f[0].ID, again[0].ID, again[1].ID)
	}
	// What helps is another thing on another day, and the ID is the same; of two at once, one has another.
	was, is := judged(t, e, "web read unlabeled_t:s0 file path=/plain/a"), judged(t, &judge.Evidence{}, "web read unlabeled_t:s0 file path=/plain/a")
	if was[0].Fix.Kind == is[0].Fix.Kind || was[0].ID != is[0].ID {
		t.Errorf("%s %s, then %s %s", was[0].ID, was[0].Fix.Kind, is[0].ID, is[0].Fix.Kind)
	}
	if both := judged(t, e, "web read etc_t:s0 file path=/plain/a", "web read etc_t:s0 file path=/data/web/a"); len(both) != 2 || both[0].ID != both[1].ID || both[0].Fix.Kind == both[1].Fix.Kind {
		t.Errorf("two fixes: %+v", both)
	}
	many := judged(t, e, "web read etc_t:s0 file path=/data/web/a dev=vdb", "web read etc_t:s0 file path=/data/web/b dev=vdb")
	if len(many) != 1 || many[0].Fix.Command != "restorecon -RFv /srv/data/web/a /srv/data/web/b" {
		t.Errorf("got %+v", many[0].Fix)
	}
}

// First and last are those of all denials of a finding, in whichever order they come.
func TestFirstAndLast(t *testing.T) {
	e, early, late := &judge.Evidence{}, time.Unix(1700000000, 0), time.Unix(1700000900, 0)
	for _, order := range [][]time.Time{{early, late}, {late, early}} {
		groups := avc.NewGroups(byComm{})
		for i, at := range order {
			d := denial(fmt.Sprintf("web read shadow_t:s0 file path=/x/%d", i))
			d.Time, d.PID = at, int(at.Unix())
			for range 2 - i { // the first group is the more frequent one, and comes first
				groups.Add(d)
			}
		}
		f := e.Judge(groups.List())
		if len(f) != 1 || !f[0].First.Equal(early) || !f[0].Last.Equal(late) || f[0].PID != int(late.Unix()) {
			t.Errorf("%v: %+v", order, f[0])
		}
	}
}

// What identifies a finding is not who: the ID is the same when the container is gone, has another name, or another device.
func TestIDStays(t *testing.T) {
	e := &judge.Evidence{}
	ids := map[string]bool{}
	for _, text := range []string{
		"web read shadow_t:s0 file path=/x", "- read shadow_t:s0 file path=/x", "- read shadow_t:s0 file name=x dev=vdc", "- getattr shadow_t:s0 file name=y serial=9",
	} {
		ids[judged(t, e, text)[0].ID] = true
	}
	if len(ids) != 1 {
		t.Errorf("IDs %v", ids)
	}
	for _, text := range []string{"web read shadow_t:s0 dir path=/x", "web read etc_t:s0 file path=/x", "web read shadow_t:s0 file domain=kernel_t:s0", "web read shadow_t:s0:c9 file path=/x"} {
		if id := judged(t, e, text)[0].ID; ids[id] {
			t.Errorf("%s has the ID of another thing", text)
		}
	}
	if f := judged(t, e, "web sys_module x_t:s0 capability self=1")[0]; !strings.HasSuffix(f.Fix.Command, " --only "+f.ID+" --container web") {
		t.Errorf("the command is %s", f.Fix.Command)
	}
}

// A container that gets itself denied on purpose makes no new findings by what it calls itself and its files: who accepts one has accepted all
// of these. Only what the policy tells apart is another one.
func TestIDOnPurpose(t *testing.T) {
	e := &judge.Evidence{}
	ids := map[string]bool{}
	for i := range 300 {
		ids[judged(t, e, fmt.Sprintf("web%d read shadow_t:s0 file path=/x/%d serial=%d", i%7, i, i+1))[0].ID] = true
	}
	if len(ids) != 1 {
		t.Errorf("%d IDs for one thing that was done: %v", len(ids), ids)
	}
}

// The records of one act have one answer, although only one of them says where it was.
func TestOneAct(t *testing.T) {
	e := evidence(t)
	f := judged(t, e, "web write etc_t:s0 dir path=/plain ino=10 serial=5", "web add_name etc_t:s0 dir name=new ino=77 serial=5", "web create etc_t:s0 file name=new serial=5 dev=-")
	if len(f) != 2 { // by class
		t.Fatalf("%d findings", len(f))
	}
	for _, one := range f {
		if one.Fix.Kind != judge.Volume || !strings.Contains(one.Fix.Config, "'/srv/plain(/.*)?'") {
			t.Errorf("%s: %+v", one.Class, one.Fix)
		}
	}
	if f = judged(t, e, "web read,open etc_t:s0 file path=/data/web/index.html dev=vdb ino=5", "web read etc_t:s0 file name=index.html ino=5 serial=9 dev=vde"); !slices.ContainsFunc(f, func(one *judge.Finding) bool { return one.Fix.Kind == judge.Rule }) {
		t.Error("a file of another file system with the same number is taken for the same")
	}
	// Two places at once: the event tells which one is meant, and without it nothing is guessed.
	two := []string{"web read etc_t:s0 file path=/plain/a serial=5", "web read etc_t:s0 file path=/config/a serial=6"}
	f = judged(t, e, append(two, "web create etc_t:s0 file name=new serial=5")...)
	for _, one := range f {
		if one.Fix.Kind == judge.Rule {
			t.Errorf("the same event: %+v", one.Fix)
		}
	}
	f = judged(t, e, append(two, "web create etc_t:s0 file name=new serial=7 pid=8")...)
	if !slices.ContainsFunc(f, func(one *judge.Finding) bool {
		return strings.Contains(one.Fix.Text, "looks like a directory of the host")
	}) {
		t.Error("another event: a place was guessed")
	}
	// The same process tells it too, for as long as its number is its own.
	f = judged(t, e, "web read etc_t:s0 file path=/config/a serial=5", "web read etc_t:s0 file path=/plain/a serial=6 after=3600", "web create etc_t:s0 file name=new serial=7 after=3601")
	for _, one := range f {
		if one.Permissions["create"] > 0 && !strings.Contains(one.Fix.Config, "'/srv/plain(/.*)?'") {
			t.Errorf("the same number of a process an hour before: %+v", one.Fix)
		}
	}
	// Where there is one place only, it is meant, whatever else the records have in common.
	for _, one := range judged(t, e, two[0], "web create etc_t:s0 file name=new serial=7 pid=8") {
		if one.Fix.Kind != judge.Volume || !strings.Contains(one.Fix.Config, "'/srv/plain(/.*)?'") {
			t.Errorf("one place: %+v", one.Fix)
		}
	}
	// What the label of the place would not allow stays what it is.
	f = judged(t, e, "web write etc_t:s0 dir path=/plain serial=5", "web read etc_t:s0 lnk_file name=new serial=5")
	if !slices.ContainsFunc(f, func(one *judge.Finding) bool { return one.Class == "lnk_file" && one.Fix.Kind == judge.Rule }) {
		t.Error("a label is advised that does not help")
	}
}

// A label that was wrong when something was denied, and is right today, is nothing to do: if with it the access is allowed, and if all has it that was to
// get it.
//
// Proves V19.
func TestRightByNow(t *testing.T) {
	const shared, logs = volumeContext, "system_u:object_r:container_log_t:s0"
	e := evidence(t)
	expected := e.Expected
	e.Expected = func(class, name string) string {
		if name == "/srv/data/web/logs" {
			return shared
		}
		return expected(class, name)
	}
	for _, c := range []struct {
		name    string
		denials []string
		labels  map[string]string
		kinds   []judge.Kind
		says    string
	}{
		{"by the file contexts", []string{"web read,open etc_t:s0 file path=/data/web/index.html dev=vdb"}, map[string]string{"/srv/data/web/index.html": shared}, []judge.Kind{judge.Nothing},
			"the label is right by now: /srv/data/web/index.html had the type etc_t when this was denied, and has the type container_file_t, with which the policy allows it"},
		{"as it was", []string{"web read etc_t:s0 file path=/data/web/x dev=vdb"}, map[string]string{"/srv/data/web/x": "system_u:object_r:etc_t:s0"}, []judge.Kind{judge.Relabel}, ""},
		{"not known", []string{"web read etc_t:s0 file path=/data/web/x dev=vdb"}, nil, []judge.Kind{judge.Relabel}, ""},
		{"no context", []string{"web read etc_t:s0 file path=/data/web/x dev=vdb"}, map[string]string{"/srv/data/web/x": "container_file_t"}, []judge.Kind{judge.Relabel}, ""},
		{"right, and another container's", []string{"web read etc_t:s0 file path=/data/web/x dev=vdb"}, map[string]string{"/srv/data/web/x": shared + ":c9"}, []judge.Kind{judge.Relabel}, ""},
		{"one of two", []string{"web read etc_t:s0 file path=/data/web/x dev=vdb", "web read etc_t:s0 file path=/data/web/y dev=vdb"}, map[string]string{"/srv/data/web/x": shared},
			[]judge.Kind{judge.Nothing, judge.Relabel}, ""},
		{"the file, and not the directory in which the next one is made", []string{"web read etc_t:s0 file path=/data/web/logs/x dev=vdb"}, map[string]string{"/srv/data/web/logs/x": shared,
			"/srv/data/web/logs": "system_u:object_r:etc_t:s0"}, []judge.Kind{judge.Relabel}, ""},
		{"both", []string{"web read etc_t:s0 file path=/data/web/logs/x dev=vdb"}, map[string]string{"/srv/data/web/logs/x": shared, "/srv/data/web/logs": shared}, []judge.Kind{judge.Nothing}, ""},
		{"a volume", []string{"web search unlabeled_t:s0 dir path=/data/sub dev=vdb"}, map[string]string{"/srv/data/sub": shared, "/srv/data": shared}, []judge.Kind{judge.Nothing},
			"the label is right by now: /srv/data/sub had no label when this was denied"},
		{"a volume that is being labelled", []string{"web search unlabeled_t:s0 dir path=/data/sub dev=vdb"}, map[string]string{"/srv/data/sub": shared, "/srv/data": "system_u:object_r:unlabeled_t:s0"},
			[]judge.Kind{judge.Volume}, ""},
		{"a level", []string{"web read container_file_t:s0:c3 file path=/data/web/x dev=vdb"}, map[string]string{"/srv/data/web/x": shared}, []judge.Kind{judge.Nothing},
			"had the level s0:c3 when this was denied, and has s0"},
		{"that level", []string{"web read container_file_t:s0:c3 file path=/data/web/x dev=vdb"}, map[string]string{"/srv/data/web/x": shared + ":c3"}, []judge.Kind{judge.Relabel}, ""},
		{"a label that the policy does not know", []string{"web read unlabeled_t:s0 file path=/data/web/x dev=vdb raw=gone_t"}, map[string]string{"/srv/data/web/x": shared}, []judge.Kind{judge.Nothing},
			"had the label system_u:object_r:gone_t:s0 when this was denied, and has system_u:object_r:container_file_t:s0"},
		{"logs of pods, which take more than the label", []string{"web read var_log_t:s0 dir path=/logs/pods"}, map[string]string{"/var/log/pods": logs}, []judge.Kind{judge.Relabel}, ""},
		{"what only a rule allows", []string{"web read shadow_t:s0 file path=/data/x dev=vdb"}, map[string]string{"/srv/data/x": "system_u:object_r:etc_t:s0", "/srv/data": shared}, []judge.Kind{judge.Volume}, ""},
		{"one act, of which one record has a path", []string{"web write etc_t:s0 dir path=/plain ino=10 serial=5", "web add_name etc_t:s0 dir name=new ino=77 serial=5",
			"web create etc_t:s0 file name=new serial=5 dev=-"}, map[string]string{"/srv/plain": shared}, []judge.Kind{judge.Nothing, judge.Nothing}, "/srv/plain had the type etc_t"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e.Label = nil
			before := judged(t, e, c.denials...)
			e.Label = func(name string) string { return c.labels[name] }
			found := judged(t, e, c.denials...)
			var kinds []judge.Kind
			for _, f := range found {
				if kinds = append(kinds, f.Fix.Kind); f.Fix.Kind == judge.Nothing && (f.Fix.Command != "" || f.Fix.Config != "" || f.Fix.Also != "" || !strings.Contains(f.Fix.Text, c.says)) {
					t.Errorf("%+v", f.Fix)
				}
				if !slices.ContainsFunc(before, func(was *judge.Finding) bool { return was.ID == f.ID && was.Fix.Kind != judge.Nothing }) {
					t.Errorf("%s is another finding than before", f.ID)
				}
			}
			if slices.Sort(kinds); !slices.Equal(kinds, c.kinds) {
				t.Errorf("%v, want %v", kinds, c.kinds)
			}
		})
	}
}

// byName is the subject of a container whose evidence is in the name of the file.
type byName struct{}

func (byName) Subject(d *avc.Denial) avc.Subject {
	return avc.Subject{ID: "9", Container: "log", Evidence: d.Name}
}

// How it was found out whose a denial is does not make two subjects of one container.
func TestAnotherDomainWhateverTheEvidence(t *testing.T) {
	groups := avc.NewGroups(byName{})
	for _, text := range []string{"- read container_log_t:s0 file name=cgroup domain=container_t:s0:c1", "- read shadow_t:s0 file name=categories domain=container_t:s0:c1"} {
		groups.Add(denial(text))
	}
	for _, one := range evidence(t).Judge(groups.List()) {
		if one.Fix.Kind != judge.Rule || len(one.Fix.Alternatives) != 0 {
			t.Errorf("%s: %+v", one.Target, one.Fix)
		}
	}
}

// A finding says so if paths of any of its groups were left out.
func TestFolded(t *testing.T) {
	for _, folded := range [][2]bool{{false, false}, {false, true}, {true, false}} {
		var groups []*avc.Group
		for i, is := range folded {
			one := avc.NewGroups(byComm{})
			one.Add(denial(fmt.Sprintf("web read shadow_t:s0 file path=/x/%d", i)))
			g := one.List()[0]
			g.Folded = is
			groups = append(groups, g)
		}
		if f := (&judge.Evidence{}).Judge(groups); len(f) != 1 || f[0].Folded != (folded[0] || folded[1]) {
			t.Errorf("%v: %+v", folded, f)
		}
	}
}

// What stops something comes before what is only reported, however often that is.
func TestOrder(t *testing.T) {
	groups := avc.NewGroups(byComm{})
	for range 9 {
		d := denial("- read nfs_t:s0 file path=/x")
		d.Enforced = avc.EnforcedNo
		groups.Add(d)
	}
	groups.Add(denial("- read shadow_t:s0 file path=/x"))
	if f := (&judge.Evidence{}).Judge(groups.List()); len(f) != 2 || f[0].Target != "shadow_t" {
		t.Errorf("%s comes first", f[0].Target)
	}
}

// A record of SELINUX_ERR says which contexts, and why they are refused; never that one is not valid which the policy takes.
func TestErrors(t *testing.T) {
	e := evidence(t)
	for text, want := range map[string]struct {
		kind judge.Kind
		says string
	}{
		"op=security_bounded_transition seresult=denied oldcontext=system_u:system_r:kernel_t:s0 newcontext=system_u:system_r:container_t:s0:c1,c2": {judge.Context, `no class "process2"`},
		"op=security_validate_transition seresult=denied oldcontext=system_u:object_r:etc_t:s0:c1 newcontext=system_u:object_r:etc_t:s0 taskcontext=system_u:system_r:kernel_t:s0 tclass=file": {
			judge.Categories, "validatetrans) forbids kernel_t to change the label of a file from system_u:object_r:etc_t:s0:c1 to system_u:object_r:etc_t:s0;"},
		"op=security_compute_av reason=bounds scontext=system_u:system_r:child_t:s0 tcontext=system_u:object_r:nfs_t:s0 tclass=file perms=open,write": {
			judge.Categories, "the type child_t is bounded by parent_t (typebounds)"},
		"op=security_compute_av reason=bounds scontext=system_u:system_r:child_t:s0 tcontext=system_u:object_r:nfs_t:s0 tclass=file perms=read": {
			judge.Nothing, "allows this by now"},
		"op=security_compute_sid invalid_context=user_u:system_r:container_t:s0 scontext=system_u:system_r:kernel_t:s0 tcontext=system_u:object_r:etc_t:s0 tclass=process": {
			judge.Context, "the user user_u may not have the role system_r"},
		"op=security_compute_sid invalid_context=system_u:system_r:container_t:s0 scontext=system_u:system_r:kernel_t:s0 tcontext=system_u:object_r:etc_t:s0 tclass=process": {
			judge.Nothing, "takes the context system_u:system_r:container_t:s0 by now"},
	} {
		groups := avc.NewGroups(byComm{})
		reader := avc.NewReader(avc.NewDecoder(strings.NewReader("type=SELINUX_ERR msg=audit(1.001:1): " + text + "\n")))
		d, err := reader.Next()
		if err != nil {
			t.Fatal(text, err)
		}
		groups.Add(d)
		f := e.Judge(groups.List())
		if len(f) != 1 || f[0].Fix.Kind != want.kind || !strings.Contains(f[0].Fix.Text, want.says) {
			t.Errorf("%s\n%+v", text, f[0].Fix)
		}
	}
}

// A path from a container cannot make a command that does something else.
func TestHostilePaths(t *testing.T) {
	f := judged(t, evidence(t), "web read etc_t:s0 file path=/data/web/$(reboot);'x dev=vdb")
	if want := `restorecon -RFv '/srv/data/web/$(reboot);'\''x'`; f[0].Fix.Command != want {
		t.Errorf("got %s, want %s", f[0].Fix.Command, want)
	}
}
