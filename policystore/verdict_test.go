package policystore

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/command"
)

// someParts are two declared modules and a package, two file contexts and a module by hand.
func someParts() ([]part, []int) {
	parts := declaredParts(Declared{
		Modules: []Module{
			{Name: "good", Lang: "cil", Content: []byte("(type good_t)\n(allow good_t etc_t (file (read)))\n")},
			{Name: "bad", Lang: "cil", Content: []byte("(type bad_t)\n(typetransition container_t etc_t file bad_t)\n")},
			{Name: "packed", Lang: "pp", Content: []byte("\x8f\xff\x7c\xf9")},
			{Name: "ports", Lang: "cil", Content: []byte("(portcon tcp 8080 (system_u object_r good_t ((s0)(s0))))\n")},
		},
		Permissive:   []PermissiveDomain{{Type: "one_t"}, {Type: "two_t"}},
		FileContexts: []FileContext{{Path: "/srv/a", Type: "any", Context: "u:r:t:s0"}, {Path: "/srv/my(?<x/.*", Type: "any", Context: "u:r:t:s0"}},
	})
	parts = append(parts, operatorsParts(map[string]string{"400/hand": "x"}, &Record{}, []string{"file_contexts.local", "ports.local", "seusers.local"}, nil)...)
	in := make([]int, len(parts))
	for i := range parts {
		in[i] = i
	}
	return parts, in
}

