package provision

import (
	"slices"

	"go.yaml.in/yaml/v4"
)

// placesOf says where a key belongs, if there is one of that name: "below audit", "at the top". The annotated configuration has every key.
func placesOf(key string) (where []string) {
	eachKey(func(place, name string, _ *yaml.Node) {
		at := "below " + place
		if place == "" {
			at = "at the top, without a space before it"
		}
		if name == key && !slices.Contains(where, at) {
			where = append(where, at)
		}
	})
	return where
}

// eachKey goes through the keys of the annotated configuration, in their order: the place that each stands in, and its value.
func eachKey(visit func(place, name string, key *yaml.Node)) {
	root, err := load([]byte(annotated))
	if err != nil {
		return // a test says so
	}
	var look func(n *yaml.Node, place string)
	look = func(n *yaml.Node, place string) {
		switch n.Kind {
		case yaml.SequenceNode:
			for _, item := range n.Content {
				look(item, place)
			}
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				name, value := n.Content[i].Value, n.Content[i+1]
				visit(place, name, n.Content[i])
				if place != "policy.booleans" {
					look(value, join(place, name))
				}
			}
		}
	}
	look(root, "")
}
