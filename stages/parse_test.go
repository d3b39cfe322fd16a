package stages

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func TestHidingRules(t *testing.T) {
	for rule, hides := range map[string]bool{
		"No rules": false,
		"-a never,exclude -F msgtype>=AVC -F msgtype<=1499":  true,
		"-a never,exclude -F msgtype>=1400 -F msgtype<=1499": true,
		"-a always,exclude -F msgtype=CONFIG_CHANGE":         false,
		"-a exclude,always -F msgtype>0":                     true,
		"-a always,exclude -F msgtype!=USER_LOGIN":           true,
		"-a always,exclude -F msgtype<1400":                  false,
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

func policyHead(magic uint32, name string, version uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, magic)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(name)))
	return binary.LittleEndian.AppendUint32(append(b, name...), version)
}

func TestPolicyVersion(t *testing.T) {
	if version, err := policyVersion(bytes.NewReader(policyHead(policyMagic, "SE Linux", 34))); err != nil || version != 34 {
		t.Errorf("%d, %v", version, err)
	}
	for name, content := range map[string][]byte{
		"empty": nil, "cut off": policyHead(policyMagic, "SE Linux", 34)[:12], "something else": policyHead(1, "SE Linux", 34),
		"a name without end": binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, policyMagic), 1<<31),
	} {
		if version, err := policyVersion(bytes.NewReader(content)); err == nil {
			t.Errorf("%s: version %d", name, version)
		}
	}
}

func FuzzPolicyVersion(f *testing.F) {
	f.Add(policyHead(policyMagic, "SE Linux", 34))
	f.Fuzz(func(_ *testing.T, content []byte) { _, _ = policyVersion(bytes.NewReader(content)) })
}
