package roles

// role is one role as it is written down here. What the policy at hand lacks of it is left out when it is written for that policy.
type role struct {
	name, does string
	// booleans are off by default; a grant names the one that it hangs on.
	booleans []string
	types    []fileType
	domains  []domain
	contexts []Context
	// made says which type a directory gets that host processes make under a name in a directory of a type.
	made []made
}

// fileType is a type for files that the role brings.
type fileType struct {
	name       string
	executable bool
}

// domain is a domain that is all that the containers' domain is, and may do besides.
type domain struct {
	name   string
	grants []grant
	// in are attributes that the authors of the policy hang rights on and that a domain needs to be allowed the rest.
	in []string
	// lowest are types of directories in which what the domain makes gets the level s0, so that its next container can replace it.
	lowest []string
	// unasked says that no denial suggests it: whoever needs it asks for it by name, or it gives more than a denial can tell.
	unasked bool
}

// grant is what a domain may do.
type grant struct {
	// on are types and attributes, parted by spaces; one with a "-" in front is left out of them. "self" is the domain itself.
	on, class, permissions string
	boolean                string
}

type made struct{ in, name, as string }

// Permissions that go together.
const (
	listDir  = "getattr open read search ioctl lock"
	readFile = "getattr open read ioctl lock"
	readLink = "getattr read"
	watch    = "watch watch_reads"
	makeDir  = listDir + " create write add_name remove_name rename reparent rmdir setattr"
	makeFile = readFile + " create write append link unlink rename setattr map"
	makeLink = readLink + " create unlink rename setattr"
)

// definitions are the roles, in the order of their names.
func definitions() []role {
	return []role{cniInstaller(), csiNode(), k3s(), logReader(), nodeExporter(), rke2()}
}

func reads(on string) []grant {
	return []grant{{on: on, class: "dir", permissions: listDir}, {on: on, class: "file", permissions: readFile}, {on: on, class: "lnk_file", permissions: readLink}}
}

func manages(on string) []grant {
	return []grant{{on: on, class: "dir", permissions: makeDir}, {on: on, class: "file", permissions: makeFile}, {on: on, class: "lnk_file", permissions: makeLink}}
}

func watches(on string) []grant {
	return []grant{{on: on, class: "dir", permissions: watch}, {on: on, class: "file", permissions: watch}}
}

func under(boolean string, grants []grant) []grant {
	for i := range grants {
		grants[i].boolean = boolean
	}
	return grants
}

func join(lists ...[]grant) (all []grant) {
	for _, list := range lists {
		all = append(all, list...)
	}
	return all
}

func logReader() role {
	const audit, docker = "container_log_reader_read_audit", "container_log_reader_read_docker"
	logs := "logfile container_log_t var_log_t -auditd_log_t"
	return role{
		name: "log-reader", does: "reads the host's and the containers' logs, follows links, watches",
		booleans: []string{audit, docker},
		domains: []domain{{name: "container_log_reader_t", grants: join(
			reads(logs), watches(logs), []grant{{on: "systemd_journal_t", class: "file", permissions: "map"}},
			under(audit, reads("auditd_log_t")), under(audit, watches("auditd_log_t")),
			// Docker's own log files, where they have the type of all that container runtimes keep.
			under(docker, reads("container_var_lib_t")), under(docker, watches("container_var_lib_t")),
		)}},
	}
}

func nodeExporter() role {
	return role{
		name: "node-exporter", does: "reads the host's figures: /proc, /sys, devices' and mounts' states",
		domains: []domain{{name: "container_node_exporter_t", grants: join(
			reads("proc_t proc_net_t proc_mdstat_t proc_numa_t sysctl_type sysctl_t sysctl_kernel_t sysctl_fs_t sysctl_net_t sysctl_vm_t sysfs_t cgroup_t cgroup_types udev_runtime_t udev_var_run_t"),
			[]grant{
				{on: "filesystem_type fs_t", class: "filesystem", permissions: "getattr"},
				{on: "mountpoint", class: "dir", permissions: "getattr open search"},
				// The mounts of the host stand below its first process.
				{on: "kernel_t init_t", class: "dir", permissions: listDir},
				{on: "kernel_t init_t", class: "file", permissions: readFile},
				{on: "kernel_t init_t", class: "lnk_file", permissions: readLink},
			},
		)}},
	}
}

