package policystore

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/selinux-provision/selinux-provision/internal/filecontexts"
	"github.com/selinux-provision/selinux-provision/internal/hostfs"
)

// A declared context counts for what a look-up gives, whatever stands in the files; else the reason says what counts, and what to write.
func TestDeclaredContextsInForce(t *testing.T) {
	const context = "system_u:object_r:container_file_t:s0"
	entry := func(path string) string { return path + "\t" + context + "\n" }
	for _, c := range []struct {
		what               string
		built, local, subs string
		declared           []FileContext
		reason             string // "": it is in force
	}{
		{what: "in force", built: entry("/srv/data(/.*)?"), declared: []FileContext{{Path: "/srv/data(/.*)?"}}},
		{what: "a longer one of the vendor's", built: entry("/srv/data(/.*)?") + "/srv/data/log(/.*)?\tu:r:log_t:s0\n", declared: []FileContext{{Path: "/srv/data(/.*)?"}}},
		{what: "one for directories alone", built: entry("/srv/data(/.*)?") + "/srv/data(/.*)?\t-d\tu:r:dir_t:s0\n", declared: []FileContext{{Path: "/srv/data(/.*)?"}}},
		{what: "for directories alone", built: "/srv/data(/.*)?\tu:r:any_t:s0\n/srv/data(/.*)?\t-d\t" + context + "\n", declared: []FileContext{{Path: "/srv/data(/.*)?", Type: "dir"}}},
		{what: "no context", built: "/srv/data(/.*)?\t<<none>>\n", declared: []FileContext{{Path: "/srv/data(/.*)?", Context: "<<none>>"}}},
		{what: "not in the policy", built: "/srv(/.*)?\tu:r:srv_t:s0\n", declared: []FileContext{{Path: "/srv/data(/.*)?"}},
			reason: "the policy has another context for the same path, u:r:srv_t:s0, from /srv(/.*)?, and that one counts: declare a longer path"},
		{what: "the vendor's counts", built: entry("/srv/data(/.*)?") + "/srv/data/.*\tu:r:x_t:s0\n", declared: []FileContext{{Path: "/srv/data(/.*)?"}},
			reason: "the policy has another context for the same path, u:r:x_t:s0, from /srv/data/.*, and that one counts: declare a longer path"},
		{what: "one by hand counts", built: entry("/srv/data(/.*)?"), local: "/srv/data(/.*)? u:r:hand_t:s0", declared: []FileContext{{Path: "/srv/data(/.*)?"}},
			reason: "a line that was made by hand counts, with u:r:hand_t:s0, from /srv/data(/.*)?: take it out of ROOT/var/lib/selinux/mcs/active/file_contexts.local and run semodule --build"},
		{what: "none at all", built: "/x u:r:x_t:s0\n", declared: []FileContext{{Path: "/srv/data"}}, reason: "a look-up gives no context for it"},
		{what: "below what the vendor replaces", built: entry("/var/run/app(/.*)?") + "/run/.*\tu:r:run_t:s0\n", declared: []FileContext{{Path: "/var/run/app(/.*)?"}},
			reason: "what is at and below /var/run is looked up as if it were at /run, so that this gives u:r:run_t:s0, from /run/.*: declare /run/app(/.*)?"},
		{what: "what the vendor replaces", built: entry("/var/run(/.*)?"), declared: []FileContext{{Path: "/var/run(/.*)?"}},
			reason: "what is at and below /var/run is looked up as if it were at /run, so that this gives no context: declare /run(/.*)?"},
		{what: "written in another way", built: entry(`/usr/local/lib\.d/x`), subs: "/usr/local/lib.d /usr/lib\n", declared: []FileContext{{Path: `/usr/local/lib\.d/x`}},
			reason: "what is at and below /usr/local/lib.d is looked up as if it were at /usr/lib, so that this gives no context: declare its path below /usr/lib"},
		{what: "replaced, and in force", built: entry("/(var/)?run/app(/.*)?"), declared: []FileContext{{Path: "/(var/)?run/app(/.*)?"}}},
		{what: "below an equivalence", built: entry("/data/docker/x") + "/var/lib/docker(/.*)?\tu:r:docker_t:s0\n", subs: "/data/docker /var/lib/docker\n",
			declared: []FileContext{{Path: "/data/docker/x"}},
			reason:   "what is at and below /data/docker is looked up as if it were at /var/lib/docker, so that this gives u:r:docker_t:s0, from /var/lib/docker(/.*)?: declare /var/lib/docker/x"},
		{what: "another declaration counts for the rest", built: entry("/srv/data(/.*)?") + "/srv/data/.*\tu:r:x_t:s0\n",
			declared: []FileContext{{Path: "/srv/data(/.*)?"}, {Path: "/srv/data/.*", Context: "u:r:x_t:s0"}}},
		{what: "another declaration counts for all", built: entry("/srv/data/.") + "/srv/data/[a-z]\tu:r:x_t:s0\n",
			declared: []FileContext{{Path: "/srv/data/.", Context: context}, {Path: "/srv/data/[a-z]", Context: "u:r:x_t:s0"}},
			reason:   "another one that is declared, /srv/data/[a-z], counts for all that it is for: remove one of the two"},
		{what: "what only PCRE reads", built: entry("/srv/(?=x)x"), declared: []FileContext{{Path: "/srv/(?=x)x"}}},
		{what: "what only PCRE reads, and is not there", built: entry("/srv/x"), declared: []FileContext{{Path: "/srv/(?=x)x"}}, reason: shadowed},
		{what: "a slash at the end", built: entry("/srv/data/"), declared: []FileContext{{Path: "/srv/data/"}}, reason: "no path ends in a slash: write /srv/data, and (/.*)? behind it if all that is below it is meant, too"},
		{what: "a shell's pattern", built: entry("/srv/data/*"), declared: []FileContext{{Path: "/srv/data/*"}},
			reason: "it is a regular expression, in which /* is any number of slashes: write /srv/data(/.*)? for the directory and all that is below it, or /srv/data/[^/]+ for what is in it"},
	} {
		dir := t.TempDir()
		root, err := hostfs.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		h := &fakeHost{t: t, dir: dir, root: root}
		files := EtcDir + "/mcs/contexts/files/"
		h.write(files+"file_contexts", c.built)
		h.write(files+"file_contexts.local", c.local)
		h.write(files+"file_contexts.subs", c.subs)
		h.write(files+"file_contexts.subs_dist", "/var/run /run\n")
		for i := range c.declared {
			if c.declared[i].Context == "" {
				c.declared[i].Context = context
			}
			if c.declared[i].Type == "" {
				c.declared[i].Type = "any"
			}
		}
		inForce, without, err := h.compiler().inForceOf("mcs", &PolicyRecord{}, c.declared)
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		got := ""
		for _, q := range without {
			if q.Name == c.declared[0].Path {
				got = strings.ReplaceAll(q.Reason, dir, "ROOT")
			}
		}
		if got != c.reason || (c.reason == "") != slices.Contains(inForce, c.declared[0]) {
			t.Errorf("%s:\ngot  %s\nwant %s\n%v", c.what, got, c.reason, inForce)
		}
		root.Close()
	}
}

