package avc

import (
	"cmp"
	"errors"
	"hash/maphash"
	"io"
	"slices"
	"strings"
	"time"
)

const (
	// window is how many events back a second copy of a record is known for one, and a serial number that comes late is not
	// counted as missing. The kernel's queue holds 64 by default and 8,192 in common configurations.
	window = 1 << 16
	// joinWindow is how many denials wait at least for other records of their event. Events overlap by the number of processors.
	joinWindow = 512
	// perEvent bounds what is remembered of one event. The kernel writes a few dozen records for one; what has more is no log.
	perEvent = 1 << 10
	// mostEarly is how many records that may belong to a denial wait for it.
	mostEarly = 32
	// rebootDistance is how far back serial numbers jump when the kernel has started anew.
	rebootDistance = 5 * time.Second
)

// ErrQuiet is what a Source gives now and then that follows a log which somebody is writing: a moment has passed. It is no end. A text that is
// read by a Decoder may give it too, when nothing has come for a moment.
var ErrQuiet = errors.New("nothing has come for a moment")

// Stats counts what a Reader has seen.
type Stats struct {
	// Records counts all audit records, Denials those that became a Denial, Duplicates the copies that came by another
	// transport.
	Records    uint64 `json:"records"`
	Denials    uint64 `json:"denials"`
	Duplicates uint64 `json:"duplicates"`
	// Undated counts those denials of which no record says when they were.
	Undated uint64 `json:"undated,omitempty"`
	// Boots counts starts of the kernel, as the serial numbers show them.
	Boots int `json:"boots"`
	// Missing counts serial numbers of events between the first and the last of each boot that did not come. In a log that
	// is complete they were lost; in one that somebody has filtered they were filtered out.
	Missing uint64 `json:"missing"`
	// LargestGap is the largest number of events that are missing in one place, GapAt the time behind it.
	LargestGap uint64    `json:"largest_gap"`
	GapAt      time.Time `json:"gap_at,omitzero"`
	// First and Last are the times of the first and the last record of any kind.
	First time.Time `json:"first,omitzero"`
	Last  time.Time `json:"last,omitzero"`
	Loss
}

// Reader gives the denials of one or several sources that tell of the same host, or of several that the audit daemon names. It is not for several
// goroutines.
type Reader struct {
	sources []*lookahead
	seed    maphash.Seed
	stats   Stats

	nodes    []*serials // of each host that the audit daemon names
	recent   []stampedRecord
	oldest   int      // of recent
	alike    []twins  // by the hash of a record modulo window; nil before the first record without a serial number
	unnamed  int64    // records without a serial number
	early    []Record // other records of the event that was read last, while it has no denial
	earlyID  eventID
	pending  map[eventID]*pendingEvent
	queue    []*pendingEvent // oldest first
	spare    []*pendingEvent // to be used again
	ready    []*Denial
	taken    int // how many of ready were given
	free     []*Denial
	given    *Denial
	finished bool
}

type eventID struct {
	serial uint64
	millis int64
	node   int // number of the host
}

// serials are the books of the serial numbers of one host.
type serials struct {
	node     string
	number   int
	seen     []seenEvent // by serial number modulo window
	high     uint64      // highest serial number of this boot, 0 before the first
	highTime time.Time
	first    uint64
	distinct uint64
	boot     string
}

// missing counts the numbers of this boot that did not come.
func (s *serials) missing() uint64 {
	if s.high == 0 {
		return 0
	}
	return s.high - s.first + 1 - min(s.distinct, s.high-s.first+1)
}

type pendingEvent struct {
	id      eventID
	denials []*Denial
	// companions counts the other records that were joined.
	companions int
	unread     []string // denials that were cut off before what matters, and of which no other copy has come
	early      []Record // the other records, for a copy that comes yet
	waited     bool     // a moment has passed since it came
	done       bool
}

// lookahead holds the next record of a source, so that several can be merged by time.
type lookahead struct {
	Source
	next   Record
	err    error
	loaded bool
}

func (l *lookahead) load() {
	if !l.loaded {
		l.next, l.err = l.Source.Next()
		l.loaded = true
	}
}

// NewReader gives a Reader. Several sources are merged by time.
func NewReader(sources ...Source) *Reader {
	r := &Reader{seed: maphash.MakeSeed(), pending: map[eventID]*pendingEvent{}}
	for _, s := range sources {
		r.sources = append(r.sources, &lookahead{Source: s})
	}
	return r
}

