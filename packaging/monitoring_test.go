package packaging_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The alerts are what Prometheus takes, and each has a test that says when it fires and when not.
func TestAlerts(t *testing.T) {
	need(t, "promtool")
	for _, arguments := range [][]string{{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}} {
		c := exec.Command("promtool", arguments...)
		c.Dir = "monitoring"
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(arguments, " "), err, out)
		}
	}
	rules, err := os.ReadFile("monitoring/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("monitoring/alerts_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	alerts := regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(string(rules), -1)
	if len(alerts) == 0 {
		t.Error("there are no alerts")
	}
	for _, a := range alerts {
		if !strings.Contains(string(tests), "alertname: "+a[1]+"\n") || !strings.Contains(string(tests), "alertname: "+a[1]+", exp_alerts: []") {
			t.Errorf("no test says when %s fires, and when not", a[1])
		}
	}
}

// dashboard is what of Grafana's JSON this test knows.
type dashboard struct {
	Panels []struct {
		Title, Description string
		GridPos            struct{ X, Y, W, H int }
		Targets            []struct{ Expr string }
	}
}

// Every question of the dashboard is one that Prometheus understands, and no panel lies on another.
func TestDashboard(t *testing.T) {
	need(t, "promtool")
	text, err := os.ReadFile("monitoring/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	taken := map[[2]int]string{}
	rules := "groups: [{name: dashboard, rules: [\n"
	n := 0
	for _, p := range d.Panels {
		if p.Title == "" || p.Description == "" || len(p.Targets) == 0 {
			t.Errorf("a panel says nothing: %+v", p)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x > 23 {
					t.Fatalf("%s lies on %s, or leaves the page", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		for _, q := range p.Targets {
			expr, err := json.Marshal(strings.ReplaceAll(q.Expr, "$instance", ".*"))
			if err != nil || q.Expr == "" || strings.Contains(string(expr), "$") {
				t.Fatalf("%s asks %s, %v", p.Title, q.Expr, err)
			}
			rules += fmt.Sprintf("{record: 'dashboard:panel:%d', expr: %s},\n", n, expr)
			n++
		}
	}
	file := filepath.Join(t.TempDir(), "dashboard.yaml")
	if err := os.WriteFile(file, []byte(rules+"]}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("promtool", "check", "rules", file).CombinedOutput()
	if err != nil || n == 0 || !strings.Contains(string(out), fmt.Sprintf("%d rules found", n)) {
		t.Errorf("%v, %d questions\n%s", err, n, out)
	}
}
