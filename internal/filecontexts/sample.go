package filecontexts

import (
	"path"
	"regexp/syntax"
	"strings"
)

// Samples gives paths that an expression matches: one with everything in it that may be there, then one with nothing that need not be, if
// that is another one. No path is given if none can match, since every match has an empty component or ends in a slash, which no path
// of a file does. known is false for an expression that RE2 does not understand, and for one of which no match was found in this way.
func Samples(expression string) (paths []string, known bool) {
	tree, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return nil, false
	}
	whole, err := compile(expression)
	if err != nil {
		return nil, false
	}
	for _, full := range []bool{true, false} {
		var b strings.Builder
		example(&b, tree, full)
		text := b.String()
		if !whole.MatchString(text) {
			continue
		}
		known = true
		if path.IsAbs(text) && path.Clean(text) == text && (len(paths) == 0 || paths[0] != text) {
			paths = append(paths, text)
		}
	}
	return paths, known
}

// unlikely stands for any text in a path: nobody declares a context for a file of this name.
const unlikely = "selinux-provision-sample"

// example writes a text that the expression matches: with all that is optional, and the first of alternatives, or without, and the last.
func example(b *strings.Builder, re *syntax.Regexp, full bool) {
	switch re.Op {
	case syntax.OpLiteral:
		b.WriteString(string(re.Rune))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte('x')
	case syntax.OpCharClass:
		b.WriteRune(member(re.Rune))
	case syntax.OpStar, syntax.OpPlus, syntax.OpQuest, syntax.OpRepeat:
		least := map[syntax.Op]int{syntax.OpPlus: 1, syntax.OpRepeat: re.Min}[re.Op]
		one := re.Sub[0]
		if full && (one.Op == syntax.OpAnyChar || one.Op == syntax.OpAnyCharNotNL) && re.Op != syntax.OpQuest && (re.Op != syntax.OpRepeat || re.Max < 0) {
			b.WriteString(unlikely)
			return
		}
		if full {
			least = max(least, 1)
			if re.Op == syntax.OpRepeat && re.Max == 0 {
				least = 0
			}
		}
		for range min(least, longestExpr) {
			example(b, one, full)
		}
	case syntax.OpConcat, syntax.OpCapture:
		for _, part := range re.Sub {
			example(b, part, full)
		}
	case syntax.OpAlternate:
		if full {
			example(b, re.Sub[0], full)
		} else {
			example(b, re.Sub[len(re.Sub)-1], full)
		}
	}
}

// member gives a character of a class, given as pairs of bounds: one that is usual in a name, if there is one.
func member(class []rune) rune {
	for _, want := range []rune{'x', '1', 'X', '_', '-'} {
		for i := 0; i+1 < len(class); i += 2 {
			if class[i] <= want && want <= class[i+1] {
				return want
			}
		}
	}
	for i := 0; i+1 < len(class); i += 2 {
		for c := class[i]; c <= class[i+1] && c < 0x80; c++ {
			if c > ' ' && c != '/' && c != 0x7f {
				return c
			}
		}
	}
	if len(class) > 0 {
		return class[0]
	}
	return 'x'
}

// Mistake says why an expression cannot be meant as it is written, and what to write: it is a pattern for a shell, or no path of a file is as
// it says.
func Mistake(expression string) (problem, remedy string) {
	if problem, remedy := shellPattern(expression); problem != "" {
		return problem, remedy
	}
	switch paths, known := Samples(expression); {
	case !known || len(paths) > 0:
		return "", ""
	case strings.HasSuffix(expression, "/"):
		return "no path ends in a slash", "write " + strings.TrimRight(expression, "/") + ", and (/.*)? behind it if all that is below it is meant, too"
	}
	return "no path of a file looks like that", "write the path as ls shows it, without double slashes and without a slash at the end"
}

// shellPattern finds what means one thing to a shell and another one in a regular expression: a star that would repeat a slash, a letter or a
// digit, which nobody wants of paths, and [!.
func shellPattern(expression string) (problem, remedy string) {
	class := false
	for i := 0; i < len(expression); i++ {
		switch c, left := expression[i], expression[i:]; {
		case c == '\\':
			i++
		case class:
			class = c != ']'
		case strings.HasPrefix(left, "[!"):
			return "it is a regular expression, in which [! begins a list that has a ! in it", "write [^ for any other character"
		case c == '[':
			class = true
		case strings.HasPrefix(left, "/*"):
			dir := expression[:i]
			return "it is a regular expression, in which /* is any number of slashes",
				"write " + dir + "(/.*)? for the directory and all that is below it, or " + dir + "/[^/]+ for what is in it"
		case (c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') && strings.HasPrefix(left[1:], "*"):
			return "it is a regular expression, in which " + left[:2] + " is any number of " + left[:1],
				"write " + expression[:i+1] + "[^/]* for names that begin so, and (/.*)? behind it if all that is below them is meant, too"
		}
	}
	return "", ""
}
