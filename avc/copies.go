package avc

import (
	"hash/maphash"
	"slices"
	"strings"
	"time"
)

// The kernel's log has no room for a long record: what prints it cuts it off, at 976 to 1,024 bytes with "audit: type=1400 audit(...): " before it
// (LOG_LINE_MAX in kernel/printk/printk.c, PRINTKRB_RECORD_MAX in newer kernels). The audit daemon and journald get the same record whole. This file
// knows the copies of one record for such.

const (
	// compared is how much of a record tells it from others, whether it was cut off or not.
	compared = 800
	// cutFrom is what is left at least of the text of a record that was cut off.
	cutFrom = 900
)

// seenEvent remembers the records of one event.
type seenEvent struct {
	id      eventID
	records []seenRecord
}

// seenRecord counts how often each origin gave a record: one that the same origin gives twice was written twice.
type seenRecord struct {
	hash  uint64
	count [OriginKernel + 1]uint16
	max   uint16
	cut   uint16 // copies that were cut off, and of which nothing could be made
}

// denies tells whether a record is one of those of which denials are made.
func (r *Record) denies() bool {
	switch r.Type {
	case TypeAVC, TypeUserAVC, TypeSELinuxErr, TypeUserSELinuxErr:
		return true
	}
	return false
}

// mayBeCut tells whether a record is as long as one that the kernel's log cut off.
func (r *Record) mayBeCut() bool { return r.Origin == OriginKernel && len(r.Text) >= cutFrom }

// endsIn tells whether the last word of a text is this field: in a record that may be cut off nobody knows whether it is all of the value.
func endsIn(text, key, value string) bool { return strings.HasSuffix(text, " "+key+"="+value) }

// first tells whether a record is not the copy of one that came before by another transport, and keeps the books of serial
// numbers. What is known of its copies is valid until the next call; nil if that is too much to remember.
func (r *Reader) first(record *Record, id eventID, node *serials) (copies *seenRecord, fresh bool) {
	r.follow(record, node)
	slot := &node.seen[id.serial%window]
	if slot.id != id {
		slot.id, slot.records = id, slot.records[:0]
		node.distinct++
	}
	hash := r.hash(record)
	for i := range slot.records {
		s := &slot.records[i]
		if s.hash != hash {
			continue
		}
		s.count[record.Origin]++
		if s.count[record.Origin] > s.max {
			s.max = s.count[record.Origin]
			return s, true
		}
		return s, false
	}
	if len(slot.records) >= perEvent {
		return nil, true
	}
	s := seenRecord{hash: hash, max: 1}
	s.count[record.Origin] = 1
	slot.records = append(slot.records, s)
	return &slot.records[len(slot.records)-1], true
}

// hash tells a record from others, whatever is cut off or added behind it.
func (r *Reader) hash(record *Record) uint64 {
	text := record.Text
	if len(text) > compared {
		text = text[:compared]
	} else {
		text = strings.TrimRight(raw(text), " \t"+behind)
	}
	return maphash.String(r.seed, text) ^ uint64(record.Type)
}

// twins are the records of one text, among them such as journalctl prints without time and serial number beside the kernel's own that have them.
type twins struct {
	hash    uint64
	stamped []eventID // which no other record was taken for a copy of
	bare    []eventID // the same, of those without a serial number
}

// twinDistance is how far apart the times of two copies can be. journald stamps what it gets when it gets it.
const twinDistance = time.Minute

// stampedRecord is a record with a serial number, kept for when the first comes that has none. Most logs have no such record.
type stampedRecord struct {
	hash uint64
	id   eventID
}

// unnumbered makes the books of twins, of the records that came up to now.
func (r *Reader) unnumbered() {
	if r.alike != nil {
		return
	}
	r.alike = make([]twins, window)
	for i := range r.recent {
		s := r.recent[(r.oldest+i)%len(r.recent)]
		if t := r.twins(s.hash); len(t.stamped) < perEvent {
			t.stamped = append(t.stamped, s.id)
		}
	}
	r.recent = nil
}

func (r *Reader) twins(hash uint64) *twins {
	t := &r.alike[hash%window]
	if t.hash != hash {
		t.hash, t.stamped, t.bare = hash, t.stamped[:0], t.bare[:0]
	}
	return t
}

