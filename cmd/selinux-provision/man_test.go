package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The manual pages in the documents are those of this program, and man(1) finds no fault with them where it is installed.
func TestManualPages(t *testing.T) {
	for page, args := range map[string][]string{"selinux-provision.8": {"man"}, "selinux-provision.yaml.5": {"man", "config"}} {
		got := call(t, args...)
		file := "../../docs/man/" + page
		stored, err := os.ReadFile(file)
		if err != nil || got != (answer{exitDone, string(stored), ""}) {
			t.Errorf("%s is not what the program prints (%v): run \"make generated\"", file, err)
		}
		if _, err := exec.LookPath("man"); err != nil {
			continue
		}
		if out, err := exec.Command("man", "--warnings=all", "-l", file).CombinedOutput(); err != nil || strings.Contains(string(out), "warning:") {
			t.Errorf("%s: %v\n%.2000s", page, err, out)
		}
	}
	if got := call(t, "man", "nothing"); got.code != exitUsage {
		t.Errorf("another page: %+v", got)
	}
}

// The completions for shells are made by cobra; bash reads them without fault, and they know our commands. They ask the program that is
// installed, so they are never older than it.
func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if got := call(t, "completion", shell); got.code != exitDone || !strings.Contains(got.stdout, "selinux-provision") || !strings.Contains(got.stdout, "__complete") {
			t.Errorf("%s: %+v", shell, got)
		}
	}
	for args, want := range map[string]string{"completion": "without the name of one shell", "completion bash zsh": "without the name of one shell", "completion tcsh": `for "tcsh"`} {
		if got := call(t, strings.Fields(args)...); got.code != exitUsage || !strings.Contains(got.stderr, want) {
			t.Errorf("%s: %+v", args, got)
		}
	}
	script := call(t, "completion", "bash").stdout
	check := exec.Command("bash", "-n")
	check.Stdin = strings.NewReader(script)
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("bash: %v\n%s", err, out)
	}
	for args, want := range map[string]string{"__complete ": "status\t", "__complete stage ": "policystore", "__complete render --to ": "butane", "__complete render --spec ": "1.0.0"} {
		if got := call(t, append(strings.Fields(args), "")...); !strings.Contains(got.stdout, want) {
			t.Errorf("%s: %+v", args, got)
		}
	}
}
