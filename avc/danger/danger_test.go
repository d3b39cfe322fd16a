package danger

import "testing"

// What is dangerous depends on the permission, the class and whether it is the domain itself.
func TestOf(t *testing.T) {
	for _, c := range []struct {
		target, class, permission string
		self                      bool
		want                      string
	}{
		{"shadow_t", "file", "read", false, "shadow"},
		{"shadow_t", "file", "getattr", false, ""},
		{"container_t", "capability", "mknod", true, "mknod"},
		{"container_t", "capability", "net_bind_service", true, ""},
		{"container_t", "cap_userns", "sys_admin", true, ""},
		{"container_t", "bpf", "prog_load", true, "bpf"},
		{"docker_var_run_t", "sock_file", "write", false, "runtime"},
		{"var_run_t", "sock_file", "write", false, "runtime"},
		{"run_t", "sock_file", "write", false, "runtime"},
		{"var_run_t", "sock_file", "getattr", false, ""},
		{"var_run_t", "file", "write", false, ""},
		{"system_dbusd_runtime_t", "sock_file", "write", false, ""},
		{"container_runtime_t", "process", "signal", false, "runtime"},
		{"container_runtime_t", "process", "signal", true, ""},
	} {
		name, reason := Of(c.target, c.class, c.permission, c.self)
		if name != c.want || (reason == "") != (c.want == "") {
			t.Errorf("%+v: %q, %q", c, name, reason)
		}
	}
}