// stamped gives a record without a serial number that of its copy, if there is one. It is the copy by a way of its own.
func (r *Reader) stamped(record *Record) {
	r.unnumbered()
	record.Origin = OriginUnknown
	t := r.twins(r.hash(record))
	at := slices.IndexFunc(t.stamped, func(id eventID) bool {
		return record.Time.IsZero() || record.Time.Sub(time.UnixMilli(id.millis)).Abs() <= twinDistance
	})
	if at >= 0 {
		record.Serial, record.Time, record.Node = t.stamped[at].serial, time.UnixMilli(t.stamped[at].millis), r.nodes[t.stamped[at].node].node
		t.stamped = slices.Delete(t.stamped, at, at+1)
	}
}

// bare remembers a record without a serial number, and gives a name for it in place of one.
func (r *Reader) bare(record *Record) eventID {
	r.unnamed++
	id := eventID{millis: r.unnamed}
	if t := r.twins(r.hash(record)); len(t.bare) < perEvent {
		t.bare = append(t.bare, id)
	}
	return id
}

// stamps tells whether a record is the copy of one that came without a serial number. What was made of that gets the time and the number, if it is still
// here, and what else belongs to the event.
func (r *Reader) stamps(record *Record, copies *seenRecord, id eventID) bool {
	if copies == nil {
		return false
	}
	if r.alike == nil {
		if s := (stampedRecord{copies.hash, id}); len(r.recent) < window {
			r.recent = append(r.recent, s)
		} else {
			r.recent[r.oldest] = s
			r.oldest = (r.oldest + 1) % window
		}
		return false
	}
	t := r.twins(copies.hash)
	at := slices.IndexFunc(t.bare, func(bare eventID) bool {
		e := r.pending[bare]
		return e == nil || e.denials[0].Time.IsZero() || e.denials[0].Time.Sub(record.Time).Abs() <= twinDistance
	})
	if at >= 0 {
		e := r.pending[t.bare[at]]
		t.bare = slices.Delete(t.bare, at, at+1)
		if e == nil {
			return true // it was given already
		}
		d := e.denials[0]
		d.Time, d.Serial = record.Time, record.Serial
		if r.pending[id] == nil {
			delete(r.pending, e.id)
			e.id, r.pending[id] = id, e
			r.addEarly(d, e)
		}
		return true
	}
	if len(t.stamped) < perEvent {
		t.stamped = append(t.stamped, id)
	}
	return false
}

// completes tells whether a record that came before was cut off, and this copy of it is to be read all the same. What was made of the other one gets
// what it lacks.
func (r *Reader) completes(record *Record, copies *seenRecord, id eventID) bool {
	if copies == nil || record.mayBeCut() {
		return false
	}
	e := r.pending[id]
	if copies.cut > 0 {
		copies.cut--
		if e != nil && len(e.unread) > 0 {
			e.unread = e.unread[:len(e.unread)-1]
		} else if r.stats.Malformed--; r.stats.Malformed == 0 { // the event was finished
			r.stats.Unread = ""
		}
		return true
	}
	if e == nil {
		return false
	}
	for _, d := range e.denials {
		if d.copies != copies.hash {
			continue
		}
		whole := r.denial()
		if d.copies = 0; whole.parse(record) {
			d.complete(whole)
		}
		r.free = append(r.free, whole)
		return false
	}
	return false
}

// unreadable counts a record of which no denial could be made, if it looks like one. One that was cut off counts when no other copy has come.
func (r *Reader) unreadable(record *Record, copies *seenRecord, id eventID) {
	decided := strings.Contains(record.Text, "avc:") && (strings.Contains(record.Text, "denied") || strings.Contains(record.Text, "granted"))
	switch {
	case !decided && record.Type != TypeSELinuxErr:
	case strings.Contains(record.Text, "unrecognized netlink message"): // no access: older kernels wrote of one here (selinux_nlmsg_perm in security/selinux/hooks.c)
	case record.mayBeCut() && copies != nil:
		copies.cut++
		if e := r.eventOf(id); len(e.unread) < perEvent {
			e.unread = append(e.unread, record.Text)
		} else {
			r.stats.unread(record.Text)
		}
		r.makeRoom()
	default:
		r.stats.unread(record.Text)
	}
}

// complete adds what stands behind the class, where a copy of the record was cut off.
func (d *Denial) complete(whole *Denial) {
	if whole.Enforced != EnforcedUnknown {
		d.Enforced = whole.Enforced
	}
	for _, f := range whole.Extra {
		if d.Field(f.Key) == "" {
			d.Extra = append(d.Extra, f)
		}
	}
}
