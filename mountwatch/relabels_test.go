package mountwatch

import (
	"slices"
	"strings"
	"testing"
)

// TestQueueOfRelabels: what somebody waits for comes before the rest, and each disk has one volume at work; what is on other disks does not wait for it.
func TestQueueOfRelabels(t *testing.T) {
	for _, c := range []struct {
		name  string
		jobs  string // as they come: name, "!" if somebody waits for it, disks
		want  string // the queue
		begin string // those that begin, in their order; after ; when the first has ended, and so on
	}{
		{"each on a disk of its own", "a:1 b:2 c:3", "a b c", "a b c"},
		{"on one disk", "a:1 b:1 c:1", "a b c", "a;b;c"},
		{"somebody waits", "a:1 b:1 c!:1", "c a b", "c;a;b"},
		{"somebody waits for two", "a:1 b!:1 c!:1 d:1", "b c a d", "b;c;a;d"},
		{"across two disks", "a:1 b:1,2 c:2", "a b c", "a c;;b"},
		{"no more than a few at once", "a:1 b:2 c:3 d:4 e:5 f:6", "a b c d e f", "a b c d;e;f"},
		{"and as many that somebody waits for", "a:1 b:2 c:3 d:4 e:5 f!:6 g!:7 h!:8 i!:9 j!:0 k!:11", "f g h i j k a b c d e", "f g h i j k;;;a"},
	} {
		r := relabels{busy: map[string]bool{}}
		names := map[*relabelJob]string{}
		said := func(jobs []*relabelJob) string {
			var all []string
			for _, j := range jobs {
				all = append(all, names[j])
			}
			return strings.Join(all, " ")
		}
		for each := range strings.FieldsSeq(c.jobs) {
			name, disks, _ := strings.Cut(each, ":")
			job := &relabelJob{disks: strings.Split(disks, ",")}
			name, awaited := strings.CutSuffix(name, "!")
			job.limits.Background = !awaited
			names[job] = name
			r.line(job)
		}
		if got := said(r.queue); got != c.want {
			t.Errorf("%s: the queue is %q, want %q", c.name, got, c.want)
		}
		for n, want := range strings.Split(c.begin, ";") {
			if n > 0 { // the first of those at work is done
				i := slices.IndexFunc(r.queue, func(j *relabelJob) bool { return j.stop != nil })
				for _, d := range r.queue[i].disks {
					delete(r.busy, d)
				}
				r.queue = slices.Delete(r.queue, i, i+1)
			}
			begin := r.next()
			for _, job := range begin {
				job.stop = func() {}
			}
			if got := said(begin); got != want {
				t.Errorf("%s: after %d have ended %q begin, want %q", c.name, n, got, want)
			}
		}
	}
}
