// Package glob matches names with the patterns of a config: * stands for any text without a slash, ** for any text, ? for one
// character that is no slash, [a-z] for one of these and [!a-z] for one of the others. A backslash takes the meaning from the
// character after it.
//
// Unlike path.Match it knows **, and tells how specific a pattern is. Do not use it to find files.
package glob

import (
	"errors"
	"regexp"
	"strings"
)

// Pattern is a pattern that was read. It must come from Compile.
type Pattern struct {
	expr   *regexp.Regexp // nil if the pattern has no wildcard
	prefix string
}

// Compile reads a pattern.
func Compile(pattern string) (*Pattern, error) {
	var expr, literal strings.Builder
	expr.WriteString(`(?s)\A`)
	wild := false
	one := func(c string) {
		expr.WriteString(regexp.QuoteMeta(c))
		if !wild {
			literal.WriteString(c)
		}
	}
	for rest := pattern; rest != ""; {
		c := rest[0]
		switch {
		case strings.HasPrefix(rest, "**"):
			expr.WriteString(".*")
			wild, rest = true, rest[2:]
			continue
		case c == '*':
			expr.WriteString("[^/]*")
			wild = true
		case c == '?':
			expr.WriteString("[^/]")
			wild = true
		case c == '[':
			class, after, err := class(rest)
			if err != nil {
				return nil, err
			}
			expr.WriteString(class)
			wild, rest = true, after
			continue
		case c == '\\' && len(rest) == 1:
			return nil, errors.New(`nothing follows the last \`)
		case c == '\\':
			rest = rest[1:]
			one(rest[:1])
		default:
			one(rest[:1])
		}
		rest = rest[1:]
	}
	if !wild {
		return &Pattern{prefix: literal.String()}, nil
	}
	expr.WriteString(`\z`)
	compiled, err := regexp.Compile(expr.String())
	if err != nil {
		return nil, errors.New("it cannot be read")
	}
	return &Pattern{expr: compiled, prefix: literal.String()}, nil
}

// class reads [a-z] at the beginning of a pattern.
func class(pattern string) (expr, rest string, err error) {
	end := strings.IndexByte(pattern[1:], ']')
	if end < 0 {
		return "", "", errors.New("a [ has no ]")
	}
	inside, rest := pattern[1:end+1], pattern[end+2:]
	negated := strings.HasPrefix(inside, "!") || strings.HasPrefix(inside, "^")
	if negated {
		inside = inside[1:]
	}
	if inside == "" || strings.ContainsAny(inside, `/\[`) {
		return "", "", errors.New("between [ and ] come characters and ranges, such as [a-z0-9]")
	}
	quoted := strings.ReplaceAll(inside, "^", `\^`)
	if negated {
		expr = "[^/" + quoted + "]"
	} else {
		expr = "[" + quoted + "]"
	}
	if _, err := regexp.Compile(expr); err != nil {
		return "", "", errors.New("a range between [ and ] ends before it begins")
	}
	return expr, rest, nil
}

// Match tells whether the whole name fits.
func (p *Pattern) Match(name string) bool {
	if p.expr == nil {
		return name == p.prefix
	}
	return strings.HasPrefix(name, p.prefix) && p.expr.MatchString(name)
}

// Exact tells whether the pattern fits one name only.
func (p *Pattern) Exact() bool { return p.expr == nil }

// Prefix gives the text that every name which fits begins with; of an exact pattern, the name itself.
func (p *Pattern) Prefix() string { return p.prefix }
