package stages

import (
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/selinux-provision/selinux-provision/internal/hostfs"
	"github.com/selinux-provision/selinux-provision/policystore"
)

// StateDir is where selinux-provision remembers what it did. What is declared is elsewhere, below /etc.
const StateDir = "/var/lib/selinux-provision"

// KeptDir holds copies of files that were replaced and may have been the operator's.
const KeptDir = StateDir + "/kept"

const (
	stateFile = StateDir + "/state.json"
	// quarantineDir holds the operator's modules that the policy does not build with.
	quarantineDir = StateDir + "/quarantine"
	// copiesDir holds copies of the operator's modules and files in the policy store.
	copiesDir = StateDir + "/copies"
	// lockDir holds the lock of whoever works on the host.
	lockDir = StateDir + "/locks"
)

// State is what was done to the host. It speeds up the next run and tells the operator's changes from ours; it is never
// believed against what the host shows, and a missing or damaged one costs a rebuild.
type State struct {
	// Version is the format's, 1. A file of another version counts as missing. Written and read by every run.
	Version int `json:"version"`
	// InProgress names the stage that was at work when the file was written, revert among them, or says "cleanup"; a run that ends
	// clears it: see marker. Read by the next run, which removes temporary files, and builds the store anew unless the stage was audit,
	// enforce or cleanup; and by status.
	InProgress string `json:"in_progress,omitempty"`
	// Store is written by the stages policystore and policy; read by them, enforce and status.
	Store policystore.Record `json:"store"`
	// Rules has the text of audit rule files that were neutralised and were not the vendor's. Written and read by audit.
	Rules map[string]string `json:"rules,omitempty"`
	// Guard is the trial of enforcing. Written and read by enforce and by the watch, read by status.
	Guard *Trial `json:"guard,omitempty"`
	// Domains has the trials of enforcing single domains, by the name in the declaration, as long as they are under way, and those that were given up: these
	// domains are permissive. Reported are the domains that were declared permissive when enforce ran last. Written by enforce and by the watch, read by
	// them, policy and status.
	Domains  map[string]*Trial `json:"domains,omitempty"`
	Reported []string          `json:"reported_domains,omitempty"`
	// ModeFile is what was written into /etc/selinux/config. Written by enforce and by the watch, read by enforce.
	ModeFile *ModeFile `json:"mode_file,omitempty"`
	// Cache is what was made of the kernel's cache of decisions. Written and read by policy, read by revert.
	Cache *CacheSetting `json:"avc_cache,omitempty"`
	// Check is the result of the last check of another OS image. Written by check, read by status.
	Check *ImageCheck `json:"check,omitempty"`
}

// LoadState reads the state. Anything that is wrong with the file gives the empty state.
func LoadState(root *hostfs.Root) *State {
	content, err := root.ReadFile(stateFile)
	if err != nil {
		return &State{Version: 1}
	}
	var s State
	if json.Unmarshal(content, &s) != nil || s.Version != 1 {
		return &State{Version: 1}
	}
	return &s
}

// save writes the state after what it says was done.
func (s *State) save(root *hostfs.Root) error {
	if err := s.write(root); err != nil {
		return fmt.Errorf("cannot save the record of what was done: %w", err)
	}
	return nil
}

// begin writes the state before anything of what it says is done.
func (s *State) begin(root *hostfs.Root) error {
	if err := s.write(root); err != nil {
		return fmt.Errorf("cannot begin, so nothing was changed: %w", err)
	}
	return nil
}

// write writes the state if it is not what the file says.
func (s *State) write(root *hostfs.Root) error {
	if reflect.DeepEqual(s, LoadState(root)) && root.Exists(stateFile) {
		return nil
	}
	content, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	return root.WriteFile(stateFile, append(content, '\n'), hostfs.Attributes{Mode: 0o644})
}

// clone copies the state. The maps and lists in it are replaced by the stages, never changed, so they may be shared.
func (s *State) clone() *State {
	c := *s
	return &c
}

// cleaning in place of a stage's name says that everything was done but the removal of what was there before.
const cleaning = "cleanup"

// unclean tells whether a marker says that the policy store may have been left in the middle.
func unclean(inProgress string) bool {
	return inProgress == "policystore" || inProgress == "policy" || inProgress == "revert"
}

// moment is how far a stage is.
type moment int

const (
	begun    moment = iota // before its first step
	done                   // what was there before is still to be removed
	finished               // nothing is left to do
	failed                 // and the host is as it was
	damaged                // it found the store damaged
)

// marker gives the InProgress that follows when a stage comes to a moment. After an unclean one only the policystore stage clears it, since it
// alone builds the store anew.
func marker(old, stage string, at moment) string {
	switch {
	case at == damaged:
		return stage
	case at == failed, unclean(old) && stage != "policystore":
		return old
	}
	return map[moment]string{begun: stage, done: cleaning, finished: ""}[at]
}
