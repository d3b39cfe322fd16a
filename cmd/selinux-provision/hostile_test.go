package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/selinux-provision/selinux-provision/avc/findings"
	"github.com/selinux-provision/selinux-provision/mountwatch"
	"github.com/selinux-provision/selinux-provision/stages"
)

// fill gives every text in a value the same one, as deep as the value goes.
func fill(v reflect.Value, text string, depth int) {
	if depth == 0 {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		fill(v.Elem(), text, depth-1)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fill(v.Field(i), text, depth)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), text, depth-1)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, text, depth-1)
		fill(value, text, depth-1)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	default:
	}
}

// filled gives a value that has the text wherever it can have one, so many pointers, lists and maps deep.
func filled[T any](text string, depth int) *T {
	v := new(T)
	fill(reflect.ValueOf(v).Elem(), text, depth)
	return v
}

// Whatever text of others is in any field, in each form in which this program gives answers it makes no line of its own, and nothing that a
// terminal obeys.
func TestHostileTextEverywhere(t *testing.T) {
	const harmless, hostile = "x", "x\n<0>kernel: panic\r\x1b[2J\x07\u202e\x9b\u2028node=\"1\"} 1\n# +expiry-time=never"
	var now time.Time
	outputs := map[string]func(text string) string{
		"the features": func(text string) string {
			return features(filled[stages.Status](text, 6), filled[stages.Readiness](text, 6), now)
		},
		"the metrics": func(text string) string {
			var b strings.Builder
			s := filled[stages.Status](text, 6)
			s.Volumes[0].State = mountwatch.Refused
			metricsText(&b, filled[stages.Readiness](text, 6), s, now)
			return b.String()
		},
		"the JSON of status": func(text string) string {
			var b strings.Builder
			a := &app{json: true, stdout: &b, stderr: &b}
			a.answer(filled[stages.Status](text, 6))
			if !json.Valid([]byte(b.String())) {
				t.Errorf("no JSON: %s", b.String())
			}
			return b.String()
		},
		"a terminal": func(text string) string {
			var b strings.Builder
			printStatus(&b, filled[stages.Status](text, 6), paintFor(&b))
			return b.String()
		},
	}
	for _, state := range []mountwatch.State{mountwatch.Labelled, mountwatch.LeftAlone, mountwatch.Refused, mountwatch.Failed, mountwatch.NotMounted} {
		outputs["a terminal, a volume that is "+string(state)] = func(text string) string {
			var b strings.Builder
			s := filled[stages.Status](text, 6)
			s.Volumes[0].State = state
			printStatus(&b, s, paintFor(&b))
			return b.String()
		}
	}
	for _, verdict := range []stages.Verdict{stages.Ready, stages.NotReady, stages.NotEnough} {
		outputs["a terminal, readiness that is "+string(verdict)] = func(text string) string {
			var b strings.Builder
			r := filled[stages.Readiness](text, 6)
			r.Verdict, r.Checks[0].Verdict = verdict, verdict
			printReadiness(&b, r)
			return b.String()
		}
		outputs["a terminal, readiness of a domain that is "+string(verdict)] = func(text string) string {
			var b strings.Builder
			r := filled[stages.DomainReadiness](text, 6)
			r.Verdict, r.Checks[0].Verdict = verdict, verdict
			printDomainReadiness(&b, r)
			return b.String()
		}
	}
	for _, verbose := range []bool{false, true} {
		outputs["a terminal, denials, verbose: "+strconv.FormatBool(verbose)] = func(text string) string {
			var b strings.Builder
			r := filled[findings.Report](text, 8)
			r.Findings[0].Fix.Config = "one:\n  two: three\n" // of this program's own making
			printDenials(&b, r, verbose)
			return b.String()
		}
	}
	for _, kind := range []mountwatch.Kind{mountwatch.VolumeLabelled, mountwatch.VolumeRefused, mountwatch.RelabelStarted, mountwatch.RelabelDone} {
		outputs["the journal, "+fmt.Sprint(kind)] = func(text string) string {
			_, line := eventText(mountwatch.Event{Kind: kind, Volume: *filled[mountwatch.Volume](text, 6)})
			return oneLine(line)
		}
	}
	for name, output := range outputs {
		got := output(hostile)
		for _, r := range got {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Errorf("%s has %q:\n%q", name, r, got)
				break
			}
		}
		if want := strings.Count(output(harmless), "\n"); strings.Count(got, "\n") != want {
			t.Errorf("%s has %d lines in place of %d:\n%s", name, strings.Count(got, "\n"), want, got)
		}
	}
}
