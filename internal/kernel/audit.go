package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// AuditStatus is what the kernel says of its audit system (struct audit_status in include/uapi/linux/audit.h).
type AuditStatus struct {
	// Enabled: 0 no records are made, 1 they are, 2 they are and nobody may change that.
	Enabled uint32
	// Lost counts the records that the kernel dropped since the boot, because nobody took them or the rate limit was reached. It
	// can be set back by whoever may change the audit system.
	Lost uint32
}

const (
	auditGet      = 1000 // AUDIT_GET
	auditReply    = 2 * time.Second
	netlinkHeader = 16
	// The fields of struct audit_status up to lost: mask, enabled, failure, pid, rate_limit, backlog_limit, lost.
	auditEnabledAt, auditLostAt = 4, 24
)

// ErrNoAudit says that the kernel has no audit system, or that audit=0 on its command line switched it off for good: no denial is
// logged then. That it is not enabled (AuditStatus.Enabled) is no such thing: denials are logged all the same.
var ErrNoAudit = errors.New("the kernel's audit system is off")

// Audit asks the kernel for the state of its audit system. It needs CAP_AUDIT_CONTROL and the initial user and pid namespaces.
func Audit() (AuditStatus, error) {
	status, err := askAudit()
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return AuditStatus{}, fmt.Errorf("%w: %w", ErrNoAudit, err)
	}
	if err != nil {
		return AuditStatus{}, fmt.Errorf("cannot ask the kernel for the state of its audit system: %w", err)
	}
	return status, nil
}

func askAudit() (AuditStatus, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_AUDIT)
	if err != nil {
		return AuditStatus{}, err
	}
	defer unix.Close(fd)
	wait := unix.NsecToTimeval(auditReply.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return AuditStatus{}, err
	}
	request := make([]byte, netlinkHeader)
	binary.NativeEndian.PutUint32(request, netlinkHeader)
	binary.NativeEndian.PutUint16(request[4:], auditGet)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(request[8:], 1)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return AuditStatus{}, err
	}
	buf := make([]byte, 8<<10)
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return AuditStatus{}, fmt.Errorf("no answer within %s", auditReply)
		case err != nil:
			return AuditStatus{}, err
		}
		if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
			continue // not the kernel
		}
		if status, done, err := parseAudit(buf[:n]); done || err != nil {
			return status, err
		}
	}
}

// parseAudit takes one datagram; done is false if the answer is not in it.
func parseAudit(message []byte) (status AuditStatus, done bool, err error) {
	if len(message) < netlinkHeader {
		return status, false, errors.New("its answer is cut off")
	}
	body := message[netlinkHeader:]
	switch binary.NativeEndian.Uint16(message[4:]) {
	case unix.NLMSG_ERROR:
		if len(body) < 4 {
			return status, false, errors.New("its answer is cut off")
		}
		if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
			return status, false, unix.Errno(-code)
		}
		return status, false, nil
	case auditGet:
		if len(body) < auditLostAt+4 {
			return status, false, errors.New("its answer is cut off")
		}
		return AuditStatus{Enabled: binary.NativeEndian.Uint32(body[auditEnabledAt:]), Lost: binary.NativeEndian.Uint32(body[auditLostAt:])}, true, nil
	}
	return status, false, nil
}
