// Package danger says which accesses no workload gets by mere observation: with them a container is no longer confined, or gets at what is secret.
// It is a table of names. What the policy allows and what a rule means besides is not asked.
package danger

import (
	"slices"
	"strings"
)

// dangers gives, in order, what no workload gets by mere observation: the name by which the operator can ask for it, the reason, and what
// it is.
func dangers() []danger {
	return []danger{
		{"shadow", "password hashes", targets("shadow_t", "shadow_history_t", "shadow_lock_t")},
		{"keys", "private keys", func(t, c, p string) bool {
			return c == "file" && slices.Contains([]string{"sshd_key_t", "ssh_home_t", "tls_privkey_t", "dnssec_t", "gpg_secret_t"}, t)
		}},
		{"policy", "SELinux's own configuration and policy", func(t, c, p string) bool {
			switch t {
			case "selinux_config_t", "semanage_store_t", "semanage_var_lib_t", "policy_config_t", "policy_src_t", "file_context_t", "default_context_t", "selinux_login_config_t":
				return !slices.Contains([]string{"getattr", "search", "open"}, p) || c == "file"
			}
			return c == "security" || t == "security_t" && slices.Contains([]string{"write", "append"}, p)
		}},
		{"audit", "the audit rules and logs", func(t, c, p string) bool {
			return targets("auditd_etc_t", "auditd_log_t", "auditd_unit_t", "auditd_unit_file_t")(t, c, p) ||
				c == "netlink_audit_socket" && slices.Contains([]string{"nlmsg_write", "nlmsg_readpriv", "nlmsg_tty_audit"}, p)
		}},
		{"host-programs", "changing what the host runs: its programs, libraries, units, modules and settings", func(t, c, p string) bool {
			return Changes(c, p) && (slices.Contains([]string{"bin_t", "boot_t", "cron_spool_t", "etc_t", "kernel_modules_t", "ld_so_cache_t", "ld_so_t", "lib_t", "modules_conf_t", "modules_dep_t",
				"modules_object_t", "passwd_file_t", "root_t", "shell_exec_t", "src_t", "system_cron_spool_t", "system_map_t", "user_cron_spool_t", "usr_t"}, t) ||
				strings.HasSuffix(t, "_exec_t") || strings.HasSuffix(t, "_unit_t") || strings.HasSuffix(t, "_unit_file_t"))
		}},
		{"raw-devices", "disks and memory, past every file's permission", func(t, c, p string) bool {
			if c != "blk_file" && c != "chr_file" || slices.Contains([]string{"getattr", "setattr"}, p) {
				return false
			}
			return c == "blk_file" || slices.Contains([]string{"fixed_disk_device_t", "removable_device_t", "memory_device_t", "nvram_device_t", "device_t", "scsi_generic_device_t",
				"kvm_device_t", "kmsg_device_t", "vhost_device_t", "vfio_device_t", "cpu_device_t", "mtrr_device_t"}, t)
		}},
		{"kernel-memory", "the kernel's memory", func(t, c, p string) bool {
			return targets("proc_kcore_t", "proc_kmsg_t", "debugfs_t", "tracefs_t")(t, c, p) || c == "lockdown" || c == "memprotect"
		}},
		{"kernel-settings", "writing to the kernel's settings", func(t, c, p string) bool {
			writes := slices.Contains([]string{"write", "append", "create", "unlink", "rename", "setattr"}, p)
			return writes && (strings.HasPrefix(t, "sysctl_") || t == "usermodehelper_t" || t == "cgroup_t" || t == "sysfs_t" || t == "efivarfs_t" || t == "proc_t")
		}},
		{"runtime", "the container runtime: whoever commands it is root on the host", func(t, c, p string) bool {
			runtime := strings.HasPrefix(t, "docker") || strings.HasPrefix(t, "container_runtime") || strings.HasPrefix(t, "container_engine") ||
				strings.HasPrefix(t, "crio") || strings.HasPrefix(t, "kubelet") || strings.HasPrefix(t, "containerd")
			switch c {
			case "sock_file":
				// Where the policy has no type for what docker makes in /run, as Flatcar's has not, its socket has that of the directory.
				return runtime || t == "container_runtime_t" || strings.HasSuffix(t, "container_var_run_t") || p == "write" && slices.Contains([]string{"run_t", "var_run_t"}, t)
			case "unix_stream_socket":
				return p == "connectto" && (runtime || t == "kernel_t" || t == "init_t" || t == "unconfined_service_t")
			case "process":
				return runtime
			}
			return false
		}},
		{"unlabeled", "everything that has no label", func(t, c, p string) bool { return t == "unlabeled_t" || t == "file_t" }},
		{"other-processes", "looking into or changing other processes", func(t, c, p string) bool {
			return c == "process" && t != "" && slices.Contains([]string{"ptrace", "transition", "dyntransition", "setcurrent", "share", "siginh", "rlimitinh", "noatsecure"}, p)
		}},
		{"labels", "giving files or itself another label", func(t, c, p string) bool {
			return slices.Contains([]string{"relabelfrom", "relabelto", "setfscreate", "setexec", "setsockcreate", "setkeycreate", "associate"}, p)
		}},
		{"mounts", "mounting", func(t, c, p string) bool {
			return c == "filesystem" && slices.Contains([]string{"mount", "remount", "unmount", "quotamod"}, p) || p == "mounton"
		}},
		{"modified-code", "running code that the program itself has written", func(t, c, p string) bool {
			return slices.Contains([]string{"execmod", "execheap", "execstack", "entrypoint"}, p)
		}},
		{"services", "starting and stopping the host's services", func(t, c, p string) bool {
			return c == "service" && p != "status" || c == "system" && p != "ipc_info" && p != "syslog_read"
		}},
		{"packets", "all network traffic", func(t, c, p string) bool { return c == "packet_socket" || c == "rawip_socket" && p == "create" }},
	}
}

