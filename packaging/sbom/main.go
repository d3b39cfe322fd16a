// Command sbom prints the software bill of materials of a Go program as SPDX 2.3 JSON, from what the compiler wrote into it: sbom
// PROGRAM. The same program gives the same bytes; SOURCE_DATE_EPOCH is the time that the document claims to be of.
package main

import (
	"crypto/sha256"
	"crypto/sha512"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: sbom PROGRAM")
		os.Exit(2)
	}
	if err := write(os.Stdout, os.Args[1], os.Getenv("SOURCE_DATE_EPOCH"), os.Getenv("VERSION")); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

// The parts of SPDX 2.3 (https://spdx.github.io/spdx-spec/v2.3/) that are written here.
type document struct {
	SPDXVersion       string         `json:"spdxVersion"`
	DataLicense       string         `json:"dataLicense"`
	SPDXID            string         `json:"SPDXID"`
	Name              string         `json:"name"`
	DocumentNamespace string         `json:"documentNamespace"`
	CreationInfo      creationInfo   `json:"creationInfo"`
	DocumentDescribes []string       `json:"documentDescribes"`
	Packages          []spdxPackage  `json:"packages"`
	Relationships     []relationship `json:"relationships"`
}

type creationInfo struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	Name             string        `json:"name"`
	SPDXID           string        `json:"SPDXID"`
	VersionInfo      string        `json:"versionInfo"`
	FileName         string        `json:"packageFileName,omitempty"`
	DownloadLocation string        `json:"downloadLocation"`
	FilesAnalyzed    bool          `json:"filesAnalyzed"`
	Checksums        []checksum    `json:"checksums,omitempty"`
	LicenseConcluded string        `json:"licenseConcluded"`
	LicenseDeclared  string        `json:"licenseDeclared"`
	CopyrightText    string        `json:"copyrightText"`
	ExternalRefs     []externalRef `json:"externalRefs,omitempty"`
	Comment          string        `json:"comment,omitempty"`
	Purpose          string        `json:"primaryPackagePurpose"`
}

type checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type externalRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

const none = "NOASSERTION"

func write(w io.Writer, program, epoch, version string) error {
	content, err := os.ReadFile(program)
	if err != nil {
		return fmt.Errorf("cannot read the program: %w", errors.Unwrap(err))
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return fmt.Errorf("cannot find in %s what it was built from: %w", program, err)
	}
	seconds := int64(0)
	if epoch != "" {
		if seconds, err = strconv.ParseInt(epoch, 10, 64); err != nil {
			return fmt.Errorf("cannot use SOURCE_DATE_EPOCH=%q: it is no number of seconds", epoch)
		}
	}
	if version == "" {
		version = info.Main.Version
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(content))
	doc := document{
		SPDXVersion: "SPDX-2.3", DataLicense: "CC0-1.0", SPDXID: "SPDXRef-DOCUMENT",
		Name:              filepath.Base(program) + "-" + version,
		DocumentNamespace: "https://" + info.Main.Path + "/spdx/" + sum,
		CreationInfo:      creationInfo{Created: time.Unix(seconds, 0).UTC().Format(time.RFC3339), Creators: []string{"Tool: " + info.Main.Path + "/packaging/sbom"}},
	}
	main := spdxPackage{
		Name: info.Main.Path, SPDXID: "SPDXRef-program", VersionInfo: version, FileName: filepath.Base(program), DownloadLocation: "https://" + info.Main.Path,
		Checksums:        []checksum{{"SHA256", sum}, {"SHA512", fmt.Sprintf("%x", sha512.Sum512(content))}},
		LicenseConcluded: none, LicenseDeclared: "Apache-2.0", CopyrightText: none, Purpose: "APPLICATION", Comment: settings(info),
	}
	doc.DocumentDescribes = []string{main.SPDXID}
	doc.Relationships = []relationship{{doc.SPDXID, "DESCRIBES", main.SPDXID}}
	doc.Packages = []spdxPackage{main}
	add := func(p spdxPackage) {
		p.LicenseConcluded, p.LicenseDeclared, p.CopyrightText, p.Purpose = none, none, none, "LIBRARY"
		doc.Packages = append(doc.Packages, p)
		doc.Relationships = append(doc.Relationships, relationship{main.SPDXID, "DEPENDS_ON", p.SPDXID})
	}
	add(spdxPackage{Name: "std", SPDXID: "SPDXRef-std", VersionInfo: strings.TrimPrefix(info.GoVersion, "go"), DownloadLocation: "https://go.dev/dl/",
		ExternalRefs: purl("pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go"))})
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		p := spdxPackage{Name: m.Path, SPDXID: id(m.Path), VersionInfo: m.Version, DownloadLocation: none, ExternalRefs: purl("pkg:golang/" + m.Path + "@" + m.Version)}
		// Go's sum is SHA-256 over the sums of the files (golang.org/x/mod/sumdb/dirhash), not over an archive.
		if raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Sum, "h1:")); err == nil && len(raw) == sha256.Size {
			p.Comment = "go.sum " + m.Sum
		}
		add(p)
	}
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	return out.Encode(doc)
}

func purl(locator string) []externalRef {
	return []externalRef{{"PACKAGE-MANAGER", "purl", locator}}
}

// id makes an SPDX identifier, which has letters, digits, dots and hyphens alone.
func id(path string) string {
	return "SPDXRef-go-" + regexp.MustCompile(`[^A-Za-z0-9.]+`).ReplaceAllString(path, "-")
}

// settings are those of the compiler that decide what is in the program.
func settings(info *debug.BuildInfo) string {
	var all []string
	for _, s := range info.Settings {
		if s.Key != "vcs.time" {
			all = append(all, s.Key+"="+s.Value)
		}
	}
	return "built by " + info.GoVersion + " with " + strings.Join(all, " ")
}
