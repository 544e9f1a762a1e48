package script

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
)

// SigCache remembers signatures that were valid, so that a block need not check again what the
// mempool checked (Bitcoin Core script/sigcache.cpp). Its entries are salted hashes: whoever does
// not know the salt cannot make two of them meet. When it is full, new entries displace old ones.
// Many goroutines may use it.
type SigCache struct {
	salt    [32]byte
	buckets uint64 // of each shard
	shards  [cacheShards]cacheShard
}

const (
	cacheShards = 64
	cacheWays   = 4 // entries of a bucket; the oldest makes room
)

// cacheShard is a part of the cache; mu guards its entries.
type cacheShard struct {
	mu      sync.Mutex
	buckets [][cacheWays][32]byte // nil until there is an entry
}

// NewSigCache returns a cache that takes about the given memory, once it is used. The salt is 32 random
// octets.
func NewSigCache(bytes int, salt [32]byte) *SigCache {
	return &SigCache{salt: salt, buckets: uint64(max(1, bytes/(cacheShards*cacheWays*32)))}
}

func (c *SigCache) hasECDSA(digest *[32]byte, key []byte, rs *[64]byte) bool {
	id := c.id('E', digest, key, rs)
	return c.has(&id)
}

func (c *SigCache) addECDSA(digest *[32]byte, key []byte, rs *[64]byte) {
	id := c.id('E', digest, key, rs)
	c.add(&id)
}

func (c *SigCache) hasSchnorr(digest, key *[32]byte, sig *[64]byte) bool {
	id := c.id('S', digest, key[:], sig)
	return c.has(&id)
}

func (c *SigCache) addSchnorr(digest, key *[32]byte, sig *[64]byte) {
	id := c.id('S', digest, key[:], sig)
	c.add(&id)
}

// id hashes what makes a signature valid. kind keeps the two kinds apart; only the key varies in
// length, and it comes last.
func (c *SigCache) id(kind byte, digest *[32]byte, key []byte, sig *[64]byte) [32]byte {
	var buf [32 + 1 + 32 + 64 + 65]byte
	n := copy(buf[:], c.salt[:])
	buf[n] = kind
	n++
	n += copy(buf[n:], digest[:])
	n += copy(buf[n:], sig[:])
	n += copy(buf[n:], key)
	return sha256.Sum256(buf[:n])
}

func (c *SigCache) bucket(id *[32]byte) (*cacheShard, uint64) {
	s := &c.shards[id[0]%cacheShards]
	return s, binary.LittleEndian.Uint64(id[8:]) % c.buckets
}

func (c *SigCache) has(id *[32]byte) bool {
	s, i := c.bucket(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buckets == nil {
		return false
	}
	for way := range s.buckets[i] {
		if s.buckets[i][way] == *id {
			return true
		}
	}
	return false
}

func (c *SigCache) add(id *[32]byte) {
	s, i := c.bucket(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buckets == nil {
		s.buckets = make([][cacheWays][32]byte, c.buckets)
	}
	b := &s.buckets[i]
	copy(b[1:], b[:cacheWays-1])
	b[0] = *id
}
