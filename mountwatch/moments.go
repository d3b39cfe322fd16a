package mountwatch

import "time"

// saveShare is how much of the time writing the record may take at most: one part in so many.
const saveShare = 20

// pace says when the record is written. With thousands of volumes it is long, and one event follows the other: it is written at once, but
// not so often that more than one part in saveShare of the time goes into that.
type pace struct{ next time.Time }

// wait returns how long to put the writing off, 0 if it may be done now.
func (p *pace) wait(now time.Time) time.Duration { return max(0, p.next.Sub(now)) }

// wrote notes how long the writing took.
func (p *pace) wrote(begin, end time.Time) { p.next = end.Add(saveShare * end.Sub(begin)) }

// readyPatience is how long the start of the service waits for mounts that are being made again, so that containers find them ready.
const readyPatience = 30 * time.Second

// start says when the service is ready: when everything that is mounted has its verdict, and what is made again for it is done, or has
// taken readyPatience. A mount whose server does not answer must not keep the boot waiting.
type start struct {
	ready   bool // READY was said
	waiting bool // the patience counts
	late    bool // and is at its end
}

// waits reports whether the patience begins to count: at the first mount that is made again, for others must not prolong it.
func (s *start) waits(remounting bool) bool {
	begins := remounting && !s.ready && !s.waiting
	s.waiting = s.waiting || begins
	return begins
}

// arrives reports whether READY is to be said now, once.
func (s *start) arrives(remounting bool) bool {
	if s.ready || remounting && !s.late {
		return false
	}
	s.ready = true
	return true
}

// After restAfter mounts that came or went, the watcher rests when nothing came for restDelay.
const (
	restAfter = 256
	restDelay = 3 * time.Second
)

// lull says when to give back what many events took for a moment.
type lull struct{ many int }

// saw notes mounts that came or went, and reports whether the delay begins to count anew.
func (l *lull) saw(mounts int) bool {
	l.many += mounts
	return l.many >= restAfter
}

// rests reports whether this is the moment, at the end of the delay. Before READY it is not: what the last run left is still asked for. Nor is it while
// the record is still to be written, which takes memory once more.
func (l *lull) rests(ready, writes bool) bool {
	now := ready && !writes
	if now {
		l.many = 0
	}
	return now
}
