// Package docs_test holds the documents to what they say of the program.
package docs_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/selinux-provision/selinux-provision/provision"
	"github.com/selinux-provision/selinux-provision/provision/ignition"
)

// blocks gives the code blocks of a document that are marked with a language.
func blocks(t *testing.T, document, language string) []string {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, found := range regexp.MustCompile("(?s)\n```"+language+"\n(.*?)\n```\n").FindAllStringSubmatch(string(text), -1) {
		all = append(all, found[1])
	}
	return all
}

// The commands of the README, as they are printed, work in a fresh copy of the repository, and what they make is right. Those for a
// machine are run on one by vmtests.TestReadmeOnAMachine.
func TestReadmeCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the program: not in -short mode")
	}
	commands := blocks(t, "../README.md", "sh")
	if len(commands) == 0 {
		t.Fatal("the README has no commands")
	}
	copied := t.TempDir()
	err := filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, _ := filepath.Rel("..", path)
		switch {
		case e.IsDir() && slices.Contains([]string{".git", "bin", "dist"}, below):
			return filepath.SkipDir
		case e.IsDir():
			return os.MkdirAll(filepath.Join(copied, below), 0o755)
		case !e.Type().IsRegular():
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := e.Info()
		return errors.Join(err, os.WriteFile(filepath.Join(copied, below), content, info.Mode().Perm()))
	})
	if err != nil {
		t.Fatal(err)
	}
	run := exec.Command("bash", "-euxo", "pipefail", "-c", strings.Join(commands, "\n"))
	run.Dir = copied
	out, err := run.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("the README's commands fail: %v", err)
	}
	for _, file := range []string{"node.bu", "node.ign"} {
		if info, err := os.Stat(filepath.Join(copied, file)); err != nil || info.Size() == 0 {
			t.Errorf("the commands do not make %s (%v)", file, err)
		}
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	ignition, err := os.Stat(filepath.Join(copied, "node.ign"))
	said := regexp.MustCompile("`node.ign` has the program in it \\(([0-9]+) MB\\)").FindStringSubmatch(string(readme))
	if err != nil || said == nil || said[1] != strconv.FormatInt((ignition.Size()+500_000)/1_000_000, 10) {
		t.Errorf("the README says that node.ign has %q MB: %+v (%v)", said, ignition, err)
	}
	if strings.Count(string(out), "nothing is wrong") != 2 {
		t.Error("check does not say of both files that nothing is wrong")
	}
}

// The files in the fleet's page are what their readers take: YAML, a Butane file without faults, a configuration.
func TestFleetFiles(t *testing.T) {
	all := blocks(t, "fleet.md", "yaml")
	if len(all) < 3 {
		t.Fatalf("%d files", len(all))
	}
	butane := 0
	for _, text := range all {
		var object map[string]any
		if err := yaml.Unmarshal([]byte(text), &object); err != nil {
			t.Errorf("%v in\n%s", err, text)
		}
		if object["variant"] != nil {
			butane++
			_, findings, err := ignition.Check("fleet.md", strings.NewReader(text), ignition.Options{})
			if err != nil || len(findings) > 0 {
				t.Errorf("check: %v %v", err, findings)
			}
		}
		if object["kind"] == "Plan" {
			planKeys(t, object)
			written := regexp.MustCompile(`'([^']+)'`).FindAllStringSubmatch(text[strings.Index(text, "printf"):], -1)
			var config strings.Builder
			for _, line := range written[1:] { // the first is the format
				config.WriteString(line[1] + "\n")
			}
			if _, err := provision.Parse("50-enforcing.yaml", strings.NewReader(config.String())); err != nil {
				t.Errorf("the plan writes\n%s\n%v", config.String(), err)
			}
		}
	}
	if butane != 1 {
		t.Errorf("%d Butane files", butane)
	}
}

