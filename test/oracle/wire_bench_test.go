package oracle

import (
	"bytes"
	"testing"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/internal/vectors"
)

// BenchmarkParseBlock413567 reads the block that Core's benchmark reads, with all txids and wtxids,
// which our parser computes and btcd is asked for.
func BenchmarkParseBlock413567(b *testing.B) {
	raw := vectors.Read(b, "bitcoin/blocks/0413567.bin")
	parsers := map[string]func() error{
		"tallypost": func() error { _, err := bitcoin.ParseBlock(raw); return err },
		"btcd":      func() error { _, err := btcdParse(raw); return err },
		"btcd-only-parse": func() error {
			return new(wire.MsgBlock).Deserialize(bytes.NewReader(raw))
		},
	}
	for _, name := range []string{"tallypost", "btcd", "btcd-only-parse"} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				if err := parsers[name](); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"-all-cores", func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := parsers[name](); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// btcdParse reads a block with btcd and has the txids computed, as its blockchain package does
// before anything else.
func btcdParse(raw []byte) ([]*btcutil.Tx, error) {
	var block wire.MsgBlock
	if err := block.Deserialize(bytes.NewReader(raw)); err != nil {
		return nil, err
	}
	txs := make([]*btcutil.Tx, len(block.Transactions))
	for i, tx := range block.Transactions {
		txs[i] = btcutil.NewTx(tx)
		txs[i].Hash()
	}
	return txs, nil
}

// BenchmarkMerkleRoot413567 computes the root from txids that are known.
func BenchmarkMerkleRoot413567(b *testing.B) {
	raw := vectors.Read(b, "bitcoin/blocks/0413567.bin")
	block, err := bitcoin.ParseBlock(raw)
	if err != nil {
		b.Fatal(err)
	}
	theirs, err := btcdParse(raw)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("tallypost", func(b *testing.B) {
		for b.Loop() {
			if root, _ := block.MerkleRoot(); root != block.Header.MerkleRoot {
				b.Fatal("wrong root")
			}
		}
	})
	b.Run("btcd", func(b *testing.B) {
		for b.Loop() {
			if bitcoin.Hash(blockchain.CalcMerkleRoot(theirs, false)) != block.Header.MerkleRoot {
				b.Fatal("wrong root")
			}
		}
	})
}

// BenchmarkParseAndMerkle413567 is the two together: what a node does first with a block.
func BenchmarkParseAndMerkle413567(b *testing.B) {
	raw := vectors.Read(b, "bitcoin/blocks/0413567.bin")
	b.Run("tallypost", func(b *testing.B) {
		b.SetBytes(int64(len(raw)))
		for b.Loop() {
			block, err := bitcoin.ParseBlock(raw)
			if err != nil {
				b.Fatal(err)
			}
			if root, _ := block.MerkleRoot(); root != block.Header.MerkleRoot {
				b.Fatal("wrong root")
			}
		}
	})
	b.Run("btcd", func(b *testing.B) {
		b.SetBytes(int64(len(raw)))
		for b.Loop() {
			txs, err := btcdParse(raw)
			if err != nil {
				b.Fatal(err)
			}
			blockchain.CalcMerkleRoot(txs, false)
		}
	})
}