// What was found out when the policy was built is not looked up again, a boot would pay for that, until a byte of the file contexts changes.
func TestLookupIsRemembered(t *testing.T) {
	h := newHost(t)
	context := "u:r:site_t:s0"
	h.write(EtcDir+"/mcs/contexts/files/file_contexts", "/srv/data(/.*)?\t"+context+"\n")
	files, err := filecontexts.Fingerprint(h.root, "mcs")
	if err != nil {
		t.Fatal(err)
	}
	rec := &Record{Vendor: "v", Policy: PolicyRecord{Vendor: "v", Declared: "d",
		Lookup: Lookup{Files: files, Without: []Quarantined{{Kind: fileContext, Name: "/srv/data(/.*)?", Reason: "remembered", From: "old.yaml:3"}}}}}
	want := Declared{Digest: "d", FileContexts: []FileContext{{Path: "/srv/data(/.*)?", Type: "any", Context: context, From: "config.yaml:7"}}}
	reasons := func() (all []string) {
		t.Helper()
		out, err := h.compiler().LeftOut("mcs", rec, want)
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range out {
			all = append(all, q.Reason+" "+q.From)
		}
		return all
	}
	if got := reasons(); !slices.Equal(got, []string{"remembered config.yaml:7"}) {
		t.Errorf("unchanged: %q", got)
	}
	for _, name := range []string{"file_contexts.local", "file_contexts.subs", "file_contexts.homedirs", "file_contexts"} {
		before, _ := h.root.ReadFile(EtcDir + "/mcs/contexts/files/" + name)
		h.write(EtcDir+"/mcs/contexts/files/"+name, string(before)+"# a byte\n")
		if got := reasons(); len(got) > 0 {
			t.Errorf("%s changed: %q", name, got)
		}
		if before == nil {
			h.remove(EtcDir + "/mcs/contexts/files/" + name)
		} else {
			h.write(EtcDir+"/mcs/contexts/files/"+name, string(before))
		}
	}
	rec.Policy.Lookup = Lookup{} // an earlier release's record
	if got := reasons(); len(got) > 0 {
		t.Errorf("not known: %q", got)
	}
}

