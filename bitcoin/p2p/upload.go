package p2p

import (
	"sync"
	"time"

	"github.com/tallypost/tallypost/bitcoin/wire"
)

// uploadFrame is the time within which no more than -maxuploadtarget is sent.
const uploadFrame = 24 * time.Hour

// upload counts what was sent within the frame. It may be used by many goroutines.
type upload struct {
	most int64 // octets in a frame; 0: any number

	mu    sync.Mutex // guards what follows
	start time.Time  // zero until something was sent
	sent  int64
}

func (u *upload) add(octets int, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.start.Add(uploadFrame).Before(now) {
		u.start, u.sent = now, 0
	}
	u.sent += int64(octets)
}

// left is the time until the frame ends; with mu held.
func (u *upload) left(now time.Time) time.Duration {
	switch {
	case u.most == 0:
		return 0
	case u.start.IsZero():
		return uploadFrame
	}
	return max(0, u.start.Add(uploadFrame).Sub(now))
}

// reached reports whether no more is to be sent, or nothing old: then enough is kept for the new blocks of
// the rest of the frame (Bitcoin Core net.cpp, OutboundTargetReached).
func (u *upload) reached(old bool, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.isReached(old, now)
}

func (u *upload) isReached(old bool, now time.Time) bool {
	if u.most == 0 {
		return false
	}
	if !old {
		return u.sent >= u.most
	}
	reserve := int64(u.left(now)/(10*time.Minute)) * wire.MaxPayload
	return reserve >= u.most || u.sent >= u.most-reserve
}

// Upload is how much was sent of what may be sent in a day.
type Upload struct {
	Frame      time.Duration
	Target     int64 // octets; 0: any number
	Reached    bool
	ServesOld  bool  // blocks of the past are still sent
	OctetsLeft int64 // in this frame
	TimeLeft   time.Duration
}

// UploadTarget returns how much may still be sent.
func (n *Node) UploadTarget() Upload {
	now, u := n.clock.Now(), &n.upload
	u.mu.Lock()
	defer u.mu.Unlock()
	out := Upload{Frame: uploadFrame, Target: u.most, Reached: u.isReached(false, now),
		ServesOld: !u.isReached(true, now), TimeLeft: u.left(now)}
	if u.most > 0 {
		out.OctetsLeft = max(0, u.most-u.sent)
	}
	return out
}
