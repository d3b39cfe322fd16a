package provision

import (
	"slices"
	"strings"
)

// An entry of readiness.accept is the ID of a finding, or ID:PERMISSION,PERMISSION.

func checkFinding(entry string) (problem, remedy string) {
	if id, permissions, limited := cutAccepted(entry); isFinding(id) && (!limited || !slices.ContainsFunc(permissions, invalidPermission)) {
		return "", ""
	}
	return "cannot use " + quote(entry) + " as the ID of a finding",
		`write one of the IDs that "selinux-provision denials" shows, such as 0a1b2c, or with the permissions that may be denied, such as "0a1b2c:read,open" in quotes`
}

// cutAccepted takes an entry of readiness.accept apart. limited says that it has permissions.
func cutAccepted(entry string) (id string, permissions []string, limited bool) {
	id, list, limited := strings.Cut(entry, ":")
	return id, strings.Split(list, ","), limited
}

func invalidPermission(name string) bool {
	return name == "" || len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' })
}

// Accepts tells whether entries of readiness.accept have all that was denied in a finding. An entry is an ID, for whatever is denied, or
// ID:PERMISSION,PERMISSION for these alone; those of one ID add up.
func Accepts(entries []string, id string, denied []string) bool {
	var accepted []string
	found := false
	for _, entry := range entries {
		of, permissions, limited := cutAccepted(entry)
		if of != id {
			continue
		}
		if !limited {
			return true
		}
		found, accepted = true, append(accepted, permissions...)
	}
	return found && !slices.ContainsFunc(denied, func(permission string) bool { return !slices.Contains(accepted, permission) })
}

// Acceptance gives the entry of readiness.accept that has what was denied in a finding, and no more.
func Acceptance(id string, denied []string) string {
	if len(denied) == 0 || slices.ContainsFunc(denied, invalidPermission) {
		return id
	}
	return id + ":" + strings.Join(denied, ",")
}
