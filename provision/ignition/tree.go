package ignition

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"go.yaml.in/yaml/v4"
)

// maxDepth keeps a hostile file from exhausting the stack.
const maxDepth = 200

// readJSON gives a JSON text as the nodes that a YAML text is read into, so that there is one way to look for lines. YAML's own
// reader does not do: it refuses some JSON, such as surrogate pairs.
func readJSON(content []byte) (*yaml.Node, error) {
	r := jsonReader{content: content, decoder: json.NewDecoder(bytes.NewReader(content)), line: 1}
	r.decoder.UseNumber()
	root, err := r.value(0)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	if _, err := r.decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, &yaml.LoadError{Mark: yaml.Mark{Line: r.line}, Message: "there is something behind the last brace"}
	}
	return root, nil
}

type jsonReader struct {
	content []byte
	decoder *json.Decoder
	offset  int64 // up to which the lines were counted
	line    int
}

// token gives the next token and the line that it ends in, which is also where it begins: no token of JSON has two lines.
func (r *jsonReader) token() (json.Token, int, error) {
	t, err := r.decoder.Token()
	if err != nil {
		return nil, 0, err
	}
	now := r.decoder.InputOffset()
	r.line += bytes.Count(r.content[r.offset:now], []byte("\n"))
	r.offset = now
	return t, r.line, nil
}

func (r *jsonReader) value(depth int) (*yaml.Node, error) {
	if depth > maxDepth {
		return nil, &yaml.LoadError{Mark: yaml.Mark{Line: r.line}, Message: fmt.Sprintf("it is more than %d levels deep", maxDepth)}
	}
	t, line, err := r.token()
	if err != nil {
		return nil, err
	}
	n := &yaml.Node{Line: line}
	switch v := t.(type) {
	case json.Delim:
		n.Kind = map[json.Delim]yaml.Kind{'{': yaml.MappingNode, '[': yaml.SequenceNode}[v]
		keys := map[string]bool{}
		for r.decoder.More() {
			item, err := r.value(depth + 1)
			if err != nil {
				return nil, err
			}
			// Ignition would take the last, or parts of both.
			if n.Kind == yaml.MappingNode && len(n.Content)%2 == 0 {
				if keys[item.Value] {
					return nil, &yaml.LoadError{Mark: yaml.Mark{Line: item.Line}, Message: fmt.Sprintf("the key %s is here twice", quote(item.Value))}
				}
				keys[item.Value] = true
			}
			n.Content = append(n.Content, item)
		}
		_, _, err = r.token()
		return n, err
	case string:
		n.Kind, n.Tag, n.Value, n.Style = yaml.ScalarNode, "!!str", v, yaml.DoubleQuotedStyle
	case nil:
		n.Kind, n.Tag = yaml.ScalarNode, "!!null"
	default:
		n.Kind, n.Value = yaml.ScalarNode, fmt.Sprint(v)
	}
	return n, nil
}

// readYAML gives the one document of a YAML text, nil if there is nothing but comments.
func readYAML(content []byte) (*yaml.Node, error) {
	loader, err := yaml.NewLoader(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	var document yaml.Node
	if err := loader.Load(&document); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	// Butane reads the first document alone, and says nothing of the others.
	var second yaml.Node
	if err := loader.Load(&second); err == nil {
		if inside := resolve(&second); len(inside.Content) > 0 && inside.Content[0].Tag != "!!null" {
			return nil, &yaml.LoadError{Mark: yaml.Mark{Line: inside.Content[0].Line}, Message: "a second document begins here, which nobody reads"}
		}
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	if document.Kind != yaml.DocumentNode {
		return &document, nil
	}
	if len(document.Content) != 1 {
		return nil, nil
	}
	return document.Content[0], nil
}

// get follows keys from a mapping to a value, nil if one of them is not there. What is merged into a mapping with << counts where the key
// itself is missing.
func get(n *yaml.Node, keys ...string) *yaml.Node {
	for _, key := range keys {
		n = resolve(n)
		if n == nil || n.Kind != yaml.MappingNode {
			return nil
		}
		found := own(n, key)
		for _, from := range merged(n) {
			if found == nil {
				found = own(from, key)
			}
		}
		n = found
	}
	return resolve(n)
}

// own gives the value of a key that stands in a mapping itself.
func own(n *yaml.Node, key string) (value *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			value = n.Content[i+1]
		}
	}
	return value
}

