package stages

import (
	"testing"
)

func TestHidingRules(t *testing.T) {
	t.Parallel()
	for rule, hides := range map[string]bool{
		"No rules": false,
		"-a never,exclude -F msgtype>=AVC -F msgtype<=1499":  true,
		"-a never,exclude -F msgtype>=1400 -F msgtype<=1499": true,
		"-a always,exclude -F msgtype=CONFIG_CHANGE":         false,
		"-a exclude,always -F msgtype>0":                     true,
		"-a always,exclude -F msgtype!=USER_LOGIN":           true,
		"-a always,exclude -F msgtype<1400":                  false,
		"-a always,exclude -F msgtype!=AVC":                  false, // everything but denials
		"-a always,exclude -F msgtype!=1400":                 false,
		"-a always,exclude":                                  true,
		"-w /etc/passwd -p wa -k site":                       false,
		"-a always,exit -S execve -F msgtype=AVC":            false,
		"-D": false,
	} {
		if got := len(hidingRules(rule+"\n")) > 0; got != hides {
			t.Errorf("%s: %t, want %t", rule, got, hides)
		}
	}
}

func FuzzHidingRules(f *testing.F) {
	f.Add("-a never,exclude -F msgtype>=AVC -F msgtype<=1499")
	f.Fuzz(func(_ *testing.T, listing string) { hidingRules(listing) })
}