func TestSubstitutions(t *testing.T) {
	docker := Equivalence{"/data/docker", "/var/lib/docker"}
	const line = "/data/docker /var/lib/docker\n"
	for _, c := range []struct {
		what, text string
		were       []string
		declared   []Equivalence
		next, ours string
	}{
		{what: "nothing"},
		{what: "the first", declared: []Equivalence{docker}, next: line, ours: line},
		{what: "there", text: line, were: []string{"/data/docker /var/lib/docker"}, declared: []Equivalence{docker}, next: line, ours: line},
		{what: "gone", text: line, were: []string{"/data/docker /var/lib/docker"}},
		{what: "beside the operator's", text: "# mine\n/a  /b\n", declared: []Equivalence{docker}, next: "# mine\n/a  /b\n" + line, ours: line},
		{what: "the operator's stays", text: "/a /b\n" + line + "/c /d\n", were: []string{"/data/docker /var/lib/docker"}, next: "/a /b\n/c /d\n"},
		{what: "the operator has it too", text: "/data/docker\t/var/lib/docker\n", declared: []Equivalence{docker}, next: "/data/docker\t/var/lib/docker\n"},
		{what: "and with a comment, which libselinux passes over", text: "/data/docker /var/lib/docker # our data root\n", declared: []Equivalence{docker}, next: "/data/docker /var/lib/docker # our data root\n"},
		{what: "another one of the operator's for the same path", text: "/data/docker /srv\n", declared: []Equivalence{docker}, next: "/data/docker /srv\n" + line, ours: line},
		{what: "another one now", text: line, were: []string{"/data/docker /var/lib/docker"}, declared: []Equivalence{{"/data/docker", "/srv"}}, next: "/data/docker /srv\n", ours: "/data/docker /srv\n"},
		{what: "taken out by hand", text: "/a /b\n", were: []string{"/data/docker /var/lib/docker"}, declared: []Equivalence{docker}, next: "/a /b\n" + line, ours: line},
		{what: "the longer path last", declared: []Equivalence{{"/data/docker/x", "/srv/x"}, docker, {"/d", "/srv/d"}},
			next: "/d /srv/d\n" + line + "/data/docker/x /srv/x\n", ours: "/d /srv/d\n" + line + "/data/docker/x /srv/x\n"},
		{what: "without an end of the line", text: "/a /b", declared: []Equivalence{docker}, next: "/a /b\n" + line, ours: line},
		{what: "left as it is", text: "/a /b", next: "/a /b"},
	} {
		next, ours := substitutions(c.text, c.were, c.declared)
		all := ""
		for _, l := range ours {
			all += l + "\n"
		}
		if next != c.next || all != c.ours {
			t.Errorf("%s: %q, %q, want %q, %q", c.what, next, all, c.next, c.ours)
		}
		if again, _ := substitutions(next, ours, c.declared); again != next {
			t.Errorf("%s: the next run would change it again: %q", c.what, again)
		}
	}
}