// The messages are those of the tools of policycoreutils 3.4 and 3.8.
func TestJudge(t *testing.T) {
	const store = "/var/lib/selinux/mcs/tmp/modules/"
	for message, want := range map[string]string{
		"Failed to resolve allow statement at " + store + "500/bad/cil:2\nFailed to resolve AST\nsemodule:  Failed!\n":                                                                                           "bad:2 sure: Failed to resolve allow statement",
		"Failed to resolve permission nosuchperm\nFailed to resolve allow statement at " + store + "500/bad/cil:2\nFailed to resolve AST\n":                                                                      "bad:2 sure: Failed to resolve allow statement (Failed to resolve permission nosuchperm)",
		"Open parenthesis without matching close at line 3 of " + store + "500/bad/cil\nlibsemanage.semanage_load_files: Error while reading from file " + store + "500/bad/cil. (No such file or directory).\n": "bad:3 sure: Open parenthesis without matching close",
		"Re-declaration of type etc_t\nPrevious declaration of type at " + store + "500/good/cil:1\nBad type declaration at " + store + "500/bad/cil:1\nFailed to build AST\n":                                   "bad:1: Bad type declaration (Re-declaration of type etc_t)",
		"libsemanage.semanage_pipe_data: Child process /usr/libexec/selinux/hll/pp failed with code: 255. (No such file or directory).\npacked: libsepol.policydb_read: policydb module version 99 does not match my version range 4-21\n" +
			"packed: libsepol.sepol_module_package_read: invalid module in module package (at section 0)\npacked: Failed to read policy package\n (No such file or directory).\nsemodule:  Failed!\n": "packed:0 sure: policydb module version 99 does not match my version range 4-21",
		"libsemanage.semanage_compile_module: packed: libsepol.policydb_read: policydb module version 99 does not match my version range 4-22\n. (No such file or directory).\nlibsemanage.semanage_direct_commit: Failed to compile hll files into cil files. (No such file or directory).\n": "packed:0 sure: policydb module version 99 does not match my version range 4-22",
		"packed: libsepol.module_package_read_offsets: module package header truncated\n": "packed:0 sure: module package header truncated",
		"neverallow check failed at " + store + "500/bad/cil:2\n  (neverallow own_t etc_t (file (read)))\n    <root>\n    allow at " + store + "400/hand/cil:3\n      (allow own_t etc_t (file (read)))\n\nFailed to generate binary\n":                                                    "bad:2: neverallow check failed at line 2 of module bad (priority 500); (neverallow own_t etc_t (file (read))); <root>; allow at line 3 of module hand (priority 400); (allow own_t etc_t (file (read)))",
		"neverallow check failed at " + store + "100/base/cil:9\n  (neverallow d n (process (signal)))\n    allow at " + store + "400/hand/cil:3\n      (allow h d (process (signal)))\nFailed to generate binary\n":                                                                       "hand:3: neverallow check failed at line 9 of module base (priority 100); (neverallow d n (process (signal))); allow at line 3 of module hand (priority 400); (allow h d (process (signal)))",
		"Conflicting type rules (scontext=container_t tcontext=etc_t tclass=file result=container_log_t), existing=bad_t\nExpanded from type rule (scontext=container_t)\nBinary policy creation failed at " + store + "100/docker/cil:6\nFailed to generate binary\nsemodule:  Failed!\n": "nobody, likely bad: Conflicting type rules (scontext=container_t tcontext=etc_t tclass=file result=container_log_t), existing=bad_t",
		"Conflicting type rules (result=x_t), existing=y_t\nBinary policy creation failed at " + store + "500/bad/cil:2\nFailed to generate binary\n":                                                                                                                                      "bad:2: Conflicting type rules (result=x_t), existing=y_t",
		"Problems processing portcon rules\nFailed post db handling\nPost process failed\nsemodule:  Failed!\n":                                                                                                                                                                            "nobody, likely ports: Problems processing portcon rules",
		"Failed to resolve typepermissive statement at " + store + "500/selinux_provision_permissive_domains/cil:2\nFailed to resolve AST\n":                                                                                                                                               "two_t:0 sure: Failed to resolve typepermissive statement",
		"Failed to resolve filecon statement at " + store + "500/selinux_provision_file_contexts/cil:1\nFailed to resolve AST\n":                                                                                                                                                           "/srv/a:0 sure: Failed to resolve filecon statement: does its context exist in the policy?",
		"/sbin/setfiles: /x/file_contexts:  line 4 has invalid regex /srv/my(?<x/.*:  REGEX back-end error: At offset 12: syntax error in subpattern name\n":                                                                                                                               "/srv/my(?<x/.*:0 sure: its path is not a regular expression: REGEX back-end error: At offset 12: syntax error in subpattern name",
		"Type k_t is invalid for role object_r\nInvalid context\nInvalid filecon at " + store + "500/bad/cil:2\nFailed to verify cil database\nPost process failed\n":                                                                                                                      "bad:2 sure: Invalid filecon (Type k_t is invalid for role object_r; Invalid context)",
		"Failed to resolve allow statement at " + store + "400/hand/cil:7\n":                                                                                                                                                                                                               "hand:7 sure: Failed to resolve allow statement",
		"Failed to resolve allow statement at " + store + "100/base/cil:7\n":                                                                                                                                                                                                               "nobody: Failed to resolve allow statement at line 7 of module base (priority 100)",
		"Child type child_t exceeds bounds of parent parent_t\n    allow at " + store + "500/bad/cil:3\n":                                                                                                                                                                                  "bad:3: Child type child_t exceeds bounds of parent parent_t; allow at line 3 of module bad (priority 500)",
		"libsemanage.parse_assert_noeof: unexpected end of file (/x/mcs/tmp/file_contexts.local: 1) (No such file or directory).\nlibsemanage.parse_fetch_string: could not fetch string value (No such file or directory).\nlibsemanage.fcontext_parse: could not parse file context record (No such file or directory).\nlibsemanage.dbase_file_cache: could not cache file database (No such file or directory).\nlibsemanage.enter_ro: could not enter read-only section (No such file or directory).\nsemodule:  Failed!\n": "file_contexts.local:1 sure: unexpected end of file",
		"libsepol.sepol_context_from_string: malformed context \"-q\" (Invalid argument).\nlibsepol.sepol_context_from_string: could not construct context from string (Invalid argument).\nlibsemanage.fcontext_parse: invalid security context \"-q\" (/x/mcs/tmp/file_contexts.local: 2)\n/srv/op -q system_u:object_r:etc_t:s0 (Invalid argument).\nlibsemanage.fcontext_parse: could not parse file context record (Invalid argument).\nlibsemanage.enter_ro: could not enter read-only section (Invalid argument).\n":      "file_contexts.local:2 sure: invalid security context \"-q\" (malformed context \"-q\")",
		"libsepol.context_from_record: type nosuch_t is not defined (No such file or directory).\nlibsepol.context_from_record: could not create context structure (Invalid argument).\nlibsemanage.validate_handler: invalid context system_u:object_r:nosuch_t:s0 specified for /srv/op(/.*)? [all files] (Invalid argument).\nlibsemanage.dbase_llist_iterate: could not iterate over records (Invalid argument).\nsemodule:  Failed!\n":                                                                                      "file_contexts.local:0 sure: invalid context system_u:object_r:nosuch_t:s0 specified for /srv/op(/.*)? [all files] (type nosuch_t is not defined)",
		"/sbin/setfiles: /x/final/mcs/contexts/files/file_contexts.local:  line 1 has invalid regex /srv/op(/.*?:  REGEX back-end error: At offset 14: missing closing parenthesis\n":                                                                                                                                                                                                                                                                                          "file_contexts.local:1 sure: its path is not a regular expression: /srv/op(/.*?:  REGEX back-end error: At offset 14: missing closing parenthesis",
		"libsemanage.validate_handler: selinux user foo_u does not exist (No such file or directory).\nlibsemanage.validate_handler: seuser mapping [bob -> (foo_u, s0)] is invalid (No such file or directory).\nlibsemanage.dbase_llist_iterate: could not iterate over records (No such file or directory).\nsemodule:  Failed!\n":                                                                                                                                          "seusers.local:0 sure: seuser mapping [bob -> (foo_u, s0)] is invalid (selinux user foo_u does not exist)",
		"libsepol.context_from_record: type nosuch_t is not defined (No such file or directory).\nlibsepol.context_from_record: could not create context structure (Invalid argument).\nlibsepol.port_from_record: could not create port structure for range 80:80 (tcp) (Invalid argument).\nlibsepol.sepol_port_modify: could not load port range 80 - 80 (tcp) (Invalid argument).\nlibsemanage.dbase_policydb_modify: could not modify record value (Invalid argument).\n": "ports.local:0 sure: type nosuch_t is not defined",
		"libsemanage.parse_assert_str: experted string \"user\", but found \"x\" (/x/mcs/tmp/users_extra.local: 1):\nx (No such file or directory).\nlibsemanage.user_extra_parse: could not parse user extra data (No such file or directory).\n":                                                                                                                                                                                                                             "nobody: experted string \"user\", but found \"x\" (/x/mcs/tmp/users_extra.local: 1):; x (No such file or directory).",
		"Error: Unknown keyword frobnicate\nFailed to build AST\nsemodule:  Failed!\n":                      "nobody: Error: Unknown keyword frobnicate",
		"libsemanage.semanage_direct_commit: it failed. (No such file or directory).\nsemodule:  Failed!\n": "nobody: semodule does not say why: libsemanage.semanage_direct_commit: it failed. (No such file or directory).",
	} {
		parts, in := someParts()
		v := judge(message, parts, in)
		got := "nobody"
		if v.part >= 0 {
			got = fmt.Sprintf("%s:%d", parts[v.part].name, v.line)
		}
		if v.sure && v.part >= 0 {
			got += " sure"
		}
		if v.part < 0 && len(v.suspects) > 0 {
			got += ", likely " + parts[v.suspects[len(v.suspects)-1]].name
		}
		if got += ": " + v.reason; got != want {
			t.Errorf("%q\ngot  %s\nwant %s", message, got, want)
		}
	}
}

