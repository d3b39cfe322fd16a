package provision

import _ "embed"

//go:embed annotated.yaml
var annotated string

// AnnotatedConfig is a configuration that has every key, each with its meaning and its default. It is for people: no host needs all
// of it.
func AnnotatedConfig() string { return annotated }
