package report

import (
	"context"
	"fmt"
	"html"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// measure is run beside the pages, not in them: they have no script. It writes down for each frame how wide its page is.
const measure = `<script>
addEventListener("load", function () {
  document.querySelectorAll("iframe").forEach(function (f) {
    var d = f.contentDocument, out = document.createElement("p");
    var bars = Array.from(d.querySelectorAll(".bar")).map(function (b) { return Math.round(b.getBoundingClientRect().height); });
    out.textContent = "measured " + f.name + ": page " + d.documentElement.scrollWidth + " of " + d.documentElement.clientWidth + ", headings " + d.querySelectorAll("h1,h2").length +
      ", bars " + bars.length + ", highest " + Math.max(0, ...bars) + ", font " + getComputedStyle(d.body).fontSize;
    document.body.append(out);
  });
});
</script>`

// A browser shows each page on a phone without a bar to scroll sideways, and with its pictures; as text it is not smaller there.
func TestBrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("there is no chromium: make install-prerequisites installs it")
		}
		t.Skip("there is no chromium")
	}
	dir := t.TempDir()
	all := pages(t)
	var b strings.Builder
	b.WriteString("<!DOCTYPE html><meta charset=utf-8>" + measure)
	for name, text := range all {
		for _, width := range []int{360, 1100} {
			fmt.Fprintf(&b, "<iframe name=\"%s at %d\" style=\"border:0;width:%dpx;height:600px\" srcdoc=\"%s\"></iframe>\n", name, width, width, html.EscapeString(text))
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "all.html"), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	// It is bounded so that a browser that hangs names itself; no answer depends on how long it takes.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
		"--user-data-dir="+filepath.Join(dir, "profile"), "--dump-dom", "file://"+filepath.Join(dir, "all.html"))
	c.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_CACHE_HOME="+dir)
	var complaints strings.Builder
	c.Stderr = &complaints
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &complaints)
	}
	found := regexp.MustCompile(`<p>measured ([^<]*) at (\d+): page (\d+) of (\d+), headings (\d+), bars (\d+), highest (\d+), font (\w+)</p>`).FindAllStringSubmatch(string(out), -1)
	if len(found) != 2*len(all) {
		t.Fatalf("%d pages were measured, want %d: %s", len(found), 2*len(all), &complaints)
	}
	for _, m := range found {
		name := m[1] + " at " + m[2]
		if m[3] != m[4] { // which is without the bar at the side
			t.Errorf("%s: the page is %s wide, and there is room for %s", name, m[3], m[4])
		}
		if m[5] == "0" || m[8] != "16px" {
			t.Errorf("%s: %s headings, text of %s", name, m[5], m[8])
		}
		if wants := strings.Contains(all[m[1]], `class="bar"`); wants && (m[6] == "0" || len(m[7]) < 2) {
			t.Errorf("%s: %s bars, the highest %s", name, m[6], m[7])
		}
	}
}