// TestRefusal tells what is wrong with a module from what is wrong with the host.
func TestRefusal(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{errors.New("no tool"), false},
		{&command.ExitError{Code: 1, Output: command.Output{Stderr: "Failed to resolve AST"}}, true},
		{fmt.Errorf("wrapped: %w", &command.ExitError{Code: 255}), true},
		{&command.ExitError{Code: -1, Output: command.Output{Stderr: "Failed to resolve AST"}}, false},
		{&command.ExitError{Code: 1, Output: command.Output{Stderr: "x (No space left on device)."}}, false},
		{&command.ExitError{Code: 1, Output: command.Output{Stderr: "error parsing semanage configuration file: syntax error\nsemodule:  Could not create semanage handle\n"}}, false},
		{&command.ExitError{Code: 1, Output: command.Output{Stderr: "load_policy returned error code 2."}}, false},
		{&command.ExitError{Code: 1, Output: command.Output{Stderr: "Failed to allocate memory\n"}}, false},
		{&command.ExitError{Code: 1, Output: command.Output{Stderr: "libsemanage.semanage_direct_install_file: Unable to read file /x/transaction/in/500/good.cil\n\nsemodule:  Failed on /x!"}}, false},
		{&command.ExitError{Code: 1, Output: command.Output{Stderr: "libsemanage.semanage_direct_install_file: Unable to read file /x/transaction/in/500/my.pp.pp. (No such file or directory).\n"}}, false},
		{&command.ExitError{Code: 1, Output: command.Output{Stderr: "libsemanage.semanage_direct_install_file: Unable to read file /x/transaction/in/400/hand.cil.bz2\n"}}, true},
		{&command.ExitError{Code: 1, Output: command.Output{Stderr: "packed: /usr/libexec/selinux/hll/pp: error while loading shared libraries: libsepol.so.2: cannot open shared object file"}}, false},
		{&command.ExitError{Code: 1, Output: command.Output{Stderr: "libsemanage.semanage_pipe_data: Unable to fork: Resource temporarily unavailable"}}, false},
		{fmt.Errorf("held for an hour: %w", &command.ExitError{Code: 1, Output: command.Output{Stderr: "libsemanage.semanage_get_lock: Could not get direct transaction lock at /x."}}), false},
	} {
		_, got, err := refusal(c.err)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%v: %t, %v", c.err, got, err)
		}
	}
}

