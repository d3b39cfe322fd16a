package mountwatch

import "time"

// Kind says what an Event tells of.
type Kind string

// The kinds of events.
const (
	VolumeLabelled Kind = "labelled"        // a volume has its label, which was read back
	VolumeTaken    Kind = "taken-over"      // a volume has the label of a container, and is left to it
	VolumeRefused  Kind = "refused"         // a volume stays as it is, or a try failed: see Volume.Code
	VolumeLost     Kind = "lost"            // a file system was unmounted and could not be mounted again
	Remounted      Kind = "remounted"       // a volume was mounted again with its label
	Recovered      Kind = "recovered"       // what an earlier run had unmounted is mounted again
	RelabelStarted Kind = "relabel-started" // the files of a volume are being labelled
	RelabelDone    Kind = "relabel-done"    // all of them are, with the counts in Volume.Files
	NotShared      Kind = "not-shared"      // a volume for all containers whose new files will belong to one of them
	Declared       Kind = "declared"        // systemd's mount units got the options that the rules ask for
	NotDeclared    Kind = "not-declared"    // a mount unit that a rule is meant for got none, see Text
	Watching       Kind = "watching"        // the watcher begins, see Text for how it sees mounts on this kernel
	ConfigRead     Kind = "config-read"     // the configuration was read again
	ConfigBad      Kind = "config-bad"      // it is wrong, and the one before counts
	CannotRemember Kind = "cannot-remember" // what was done could not be written down
)

// Event is something that an operator may want to know.
type Event struct {
	Kind   Kind
	Volume Volume
	Took   time.Duration
	Text   string
	Err    error
}
