// Package chainfile makes long valid chains on regtest, always the same ones, and keeps them as
// bootstrap files: magic, size, block, from the block after genesis on. It is for benchmarks and
// tests: what is imported is real to every node, and nobody has to download it.
//
//	Scripts   inputs of all common types, to see how fast scripts are run
//	Coins     more coins than fit into a small cache, then spends of old ones in random order
//	Payments  blocks of plain payments on a short chain, to be handed over one by one
//
// Scripts and Coins end in so many empty blocks that those before may be assumed valid.
package chainfile

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/tallypost/tallypost/bitcoin"
)

// File describes a chain in a file.
type File struct {
	Path   string
	Tail   string // Payments: the file with the blocks to be handed over; else empty
	Bytes  int64
	Blocks int // with those of Tail
	Txs    int
	Inputs int    // coinbases apart
	Coins  int    // unspent outputs in the end
	First  string // hash of the block after genesis
	Tip    string
	Assume string // hash of the last block that may be assumed valid; empty where there is none
	Height int    // of Assume
}

// format is part of the names: another one makes all chains anew.
const format = 3

// Scripts makes a chain with so many inputs of all common types.
func Scripts(dir string, inputs int) (*File, error) {
	return cached(dir, fmt.Sprintf("scripts-%d", inputs), func(m *maker) error {
		return m.scripts(inputs)
	})
}

// Coins makes a chain with so many coins, of which so many are spent in the end.
func Coins(dir string, coins, spends int) (*File, error) {
	if spends > coins {
		return nil, fmt.Errorf("%d spends of %d coins", spends, coins)
	}
	return cached(dir, fmt.Sprintf("coins-%d-%d", coins, spends), func(m *maker) error {
		return m.coins(coins, spends)
	})
}

// Payments makes a chain with so many blocks in Tail of so many payments each.
func Payments(dir string, blocks, txs int) (*File, error) {
	return cached(dir, fmt.Sprintf("payments-%d-%d", blocks, txs), func(m *maker) error {
		return m.payments(blocks, txs)
	})
}

// cached returns a chain that is in the folder, or makes it. Its description is written last, so
// that a file without one is one that was not finished.
func cached(dir, name string, build func(*maker) error) (*File, error) {
	base := filepath.Join(dir, fmt.Sprintf("%s-v%d", name, format))
	if b, err := os.ReadFile(base + ".json"); err == nil {
		file := new(File)
		if err := json.Unmarshal(b, file); err != nil {
			return nil, fmt.Errorf("%s.json: %w: remove it", base, err)
		}
		file.Path = base + ".dat"
		if file.Tail != "" {
			file.Tail = base + ".tail.dat"
		}
		return file, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	m, err := newMaker(base + ".dat")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(build(m), m.close()); err != nil {
		return nil, fmt.Errorf("make chain %s: %w", name, err)
	}
	m.file.Tip = m.prev.String()
	b, err := json.MarshalIndent(m.file, "", "\t")
	if err != nil {
		return nil, err
	}
	return &m.file, os.WriteFile(base+".json", b, 0o644)
}

// Blocks calls f with each block of a file.
func Blocks(path string, f func(raw []byte) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	r := bufio.NewReaderSize(file, 1<<20)
	for {
		var frame [8]byte
		switch _, err := io.ReadFull(r, frame[:]); {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", path, err)
		}
		size := binary.LittleEndian.Uint32(frame[4:])
		if [4]byte(frame[:4]) != bitcoin.Regtest().Magic || size > 4_000_000 {
			return fmt.Errorf("%s: no block where one should be", path)
		}
		raw := make([]byte, size)
		if _, err := io.ReadFull(r, raw); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := f(raw); err != nil {
			return err
		}
	}
}
