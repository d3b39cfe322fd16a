package report

import (
	"strconv"
	"strings"
	"text/template"

	"github.com/selinux-provision/selinux-provision/internal/printable"
)

// word is the name of an element, an attribute or a class. Only a constant of the program becomes one without being converted, so that no text of a
// host is taken for markup.
type word string

// attribute is one of an element. Its value is escaped like any text.
type attribute struct {
	name  word
	value string
}

func class(name word) attribute { return attribute{"class", string(name)} }

func number(name word, value float64) attribute {
	return attribute{name, strconv.FormatFloat(value, 'f', 2, 64)}
}

// page writes HTML that is well-formed XML too. What is not a word is escaped, and shown as package printable does.
type page struct{ b strings.Builder }

// text writes text of whomever.
func (p *page) text(s string) { p.b.WriteString(template.HTMLEscapeString(printable.Text(s))) }

// open begins an element, close ends it; void is one without content, which HTML does not close.
func (p *page) open(name word, attributes ...attribute) {
	p.begin(name, attributes)
	p.b.WriteString(">")
}

func (p *page) close(name word) {
	p.b.WriteString("</" + string(name) + ">")
	if name != "b" && name != "strong" { // a break would be a blank
		p.b.WriteString("\n")
	}
}

func (p *page) void(name word, attributes ...attribute) {
	p.begin(name, attributes)
	p.b.WriteString("/>")
}

func (p *page) begin(name word, attributes []attribute) {
	p.b.WriteString("<" + string(name))
	for _, a := range attributes {
		p.b.WriteString(" " + string(a.name) + `="`)
		p.text(a.value)
		p.b.WriteString(`"`)
	}
}

// element is a whole one with nothing but text in it.
func (p *page) element(name word, text string, attributes ...attribute) {
	p.open(name, attributes...)
	p.text(text)
	p.close(name)
}

// in writes an element around what content writes.
func (p *page) in(name word, attributes []attribute, content func()) {
	p.open(name, attributes...)
	content()
	p.close(name)
}
