package main

import (
	"bytes"
	"os"
	"testing"
)

// The reference is the one that follows from the source.
func TestReference(t *testing.T) {
	var now bytes.Buffer
	if err := write(&now, "../.."); err != nil {
		t.Fatal(err)
	}
	stored, err := os.ReadFile("../reference.md")
	if err != nil || !bytes.Equal(stored, now.Bytes()) {
		t.Errorf("docs/reference.md is not what the source says (%v): run \"make generated\"", err)
	}
}