// TestTrialFails: what to do about it is known by the cause, and the host's own store is as it was.
func TestTrialFails(t *testing.T) {
	killed := &command.ExitError{Tool: "semodule", Code: -1, Output: command.Output{Stderr: "Out of memory!"}}
	var err error = trialError{fmt.Errorf("cannot build: %w", killed)}
	var tool *command.ExitError
	if !errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.ENOSPC) || errors.As(err, &tool) || !strings.HasPrefix(err.Error(), "cannot find out what") {
		t.Error(err)
	}
}

func FuzzJudge(f *testing.F) {
	f.Add("Failed to resolve allow statement at /x/modules/500/bad/cil:2\n")
	f.Fuzz(func(t *testing.T, messages string) {
		parts, in := someParts()
		v := judge(messages, parts, in)
		if v.part >= len(parts) || v.reason == "" || v.part >= 0 && !slices.Contains(in, v.part) || len(v.reason) > 3000 && len(messages) < 100 {
			t.Errorf("%+v", v)
		}
	})
}

func TestCILNames(t *testing.T) {
	declared, used := cilNames("; (type comment_t)\n(type a_t)(block b (type inner_t) (allow x y (file (read))))\n(call m.n (\"s (type q)\"))")
	if got := strings.Join(declared, " "); got != "a_t b" {
		t.Errorf("declares %s", got)
	}
	for word, want := range map[string]bool{"m": true, "n": true, "inner_t": true, "comment_t": false, "q": false, "file": true} {
		if used[word] != want {
			t.Errorf("%s: used %t", word, used[word])
		}
	}
}

func FuzzCILNames(f *testing.F) {
	f.Add("(block b (type t))")
	f.Fuzz(func(t *testing.T, text string) {
		declared, used := cilNames(text)
		for _, name := range declared {
			if !used[strings.Split(name, ".")[0]] {
				t.Errorf("%q is declared and not used", name)
			}
		}
	})
}

// What the tools call a statement is shown, and the type in it that nobody has declared.
func TestUnresolved(t *testing.T) {
	const text = "(type a_t)\n(allow a_t nosuch_t (file (read)))\n(roletype system_r gone_t)\n(allow x_t y_t (dir (search)))\n(allow a_t self (process (nosuch)))\n(call m (a_t))\n(allow a_t b.c (file (read)))\n"
	for line, want := range map[int]string{
		1: "", 2: ": (allow a_t nosuch_t (file (read))): the policy has no type nosuch_t", 3: ": (roletype system_r gone_t): the policy has no type gone_t",
		4: ": (allow x_t y_t (dir (search)))", 5: ": (allow a_t self (process (nosuch)))", 6: ": (call m (a_t))", 7: ": (allow a_t b.c (file (read)))", 9: "",
	} {
		if got := unresolved(text, line, func(name string) bool { return name == "a_t" }); got != want {
			t.Errorf("line %d: %q, want %q", line, got, want)
		}
	}
}
