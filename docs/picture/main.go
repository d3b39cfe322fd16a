// Command picture draws the boot of a provisioned machine as SVG: picture > docs/boot.svg. A test compares the file with what this
// draws.
package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

func main() { draw(os.Stdout) }

// The colours are readable on white and on black, and told apart by brightness alone.
const (
	ink    = "#24292f"
	faint  = "#57606a"
	vendor = "#d0d7de"
	ours   = "#9bd3ae"
	watch  = "#f5d78e"
	others = "#c6ddf8"
	kernel = "#e8c7e6"
)

// canvas writes SVG elements; x and y are those of the upper left corner.
type canvas struct{ io.Writer }

func (c canvas) box(x, y, w, h int, fill, title string, lines ...string) {
	fmt.Fprintf(c, `<rect x="%d" y="%d" width="%d" height="%d" rx="6" fill="%s" stroke="%s"/>`+"\n", x, y, w, h, fill, ink)
	top := y + h/2 + 5 - 8*len(lines)
	fmt.Fprintf(c, `<text x="%d" y="%d" text-anchor="middle" font-weight="bold" fill="%s">%s</text>`+"\n", x+w/2, top, ink, escape(title))
	for i, line := range lines {
		fmt.Fprintf(c, `<text x="%d" y="%d" text-anchor="middle" font-size="12" fill="%s">%s</text>`+"\n", x+w/2, top+17*(i+1), ink, escape(line))
	}
}

func (c canvas) text(x, y int, anchor, text string) {
	fmt.Fprintf(c, `<text x="%d" y="%d" text-anchor="%s" font-size="12" fill="%s">%s</text>`+"\n", x, y, anchor, faint, escape(text))
}

// arrow goes through points: x, y, x, y, ...
func (c canvas) arrow(dashed bool, points ...int) {
	var path strings.Builder
	for i := 0; i < len(points); i += 2 {
		fmt.Fprintf(&path, "%s%d %d", map[bool]string{true: "M", false: " L"}[i == 0], points[i], points[i+1])
	}
	dash := ""
	if dashed {
		dash = ` stroke-dasharray="5 4"`
	}
	fmt.Fprintf(c, `<path d="%s" fill="none" stroke="%s" stroke-width="1.5"%s marker-end="url(#head)"/>`+"\n", path.String(), ink, dash)
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

func draw(w io.Writer) {
	const width, height = 1120, 440
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="system-ui, sans-serif" font-size="14" role="img">`+"\n", width, height, width, height)
	fmt.Fprintln(w, `<title>The boot of a machine with selinux-provision</title>`)
	fmt.Fprintln(w, `<desc>The initrd mounts /etc, PID 1 loads the policy, then the four stages run one after the other, then the mount watcher and the container runtimes start. The stages read the OS image's policy and the declared state, and write the store, /etc/selinux and the kernel.</desc>`)
	fmt.Fprintf(w, `<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="%s"/></marker></defs>`+"\n", ink)
	fmt.Fprintf(w, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	c := canvas{w}

	// What is read.
	c.box(290, 20, 200, 56, vendor, "OS image, /usr", "the vendor's policy, read-only")
	c.box(540, 20, 250, 56, ours, "/etc/selinux-provision", "what you declare: config, modules")

	// The boot, from left to right.
	c.text(20, 134, "start", "one boot")
	c.box(20, 150, 110, 70, vendor, "initrd", "/etc is mounted;", "Ignition, once")
	c.box(160, 150, 110, 70, vendor, "PID 1", "loads the policy,", "takes the mode")
	stages := []struct{ name, first, second string }{
		{"policystore", "writable store =", "this image's policy"},
		{"policy", "modules, booleans,", "labels; one build"},
		{"audit", "denials reach", "the journal"},
		{"enforce", "the mode, now", "and next boot"},
	}
	for i, s := range stages {
		c.box(300+i*140, 150, 125, 70, ours, s.name, s.first, s.second)
	}
	c.box(870, 96, 200, 64, watch, "mount watcher", "labels each volume", "when it is mounted")
	c.box(870, 196, 200, 64, others, "containers", "docker, containerd, kubelet", "start after the stages")
	for _, x := range []int{130, 270, 425, 565, 705} {
		to := x + 30
		if x > 270 {
			to = x + 15
		}
		c.arrow(false, x, 185, to, 185)
	}
	c.arrow(false, 535, 150, 535, 130, 870, 130)
	c.arrow(false, 970, 160, 970, 196)
	c.arrow(false, 845, 194, 870, 222)
	c.arrow(true, 362, 76, 362, 150)
	c.arrow(true, 580, 76, 490, 150)

	// What is written.
	c.box(290, 290, 180, 56, ours, "/var/lib/selinux", "policy store")
	c.box(500, 290, 180, 56, ours, "/etc/selinux", "what PID 1 loads")
	c.box(710, 290, 180, 56, kernel, "kernel", "policy, booleans, mode")
	c.arrow(false, 345, 220, 345, 290)
	c.arrow(false, 470, 220, 440, 290)
	c.arrow(false, 520, 220, 575, 290)
	c.arrow(false, 545, 220, 735, 290)
	c.arrow(false, 770, 220, 650, 290)
	c.arrow(false, 785, 220, 800, 290)

	// And at the next boot.
	c.arrow(true, 590, 346, 590, 386, 215, 386, 215, 220)
	c.text(400, 404, "middle", "the next boot enforces from its first instant")
	c.text(1100, 404, "end", "a stage that fails is shown and holds up nothing; nothing to do: nothing is written")

	// Whose is what.
	for i, s := range []struct{ fill, text string }{{vendor, "the vendor's"}, {ours, "selinux-provision"}, {watch, "keeps running"}, {others, "your load"}} {
		x := 20 + i*160
		fmt.Fprintf(w, `<rect x="%d" y="416" width="14" height="14" rx="3" fill="%s" stroke="%s"/>`+"\n", x, s.fill, ink)
		c.text(x+20, 428, "start", s.text)
	}
	fmt.Fprintln(w, "</svg>")
}