// Stats gives the counts up to now. Missing is complete after Next gave io.EOF.
func (r *Reader) Stats() Stats {
	s := r.stats
	for _, node := range r.nodes {
		s.Missing += node.missing()
	}
	for _, source := range r.sources {
		loss := source.Loss()
		s.Kernel += loss.Kernel
		s.Suppressed += loss.Suppressed
		s.Overlong += loss.Overlong
		s.Malformed += loss.Malformed
		s.Unread = cmp.Or(s.Unread, loss.Unread)
	}
	return s
}

// Next gives the next denial, io.EOF after the last one, ErrQuiet if a source gave that and no denial is due, and otherwise the error of a
// source. The Denial is valid until the next call. The order is that of the records, but for events whose records are spread among those of
// others.
func (r *Reader) Next() (*Denial, error) {
	if r.given != nil {
		r.given.reset()
		r.free = append(r.free, r.given)
		r.given = nil
	}
	for r.taken == len(r.ready) {
		r.ready, r.taken = r.ready[:0], 0
		if r.finished {
			return nil, io.EOF
		}
		record, err := r.record()
		switch {
		case errors.Is(err, io.EOF):
			r.finished = true
			r.flush(0)
		case errors.Is(err, ErrQuiet):
			if r.moment(); len(r.ready) == 0 {
				return nil, ErrQuiet
			}
		case err != nil:
			return nil, err
		default:
			r.add(&record)
		}
	}
	r.given = r.ready[r.taken]
	r.taken++
	r.stats.Denials++
	if r.given.Time.IsZero() {
		r.stats.Undated++
	}
	return r.given, nil
}

// record takes the oldest record that any source has. One without a time comes at once.
func (r *Reader) record() (Record, error) {
	var oldest *lookahead
	for _, s := range r.sources {
		s.load()
		if errors.Is(s.err, io.EOF) {
			continue
		}
		if s.err != nil {
			s.loaded = !errors.Is(s.err, ErrQuiet)
			return Record{}, s.err
		}
		if oldest == nil || s.next.Time.Before(oldest.next.Time) {
			oldest = s
		}
	}
	if oldest == nil {
		return Record{}, io.EOF
	}
	oldest.loaded = false
	return oldest.next, nil
}

func (r *Reader) add(record *Record) {
	r.stats.Records++
	if !record.Time.IsZero() {
		if r.stats.First.IsZero() {
			r.stats.First = record.Time
		}
		r.stats.Last = record.Time
	}
	if record.Type >= TypeDaemon && record.Type < TypeDaemon+100 {
		return
	}
	if record.denies() && record.Serial == 0 {
		r.stamped(record)
	}
	node := r.node(record.Node)
	id := eventID{record.Serial, record.Time.UnixMilli(), node.number}
	var copies *seenRecord
	if record.Serial != 0 {
		var fresh bool
		if copies, fresh = r.first(record, id, node); !fresh && !r.completes(record, copies, id) || fresh && record.denies() && r.stamps(record, copies, id) {
			r.stats.Duplicates++
			return
		}
	}
	switch record.Type {
	case TypeAVC, TypeUserAVC, TypeSELinuxErr, TypeUserSELinuxErr:
		d := r.denial()
		if !d.parse(record) {
			r.unreadable(record, copies, id)
			r.free = append(r.free, d)
			return
		}
		cut := record.mayBeCut() && copies != nil
		if record.Serial != 0 && !cut && (record.Type == TypeUserAVC || record.Type == TypeUserSELinuxErr) {
			r.ready = append(r.ready, d) // nothing belongs to it
			return
		}
		if cut {
			d.copies = copies.hash
		}
		if record.Serial == 0 {
			id = r.bare(record)
		}
		e := r.eventOf(id)
		if len(e.denials) >= perEvent {
			r.ready = append(r.ready, d)
			return
		}
		r.addEarly(d, e)
		e.denials = append(e.denials, d)
		r.makeRoom()
	case TypeSyscall, TypeAVCPath, TypePath, TypeCwd, TypeProctitle, TypeEndOfEvent:
		e := r.pending[id]
		if e == nil {
			r.keep(record, id)
			return
		}
		if e.companions++; e.companions <= perEvent {
			for _, d := range e.denials {
				d.addCompanion(record)
			}
		}
		if len(e.unread) > 0 && len(e.early) < mostEarly {
			e.early = append(e.early, *record)
		}
		if record.Type == TypeEndOfEvent {
			r.finish(e)
		}
	}
}