// The page on modules says what works: its commands make a file that check finds right, its Butane files have no faults, and the module is in what they make.
func TestModulesThroughIgnition(t *testing.T) {
	const page = "ignition-modules.md"
	commands := blocks(t, page, "sh")
	if len(commands) != 1 {
		t.Fatalf("%d blocks of commands", len(commands))
	}
	files := map[string]string{}
	for _, found := range regexp.MustCompile("(?s)cat > (\\S+) <<'EOF'\n(.*?)EOF\n").FindAllStringSubmatch(commands[0], -1) {
		files[strings.TrimPrefix(found[1], "site/")] = found[2]
	}
	if _, err := provision.Parse("config.yaml", strings.NewReader(files["config.yaml"])); err != nil || len(files) != 2 {
		t.Errorf("the configuration, of %d files: %v", len(files), err)
	}
	whole := t.TempDir()
	if err := os.WriteFile(filepath.Join(whole, "selinux.ign"), []byte(`{"ignition": {"version": "3.3.0"}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	all := blocks(t, page, "yaml")
	for _, text := range all {
		_, findings, err := ignition.Check(page, strings.NewReader(text), ignition.Options{FilesDir: whole})
		findings = slices.DeleteFunc(findings, func(f ignition.Finding) bool { return f.Note })
		if err != nil || len(findings) > 0 {
			t.Errorf("check: %v %v\n%s", err, findings, text)
		}
	}
	module := strings.TrimSpace(files["modules/site_chrony.cil"])
	if indented := strings.ReplaceAll(module, "\n", "\n          "); len(all) != 2 || module == "" || !strings.Contains(all[1], indented) {
		t.Errorf("the module is not the same in both ways: %s\n%s", indented, all[1])
	}
}

// Butane's repository is being merged into Ignition's: no page, message or example sends anybody to the old one, or to its web site. What Go imports
// is the module's name, whoever serves it.
func TestNothingRestsOnButanesRepository(t *testing.T) {
	old := regexp.MustCompile(`coreos\.github\.io/butane|github\.com/coreos/butane`)
	imports := regexp.MustCompile(`^\s*(\w+ )?"github\.com/coreos/butane/[\w/]+"$|^\s*github\.com/coreos/butane v|licenses/github\.com/coreos/butane/`)
	looked := 0
	err := filepath.WalkDir("..", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && slices.Contains([]string{".git", "bin", "dist"}, e.Name()):
			return filepath.SkipDir
		}
		if e.IsDir() || !slices.Contains([]string{".go", ".md", ".bu", ".yaml", ".txt", ".mod", ".8", ".5", ".7"}, filepath.Ext(name)) || e.Name() == "docs_test.go" {
			return nil
		}
		looked++
		text, err := os.ReadFile(name)
		for n, line := range strings.Split(string(text), "\n") {
			if old.MatchString(line) && !imports.MatchString(line) {
				t.Errorf("%s:%d: %s", name, n+1, strings.TrimSpace(line))
			}
		}
		return err
	})
	if err != nil || looked < 100 {
		t.Errorf("%d files, %v", looked, err)
	}
}

// planKeys holds a Plan to the keys that its type has (rancher/system-upgrade-controller, pkg/apis/upgrade.cattle.io/v1/types.go, v0.16),
// and to labels that are the program's and do not change under its hands.
func planKeys(t *testing.T, plan map[string]any) {
	t.Helper()
	known := map[string]string{
		"":        "apiVersion kind metadata spec",
		"spec":    "concurrency jobActiveDeadlineSecs nodeSelector serviceAccountName channel version secrets tolerations exclusive window prepare upgrade cordon drain imagePullSecrets postCompleteDelay priorityClassName",
		"drain":   "timeout gracePeriod deleteLocalData deleteEmptydirData ignoreDaemonSets force disableEviction skipWaitForDeleteTimeout podSelector",
		"upgrade": "image command args envs envFrom volumes securityContext",
	}
	spec, _ := plan["spec"].(map[string]any)
	for name, object := range map[string]any{"": plan, "spec": spec, "drain": spec["drain"], "upgrade": spec["upgrade"]} {
		keys, ok := object.(map[string]any)
		if !ok {
			t.Errorf("the plan has no %q", name)
		}
		for key := range keys {
			if !slices.Contains(strings.Fields(known[name]), key) {
				t.Errorf("the plan has the key %q in %q, which its type has not", key, name)
			}
		}
	}
	selector, err := yaml.Marshal(spec["nodeSelector"])
	if err != nil || !strings.Contains(string(selector), "/selinux-provision.may-enforce") || strings.Contains(string(selector), ".mode") {
		t.Errorf("the plan chooses nodes by %s (%v)", selector, err)
	}
}

// Every link between documents leads to a file, and every link to a heading to a heading.
func TestLinks(t *testing.T) {
	documents, err := filepath.Glob("../*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"*.md", "adr/*.md", "../ignition-examples/*.md", "../vmtests/*.md"} {
		more, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, more...)
	}
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, document := range documents {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range link.FindAllStringSubmatch(string(text), -1) {
			target, heading, _ := strings.Cut(found[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			file := document
			if target != "" {
				file = filepath.Join(filepath.Dir(document), target)
			}
			content, err := os.ReadFile(file)
			if err != nil {
				if info, statErr := os.Stat(file); statErr != nil || !info.IsDir() {
					t.Errorf("%s: the link %s leads nowhere", document, found[1])
				}
				continue
			}
			if heading != "" && !slices.Contains(anchors(string(content)), heading) {
				t.Errorf("%s: the link %s leads to no heading", document, found[1])
			}
		}
	}
}

// anchors are the names that GitHub gives to headings.
func anchors(text string) (all []string) {
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			continue
		}
		title := strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#")))
		title = regexp.MustCompile("[^a-z0-9 _-]").ReplaceAllString(title, "")
		all = append(all, strings.ReplaceAll(title, " ", "-"))
	}
	return all
}

// product parses what writes to the journal.
func product(t *testing.T, dirs ...string) (files []*ast.File) {
	t.Helper()
	for _, dir := range dirs {
		pattern := filepath.Join("..", dir, "*.go")
		if strings.HasSuffix(dir, ".go") {
			pattern = filepath.Join("..", dir)
		}
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %v, %v", dir, names, err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			tree, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, tree)
		}
	}
	return files
}

// texts gives the texts in a file: each literal, and what is put together from several ones, with … for what is filled in.
func texts(tree *ast.File) (all []string) {
	verb := regexp.MustCompile(`%[-+# 0-9.]*[a-zA-Z]`)
	var join func(e ast.Expr) string
	join = func(e ast.Expr) string {
		switch v := e.(type) {
		case *ast.BasicLit:
			if v.Kind == token.STRING {
				text, _ := strconv.Unquote(v.Value)
				return verb.ReplaceAllString(text, "…")
			}
		case *ast.BinaryExpr:
			if v.Op == token.ADD {
				return join(v.X) + join(v.Y)
			}
		case *ast.ParenExpr:
			return join(v.X)
		}
		return "…"
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		e, ok := n.(ast.Expr)
		if !ok {
			return true
		}
		switch e.(type) {
		case *ast.BasicLit, *ast.BinaryExpr:
			if text := join(e); text != "…" {
				all = append(all, text)
			}
			return false
		}
		return true
	})
	return all
}

// Whoever is called at 3 a.m. finds every message of the journal in the page for it: each MESSAGE_ID, and none that the program does not
// have; and each text that begins with "cannot", of everything that runs at boot or in the background.
func TestThreeInTheMorning(t *testing.T) {
	page, err := os.ReadFile("3am.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []*regexp.Regexp
	for _, line := range regexp.MustCompile("(?m)^\\| (`[^|]*`) \\|").FindAllStringSubmatch(string(page), -1) {
		for _, message := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(line[1], -1) {
			parts := strings.Split(message[1], "…")
			for i := range parts {
				parts[i] = regexp.QuoteMeta(parts[i])
			}
			rows = append(rows, regexp.MustCompile("(?s)^"+strings.Join(parts, ".*")))
		}
	}
	checked := 0
	for _, tree := range product(t, "stages", "policystore", "mountwatch", "mountwatch/judge", "mountwatch/remount", "mountwatch/declared", "internal/mounts",
		"relabel", "internal/command", "internal/filecontexts", "internal/hostfs", "internal/kernel", "internal/plan", "internal/systemd", "cmd/selinux-provision/watch.go") {
		for _, text := range texts(tree) {
			if !strings.HasPrefix(text, "cannot ") || strings.HasPrefix(text, "cannot …") {
				continue
			}
			checked++
			if !slices.ContainsFunc(rows, func(row *regexp.Regexp) bool { return row.MatchString(text) }) {
				t.Errorf("package %s says %q, and 3am.md does not know it", tree.Name.Name, text)
			}
		}
	}
	if checked < 100 {
		t.Errorf("%d messages: this test looks at the wrong place", checked)
	}
}