func cniInstaller() role {
	const plugin, config = "container_cni_plugin_t", "container_cni_config_t"
	return role{
		name: "cni-installer", does: "writes network plugins into /opt/cni/bin and their configuration into /etc/cni/net.d, and nothing else of the host",
		types: []fileType{{name: plugin, executable: true}, {name: config}},
		domains: []domain{{name: "container_cni_installer_t", lowest: []string{plugin, config}, grants: join(
			manages(plugin), manages(config), watches(config),
			[]grant{{on: plugin, class: "file", permissions: "execute execute_no_trans"}},
		)}},
		contexts: []Context{
			{Path: "/opt/cni/bin(/.*)?", Type: plugin},
			{Path: `/etc/cni/net\.d(/.*)?`, Type: config},
			{Path: "/var/lib/rancher/k3s/data/cni(/.*)?", Type: plugin},
			{Path: `/var/lib/rancher/k3s/agent/etc/cni/net\.d(/.*)?`, Type: config},
		},
		made: []made{
			{"usr_t", "cni", plugin}, {"unlabeled_t", "cni", plugin},
			{"etc_t", "net.d", config}, {"container_file_t", "net.d", config}, {"container_config_t", "net.d", config},
		},
	}
}

func csiNode() role {
	const node, sidecar = "container_csi_node_t", "container_csi_sidecar_t"
	return role{
		name: "csi-node", does: "mounts volumes for pods on this node, and talks over the kubelet's plugin sockets",
		domains: []domain{
			{name: node, unasked: true, in: []string{"fixed_disk_raw_read", "fixed_disk_raw_write"}, grants: join(
				manages("container_var_lib_t"),
				[]grant{
					{on: "self", class: "capability", permissions: "sys_admin chown fowner fsetid dac_override dac_read_search mknod"},
					{on: "fs_t tmpfs_t nfs_t cifs_t fusefs_t dosfs_t iso9660_t", class: "filesystem", permissions: "getattr mount remount unmount"},
					{on: "fs_t nfs_t cifs_t", class: "filesystem", permissions: "relabelfrom"},
					{on: "container_file_t", class: "filesystem", permissions: "getattr mount remount unmount relabelfrom relabelto"},
					{on: "container_file_t container_var_lib_t", class: "dir", permissions: "mounton"},
					{on: "container_file_t container_var_lib_t", class: "file", permissions: "mounton"},
					{on: "container_var_lib_t", class: "blk_file", permissions: "create getattr setattr unlink"},
					{on: "fixed_disk_device_t", class: "blk_file", permissions: "getattr open read write ioctl lock"},
					{on: "device_t", class: "dir", permissions: "getattr open read search"},
					{on: "lvm_control_t loop_control_device_t", class: "chr_file", permissions: "getattr open read write ioctl"},
					{on: "sysfs_t", class: "file", permissions: "write"},
					// The root of a new file system has no label.
					{on: "unlabeled_t", class: "dir", permissions: "getattr open read search setattr"},
				},
			)},
			{name: sidecar, grants: []grant{{on: node + " spc_t", class: "unix_stream_socket", permissions: "connectto"}}},
		},
		made: []made{{"var_lib_t", "kubelet", "container_var_lib_t"}},
	}
}

func k3s() role {
	return role{
		name: "k3s", does: "labels for what k3s keeps in /var/lib/rancher/k3s",
		contexts: []Context{
			{Path: "/var/lib/rancher/k3s(/.*)?", Type: "container_var_lib_t"},
			{Path: "/var/lib/rancher/k3s/storage(/.*)?", Type: "container_file_t"},
		},
		made: []made{{"var_lib_t", "rancher", "container_var_lib_t"}, {"var_lib_t", "kubelet", "container_var_lib_t"}},
	}
}

func rke2() role {
	const tls = "rke2_tls_t"
	control := func(more ...grant) []grant {
		return join(reads(tls), reads("container_var_lib_t"), manages("container_log_t"), more)
	}
	return role{
		name: "rke2", does: "labels for what RKE2 keeps in /var/lib/rancher/rke2, and the domains that its static pods ask for by name",
		types: []fileType{{name: tls}},
		domains: []domain{
			{name: "rke2_service_t", unasked: true, grants: control()},
			{name: "rke2_service_db_t", unasked: true, lowest: []string{"container_var_lib_t"}, grants: control(manages("container_var_lib_t")...)},
		},
		contexts: []Context{
			{Path: "/var/lib/rancher/rke2(/.*)?", Type: "container_var_lib_t"},
			{Path: "/var/lib/rancher/rke2/server/logs(/.*)?", Type: "container_log_t"},
			{Path: "/var/lib/rancher/rke2/server/tls(/.*)?", Type: tls},
			{Path: "/opt/local-path-provisioner(/.*)?", Type: "container_file_t"},
		},
		made: []made{
			{"var_lib_t", "rancher", "container_var_lib_t"}, {"var_lib_t", "kubelet", "container_var_lib_t"},
			{"container_var_lib_t", "tls", tls},
		},
	}
}