// Changes tells whether a permission on a file, a directory or a link changes what is there.
func Changes(class, permission string) bool {
	return slices.Contains([]string{"file", "dir", "lnk_file"}, class) &&
		slices.Contains([]string{"write", "append", "create", "unlink", "link", "rename", "setattr", "add_name", "remove_name", "reparent", "rmdir"}, permission)
}

// Names are the names of all dangers, in order.
func Names() []string {
	names := append([]string{"bpf", "io_uring", "perf_event"}, dangerousCapabilities()...)
	for _, d := range dangers() {
		names = append(names, d.name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

type danger struct {
	name, reason string
	is           func(target, class, permission string) bool
}

func targets(types ...string) func(t, c, p string) bool {
	return func(t, c, p string) bool { return slices.Contains(types, t) && p != "getattr" && p != "search" }
}

// capabilities that let a program leave its container, read what it likes, or change the kernel. Each is a danger of its own name.
func dangerousCapabilities() []string {
	return []string{
		"audit_control", "bpf", "dac_read_search", "mac_admin", "mac_override", "net_admin", "perfmon", "setfcap", "sys_admin", "sys_boot", "sys_module", "sys_ptrace", "sys_rawio",
		"sys_time", "syslog", "linux_immutable", "checkpoint_restore", "mknod",
	}
}

// Of gives the name and the reason of the danger in one permission, "" if there is none. self says that the target is the domain itself.
func Of(target, class, permission string, self bool) (name, reason string) {
	if strings.HasPrefix(class, "capability") || strings.HasPrefix(class, "cap") && strings.HasSuffix(class, "_userns") {
		// In a user namespace of its own a capability reaches only that.
		if !strings.HasSuffix(class, "_userns") && slices.Contains(dangerousCapabilities(), permission) {
			return permission, "the capability " + permission
		}
		return "", ""
	}
	if class == "bpf" || class == "perf_event" || class == "io_uring" && permission == "override_creds" {
		return class, "the kernel's " + class
	}
	for _, d := range dangers() {
		if self && (d.name == "other-processes" || d.name == "runtime") {
			continue // itself
		}
		if d.is(target, class, permission) {
			return d.name, d.reason
		}
	}
	return "", ""
}
