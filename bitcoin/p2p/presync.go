package p2p

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// presync takes the headers of a chain from a peer twice, so that none is kept before the chain is known to
// have enough work: the first time it remembers a bit of some of them, the second time it holds those bits
// against what comes and lets through what has enough of them behind it. The memory it takes is bounded
// whatever the peer sends (Bitcoin Core headerssync.cpp).
//
//	presync: work adds up, a bit for every period-th header
//	   -> enough work -> redownload: the same headers again, checked against the bits, then released
//
// It is owned by its peer's goroutine.
type presync struct {
	net      *bitcoin.Network
	start    chainStart
	minWork  bitcoin.Uint256
	offset   int // which headers leave a bit: height modulo the period
	key      [2]uint64
	maxBits  int
	again    bool // in the second phase
	finished bool

	bits     bitQueue
	last     bitcoin.Header // the last one of the first phase
	lastHash bitcoin.Hash
	height   bitcoin.Height
	work     bitcoin.Uint256

	buffer       []bitcoin.Header // of the second phase, not yet released
	bufferLast   bitcoin.Hash
	bufferBits   uint32
	bufferHeight bitcoin.Height
	bufferWork   bitcoin.Uint256
	releaseAll   bool
}

// chainStart is the known block that the headers follow.
type chainStart struct {
	hash   bitcoin.Hash
	height bitcoin.Height
	work   bitcoin.Uint256
	bits   uint32
	median uint32
}

// The ways in which a presync fails: the peer is sent away, or just not asked for more.
var (
	errPresyncBroken = errors.New("headers do not follow one another")
	errPresyncTarget = errors.New("invalid difficulty transition")
	errPresyncLong   = errors.New("exceeded max commitments")
	errPresyncOther  = errors.New("commitment mismatch")
)

func newPresync(net *bitcoin.Network, start chainStart, minWork bitcoin.Uint256,
	now time.Time) *presync {
	period := net.HeadersSync.CommitmentPeriod
	// By the median time rule a chain can have six blocks a second since its start, and not more.
	seconds := now.Unix() - int64(start.median) + int64(consensus.MaxFutureTime/time.Second)
	return &presync{
		net: net, start: start, minWork: minWork,
		offset:   rand.IntN(period),
		key:      [2]uint64{rand.Uint64(), rand.Uint64()},
		maxBits:  int(6 * max(seconds, 0) / int64(period)),
		last:     bitcoin.Header{Bits: start.bits},
		lastHash: start.hash, height: start.height, work: start.work,
	}
}

// locatorHash is where the next headers must begin.
func (p *presync) locatorHash() bitcoin.Hash {
	if p.again {
		return p.bufferLast
	}
	return p.lastHash
}

// add takes the next headers, whose proof of work has been checked, and returns those that may be kept and
// whether more should be asked for. Without an error and without more the presync has ended. full says
// that the message had as many headers as fit, so that there are likely more.
func (p *presync) add(headers []bitcoin.Header, full bool) (release []bitcoin.Header, more bool, err error) {
	if p.finished || len(headers) == 0 {
		return nil, false, nil
	}
	if p.again {
		release, more, err = p.redownload(headers, full)
	} else {
		more, err = p.first(headers, full)
	}
	p.finished = err != nil || !more
	return release, more, err
}

func (p *presync) first(headers []bitcoin.Header, full bool) (more bool, err error) {
	if headers[0].PrevBlock != p.lastHash {
		return false, errPresyncBroken
	}
	for i := range headers {
		h := &headers[i]
		next := p.height + 1
		if !consensus.PermittedTransition(p.net, next, p.last.Bits, h.Bits) {
			return false, errPresyncTarget
		}
		hash := h.Hash()
		if int(next)%p.net.HeadersSync.CommitmentPeriod == p.offset {
			p.bits.push(p.bit(&hash))
			if p.bits.len() > p.maxBits {
				return false, errPresyncLong
			}
		}
		p.work = p.work.Add(bitcoin.Work(h.Bits))
		p.last, p.lastHash, p.height = *h, hash, next
	}
	if p.work.Cmp(p.minWork) >= 0 {
		p.again = true
		p.bufferLast, p.bufferBits = p.start.hash, p.start.bits
		p.bufferHeight, p.bufferWork = p.start.height, p.start.work
		return true, nil
	}
	return full, nil
}

func (p *presync) bit(h *bitcoin.Hash) bool { return h.SipHash(p.key[0], p.key[1])&1 == 1 }

func (p *presync) redownload(headers []bitcoin.Header, full bool) ([]bitcoin.Header, bool, error) {
	for i := range headers {
		h := &headers[i]
		next := p.bufferHeight + 1
		if h.PrevBlock != p.bufferLast {
			return nil, false, errPresyncBroken
		}
		if !consensus.PermittedTransition(p.net, next, p.bufferBits, h.Bits) {
			return nil, false, errPresyncTarget
		}
		hash := h.Hash()
		p.bufferWork = p.bufferWork.Add(bitcoin.Work(h.Bits))
		if p.bufferWork.Cmp(p.minWork) >= 0 {
			p.releaseAll = true
		}
		// Behind the point of enough work there may be headers that left no bit.
		if !p.releaseAll && int(next)%p.net.HeadersSync.CommitmentPeriod == p.offset {
			want, ok := p.bits.pop()
			if !ok || want != p.bit(&hash) {
				return nil, false, errPresyncOther
			}
		}
		p.buffer = append(p.buffer, *h)
		p.bufferLast, p.bufferBits, p.bufferHeight = hash, h.Bits, next
	}
	n := max(0, len(p.buffer)-p.net.HeadersSync.RedownloadBuffer)
	if p.releaseAll {
		n = len(p.buffer)
	}
	release := append([]bitcoin.Header(nil), p.buffer[:n]...)
	p.buffer = append(p.buffer[:0], p.buffer[n:]...)
	return release, full && !p.releaseAll, nil
}

// bitQueue is a queue of bits.
type bitQueue struct {
	words []uint64
	head  int
	n     int
}

func (q *bitQueue) len() int { return q.n - q.head }

func (q *bitQueue) push(bit bool) {
	if q.n%64 == 0 {
		q.words = append(q.words, 0)
	}
	if bit {
		q.words[q.n/64] |= 1 << (q.n % 64)
	}
	q.n++
}

func (q *bitQueue) pop() (bit, ok bool) {
	if q.head == q.n {
		return false, false
	}
	bit = q.words[q.head/64]>>(q.head%64)&1 == 1
	q.head++
	return bit, true
}
