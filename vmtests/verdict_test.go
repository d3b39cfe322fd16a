package vmtests

import "testing"

func TestTroubleInText(t *testing.T) {
	for line, trouble := range map[string]bool{
		`[   21.1] audit[1]: AVC avc:  denied  { write } for  pid=1`:                       true,
		`[   21.1] systemd[1]: docker.service: Failed with result 'exit-code'.`:            true,
		`[FAILED] Failed to start audit-rules.service - Load Security Auditing Rules.`:     true,
		`systemd[1]: sysinit.target: Found ordering cycle on a.service/start`:              true,
		`systemd[1]: You are in emergency mode.`:                                           true,
		`Kernel panic - not syncing: Attempted to kill init!`:                              true,
		`systemd[1]: Freezing execution.`:                                                  true,
		`systemd[1]: Started vmtest-shell.service - Shell for the test harness.`:           false,
		`audit: type=1403 audit(1795305685.179:2): auid=4294967295 lsm=selinux res=1`:      false,
		`systemd[1]: Failed to copy os-release for propagation, ignoring: No such file`:    false,
		`avc:  granted  { load_policy }`:                                                   false,
		`SELinux:  policy capability network_peer_controls=1`:                              false,
		`systemd[1]: systemd-firstboot.service skipped, unmet condition check FirstBoot=y`: false,
	} {
		if got := len(troubleIn("text", line, nil)) > 0; got != trouble {
			t.Errorf("trouble in %q: %v, want %v", line, got, trouble)
		}
	}
}

func TestConsoleWithoutColours(t *testing.T) {
	got := terminalSequence().ReplaceAllString("\x1b[!p\x1b]104\a\x1b[?7h[\x1b[0;1;31mFAILED\x1b[0m] a \x1b[0;1;38:5:185mb", "")
	if want := "[FAILED] a b"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
