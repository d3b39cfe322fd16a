package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"testing"
)

// The picture in the documents is the one that is drawn here, and it is XML.
func TestPicture(t *testing.T) {
	var drawn bytes.Buffer
	draw(&drawn)
	stored, err := os.ReadFile("../boot.svg")
	if err != nil || !bytes.Equal(stored, drawn.Bytes()) {
		t.Errorf("docs/boot.svg is not what is drawn (%v): run make picture", err)
	}
	in := xml.NewDecoder(&drawn)
	for {
		if _, err := in.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