// addEarly adds what came before a denial of an event.
func (r *Reader) addEarly(d *Denial, e *pendingEvent) {
	if r.earlyID == e.id { // ausearch prints the last record of an event first
		for i := range r.early {
			d.addCompanion(&r.early[len(r.early)-1-i])
		}
	}
	for i := range e.early {
		d.addCompanion(&e.early[i])
	}
}

// keep keeps a record that may belong to a denial that comes behind it.
func (r *Reader) keep(record *Record, id eventID) {
	if record.Serial == 0 {
		return
	}
	if r.earlyID != id {
		r.early, r.earlyID = r.early[:0], id
	}
	if len(r.early) < mostEarly {
		r.early = append(r.early, *record)
	}
}

// moment finishes the events that were there a moment ago already: what belongs to them has come.
func (r *Reader) moment() {
	for _, e := range r.queue {
		if e.waited && !e.done {
			r.finish(e)
		}
		e.waited = true
	}
	r.flush(len(r.queue))
}

// makeRoom finishes the oldest of many events: half of them at once, so that the rest is not moved for each record.
func (r *Reader) makeRoom() {
	if len(r.queue) >= 2*joinWindow {
		r.flush(joinWindow)
	}
}

// flush finishes the oldest events until at most keep wait.
func (r *Reader) flush(keep int) {
	n := 0
	for n < len(r.queue) && (len(r.queue)-n > keep || r.queue[n].done) {
		if !r.queue[n].done {
			r.finish(r.queue[n])
		}
		r.spare = append(r.spare, r.queue[n])
		n++
	}
	if n == 0 {
		return
	}
	r.queue = r.queue[:copy(r.queue, r.queue[n:])]
}

func (r *Reader) finish(e *pendingEvent) {
	r.ready = append(r.ready, e.denials...)
	for _, text := range e.unread {
		r.stats.unread(text)
	}
	e.done = true
	delete(r.pending, e.id)
}

// eventOf gives the event that waits for what belongs to it.
func (r *Reader) eventOf(id eventID) *pendingEvent {
	e := r.pending[id]
	if e != nil {
		return e
	}
	if n := len(r.spare); n > 0 {
		e, r.spare = r.spare[n-1], r.spare[:n-1]
	} else {
		e = &pendingEvent{}
	}
	*e = pendingEvent{id: id, denials: e.denials[:0], unread: e.unread[:0], early: e.early[:0]}
	r.pending[id] = e
	r.queue = append(r.queue, e)
	return e
}

func (r *Reader) denial() *Denial {
	if n := len(r.free); n > 0 {
		d := r.free[n-1]
		r.free = r.free[:n-1]
		return d
	}
	return &Denial{}
}

// maxNodes is how many hosts have books of their own. What is said of the others is that of the last one.
const maxNodes = 64

// node gives the books of a host. What names none is of the first: with the audit daemon's log, which names it, comes the journal of the same host.
func (r *Reader) node(name string) *serials {
	at := slices.IndexFunc(r.nodes, func(s *serials) bool { return s.node == name || name == "" || s.node == "" })
	switch {
	case at >= 0:
	case len(r.nodes) >= maxNodes:
		return r.nodes[maxNodes-1]
	default:
		at = len(r.nodes)
		r.nodes = append(r.nodes, &serials{number: at, seen: make([]seenEvent, window)})
	}
	if s := r.nodes[at]; s.node == "" {
		s.node = strings.Clone(name)
	}
	return r.nodes[at]
}

// follow notices gaps and boots.
func (r *Reader) follow(record *Record, s *serials) {
	switch {
	case s.high == 0:
		r.start(record, s)
	case record.Boot != "" && s.boot != "" && record.Boot != s.boot && record.Serial < s.high,
		record.Serial+window < s.high,
		record.Serial < s.high && record.Time.Sub(s.highTime) > rebootDistance:
		r.stats.Missing += s.missing()
		r.start(record, s)
	case record.Serial > s.high:
		if gap := record.Serial - s.high - 1; gap > r.stats.LargestGap {
			r.stats.LargestGap, r.stats.GapAt = gap, record.Time
		}
		s.high, s.highTime = record.Serial, record.Time
	case record.Serial < s.first:
		s.first = record.Serial
	}
	if record.Boot != "" {
		s.boot = record.Boot
	}
}

func (r *Reader) start(record *Record, s *serials) {
	r.stats.Boots++
	s.high, s.highTime, s.first, s.distinct = record.Serial, record.Time, record.Serial, 0
	s.boot = record.Boot
}