// keys gives the keys of a mapping, with those that are merged into it.
func keys(n *yaml.Node) (all []*yaml.Node) {
	seen := map[string]bool{}
	for _, from := range append([]*yaml.Node{n}, merged(n)...) {
		for i := 0; i+1 < len(from.Content); i += 2 {
			if key := from.Content[i]; key.Tag != mergeKey && !seen[key.Value] {
				seen[key.Value] = true
				all = append(all, key)
			}
		}
	}
	return all
}

// mergeKey is the tag of the key << (https://yaml.org/type/merge.html).
const mergeKey = "!!merge"

// merged gives the mappings that are merged into one, each once, in the order in which they count.
func merged(n *yaml.Node) (all []*yaml.Node) {
	var (
		seen  map[*yaml.Node]bool
		merge func(n *yaml.Node)
	)
	merge = func(n *yaml.Node) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Tag != mergeKey {
				continue
			}
			if seen == nil {
				seen = map[*yaml.Node]bool{}
			}
			from := []*yaml.Node{n.Content[i+1]}
			if list := resolve(from[0]); list.Kind == yaml.SequenceNode {
				from = list.Content
			}
			for _, one := range from {
				if one = resolve(one); one.Kind == yaml.MappingNode && !seen[one] {
					seen[one] = true
					all = append(all, one)
					merge(one)
				}
			}
		}
	}
	merge(n)
	return all
}

// items gives the items of a list.
func items(n *yaml.Node) []*yaml.Node {
	if n == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	return n.Content
}

// where finds the item of a list whose key has this value, nil if there is none.
func where(list *yaml.Node, key, value string) *yaml.Node {
	var found *yaml.Node
	for _, item := range items(list) {
		if v := get(item, key); v != nil && v.Value == value {
			found = resolve(item)
		}
	}
	return found
}

func resolve(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

// nodeAt follows a path of keys and indices, as the reports of Butane and Ignition have them, nil if it leads nowhere.
func nodeAt(root *yaml.Node, steps []any) *yaml.Node {
	n := resolve(root)
	for _, step := range steps {
		switch s := step.(type) {
		case string:
			n = get(n, s)
		case int:
			list := items(n)
			if s < 0 || s >= len(list) {
				return nil
			}
			n = resolve(list[s])
		default:
			return nil
		}
		if n == nil {
			return nil
		}
	}
	return n
}

// itemAt gives the item of the outermost list that a path leads through, nil if it leads through none.
func itemAt(root *yaml.Node, steps []any) *yaml.Node {
	for i, step := range steps {
		if at, ok := step.(int); ok {
			if list := items(nodeAt(root, steps[:i])); at >= 0 && at < len(list) {
				return list[at]
			}
			return nil
		}
	}
	return nil
}

// pruned gives a tree without some nodes.
func pruned(n *yaml.Node, gone []*yaml.Node) *yaml.Node {
	if n == nil || len(n.Content) == 0 {
		return n
	}
	rest := &yaml.Node{Kind: n.Kind, Tag: n.Tag, Style: n.Style, Anchor: n.Anchor}
	for _, inside := range n.Content {
		if !slices.Contains(gone, inside) {
			rest.Content = append(rest.Content, pruned(inside, gone))
		}
	}
	return rest
}

// plain gives what a tree that was read from JSON stands for.
func plain(n *yaml.Node) any {
	switch {
	case n == nil || n.Tag == "!!null":
		return nil
	case n.Kind == yaml.MappingNode:
		all := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			all[n.Content[i].Value] = plain(n.Content[i+1])
		}
		return all
	case n.Kind == yaml.SequenceNode:
		all := []any{}
		for _, item := range n.Content {
			all = append(all, plain(item))
		}
		return all
	case n.Tag == "!!str":
		return n.Value
	}
	return json.RawMessage(n.Value) // a number, true or false
}