// TestManyEquivalences are written, and taken out again, in a time that grows as their number does: if each was compared with each, this would
// take hours.
func TestManyEquivalences(t *testing.T) {
	const many = 200_000
	h := newHost(t)
	rec, name := h.record(), EtcDir+"/mcs/contexts/files/file_contexts.subs"
	h.write(name, "/a /b\n")
	var all []Equivalence
	for i := range many {
		all = append(all, Equivalence{fmt.Sprintf("/srv/%d", i), "/var/lib/docker"})
	}
	for _, want := range [][]Equivalence{all, nil} {
		steps, changed, err := h.compiler().equivalences("mcs", rec, want)
		if err != nil || len(changed) != many {
			t.Fatal(len(changed), err)
		}
		if _, err := steps.Do(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(h.read(name), "\n"); got != len(want)+1 || len(rec.Equivalences) != len(want) || len(rec.Policy.Relabel) != many {
			t.Errorf("%d lines, %d of them ours, %d paths to label", got, len(rec.Equivalences), len(rec.Policy.Relabel))
		}
	}
}

// Equivalences are written without a build, what they are for is labelled, and they go with the declaration; what the operator has in the
// file stays.
func TestEquivalences(t *testing.T) {
	h := newHost(t)
	rec := h.record()
	name := EtcDir + "/mcs/contexts/files/file_contexts.subs"
	if _, err := h.apply(rec, site1); err != nil {
		t.Fatal(err)
	}
	h.write(name, "/a /b\n")
	with := site1
	with.Equivalences = []Equivalence{{"/data/docker", "/var/lib/docker"}}
	digest := func(d Declared) Declared { d.Digest = rec.Policy.Declared; return d }
	do := func(want Declared) (actions []string) {
		t.Helper()
		steps, err := h.compiler().Plan("mcs", rec, digest(want))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range steps {
			actions = append(actions, s.Action)
		}
		if _, err := steps.Do(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
		return actions
	}
	if got := do(with); !slices.Equal(got, []string{"write", "record"}) || h.read(name) != "/a /b\n/data/docker /var/lib/docker\n" {
		t.Errorf("%v: %q", got, h.read(name))
	}
	if r := rec.Policy.Relabel; len(r) != 1 || r[0].Path != "/data/docker" || r[0].Declared || len(h.calls) != 1 {
		t.Errorf("%+v, %v", r, h.calls)
	}
	if got := do(with); len(got) != 0 {
		t.Errorf("again: %v", got)
	}
	if got := do(site1); !slices.Equal(got, []string{"write", "record"}) || h.read(name) != "/a /b\n" || len(rec.Equivalences) != 0 {
		t.Errorf("gone: %v: %q, %v", got, h.read(name), rec.Equivalences)
	}
	h.remove(name)
	do(with)
	if got := do(site1); !slices.Equal(got, []string{"remove", "record"}) || h.root.Exists(name) {
		t.Errorf("the last one gone: %v: %q", got, h.read(name))
	}
	if !onlyOurs(h.root, name, rec) {
		h.write(name, "/data/docker /var/lib/docker\n")
	}
	rec.Equivalences = []string{"/data/docker /var/lib/docker"}
	for text, want := range map[string]bool{"/data/docker /var/lib/docker\n": true, "/data/docker /var/lib/docker\n/a /b\n": false} {
		h.write(name, text)
		if onlyOurs(h.root, name, rec) != want {
			t.Errorf("%q is only ours: %v", text, !want)
		}
	}
}
