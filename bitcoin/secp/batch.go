package secp

// Batch collects Schnorr signatures whose answer can wait, so that an engine may verify them
// together in less time than one by one. It is used by one goroutine. The zero value is ready,
// without salt.
type Batch struct {
	// Salt goes into the coefficients beside a hash of all signatures. A node draws it at random
	// once; with a zero one the coefficients are still as BIP 340 has them, but can be foreseen.
	Salt [32]byte

	items []SchnorrSignature
	tags  []int
}

// Add puts a signature into the batch under a tag by which the caller knows it again.
func (b *Batch) Add(tag int, key, message *[32]byte, sig *[64]byte) {
	b.items = append(b.items, SchnorrSignature{Key: *key, Message: *message, Signature: *sig})
	b.tags = append(b.tags, tag)
}

// Len returns the number of signatures in the batch.
func (b *Batch) Len() int { return len(b.items) }

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() { b.items, b.tags = b.items[:0], b.tags[:0] }

// Verify reports whether every signature of the batch is valid. If not, the tag is that of the
// first one that is not: a failed batch is verified again one by one.
func (b *Batch) Verify(e Engine) (tag int, ok bool) {
	if len(b.items) == 0 || len(b.items) > 1 && e.VerifySchnorrBatch(b.items, &b.Salt) {
		return 0, true
	}
	for i := range b.items {
		s := &b.items[i]
		if !e.VerifySchnorr(&s.Key, s.Message[:], &s.Signature) {
			return b.tags[i], false
		}
	}
	return 0, true
}
