package consensus

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
)

// judge runs all rules on a block as the successor of a chain's tip.
func judge(g *generator, b *bitcoin.Block) error {
	s := g.node.tip().state
	if err := CheckHeader(s, &b.Header, b.Hash(), g.now); err != nil {
		return err
	}
	c, err := NewCandidate(g.net, b, 0)
	if err != nil {
		return err
	}
	if err := CheckBlockAt(s, b); err != nil {
		return err
	}
	next, diff, err := Connect(s, c, g)
	if err != nil {
		return err
	}
	if next.Hash != b.Hash() {
		return errors.New("the next State is of another block")
	}
	return RunChecks(context.Background(), 1, diff.Checks())
}

// FuzzMutatedBlock changes octets of a valid block and mines it again, with or without the right
// Merkle root. No rule may panic, and as long as the header is kept nothing but the block itself
// may pass.
func FuzzMutatedBlock(f *testing.F) {
	g := newMature(f, bitcoin.Regtest(), 4)
	valid := g.next("valid", validBlock).block
	if err := judge(g, valid); err != nil {
		f.Fatal(err)
	}
	raw := valid.Append(nil)
	f.Add([]byte{}, false)
	f.Add([]byte{0, 81, 1}, true)
	f.Add([]byte{0, 200, 0xff, 1, 44, 7}, true)
	f.Add([]byte{2, 0, 255, 0, 4, 1}, false)
	f.Fuzz(func(t *testing.T, edits []byte, mine bool) {
		changed := bytes.Clone(raw)
		for ; len(edits) >= 3; edits = edits[3:] { // position in two octets, and what to add there
			changed[(int(edits[0])<<8|int(edits[1]))%len(changed)] += edits[2]
		}
		b, err := bitcoin.ParseBlock(changed)
		if err != nil {
			return
		}
		if mine {
			b = b.Clone()
			if len(b.Txs) > 0 {
				b.Header.MerkleRoot, _ = b.MerkleRoot()
			}
			if b.Header.Bits != valid.Header.Bits {
				return
			}
			solve(g.net, &b.Header)
			b = parseBlock(t, b.Append(nil))
		}
		err = judge(g, b)
		if same := bytes.Equal(b.Append(nil), raw); same && err != nil {
			t.Fatalf("the valid block: %v", err)
		} else if !same && b.Header == valid.Header && err == nil {
			t.Fatal("another block with the same header passes")
		}
		IsMutated(b, true)
	})
}

// FuzzSignetCommitment cuts solutions out of any script.
func FuzzSignetCommitment(f *testing.F) {
	f.Add([]byte{0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed})
	f.Add(append(append([]byte{0x6a, 6}, signetHeader...), 0, 0))
	f.Fuzz(func(t *testing.T, commitment []byte) {
		stripped, data, found := cutSolution(commitment)
		if !found && data != nil || found && len(data) == 0 {
			t.Fatalf("found is %v, solution %x", found, data)
		}
		again, _, twice := cutSolution(stripped)
		if found && !twice && !bytes.Equal(again, stripped) {
			t.Fatalf("%x becomes %x, then %x", commitment, stripped, again)
		}
		var in bitcoin.TxIn
		if readSolution(&in, data) == nil && len(data) > 0 {
			if got := solution(in.Script, in.Witness...); !bytes.Equal(got, data) {
				t.Fatalf("solution %x reads as %x", data, got)
			}
		}
	})
}
