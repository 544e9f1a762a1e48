package blockstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// SnapshotHead is what a file of coins says of itself. Whoever reads it must not trust a word.
type SnapshotHead struct {
	Base  bitcoin.Hash // the block as of which the coins are
	Coins uint64
}

const snapshotHeadSize = len(snapshotMagic) + 2 + 4 + 32 + 8

// ReadSnapshotHead reads the beginning of a file of coins for a network; its coins follow, to be read by
// ReadSnapshotCoins. Errors are by the words of Bitcoin Core (node/utxo_snapshot.h, SnapshotMetadata).
func ReadSnapshotHead(r io.Reader, net *bitcoin.Network) (head SnapshotHead, err error) {
	var b [snapshotHeadSize]byte
	n, err := io.ReadFull(r, b[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return head, err
	}
	const atVersion, atMagic, atBase, atCoins = 5, 7, 11, 43
	short := errors.New("AutoFile::read: end of file")
	switch {
	case n < atVersion:
		return head, short
	case string(b[:atVersion]) != snapshotMagic:
		return head, errors.New("Invalid UTXO set snapshot magic bytes. Please check if this is indeed a " +
			"snapshot file or if you are using an outdated snapshot format.")
	case n < atMagic:
		return head, short
	}
	if version := binary.LittleEndian.Uint16(b[atVersion:]); version != snapshotVersion {
		return head, fmt.Errorf("Version of snapshot %d does not match any of the supported versions.", version)
	}
	if n < atBase {
		return head, short
	}
	if err := checkNetwork([4]byte(b[atMagic:atBase]), net); err != nil {
		return head, err
	}
	if n < len(b) {
		return head, short
	}
	return SnapshotHead{bitcoin.Hash(b[atBase:atCoins]), binary.LittleEndian.Uint64(b[atCoins:])}, nil
}

// checkNetwork says of which network a snapshot is that is not of this one.
func checkNetwork(magic [4]byte, net *bitcoin.Network) error {
	if magic == net.Magic {
		return nil
	}
	for _, other := range []*bitcoin.Network{bitcoin.Mainnet(), bitcoin.Testnet3(), bitcoin.Testnet4(),
		bitcoin.Regtest(), bitcoin.Signet()} {
		if magic == other.Magic {
			return fmt.Errorf("The network of the snapshot (%s) does not match the network of this node (%s).",
				other.Name, net.Name)
		}
	}
	return errors.New("This snapshot has been created for an unrecognized network. This could be a custom " +
		"signet, a new testnet or possibly caused by data corruption.")
}

const (
	// snapshotBuffer is how much of a file is in memory at once.
	snapshotBuffer = 1 << 20
	// maxStoredCoin is more than any coin takes that can exist: its script has at most 10,000 octets, for
	// outputs with longer ones cannot be spent and are no coins.
	maxStoredCoin = 16 << 10
	// coinsPerLook is how many coins are read between two looks at whether to end (Bitcoin Core
	// validation.cpp, PopulateAndValidateSnapshot).
	coinsPerLook = 120_000
)

// ReadSnapshotCoins calls f for each coin of a file, whose head was read and whose block has this height.
// The coin is good until f returns. It is an error if there are not as many as the head says, or if one
// cannot be; the errors are by the words of Bitcoin Core (validation.cpp, PopulateAndValidateSnapshot).
// That they are the right ones only their hash can tell.
func ReadSnapshotCoins(
	ctx context.Context, r io.Reader, head SnapshotHead, height bitcoin.Height,
	f func(bitcoin.OutPoint, *consensus.Coin) error,
) error {
	s := snapshotReader{r: r}
	for read := uint64(0); read < head.Coins; {
		txid, outputs, err := s.group()
		switch {
		case err != nil:
			return s.broken(read, err)
		case outputs > head.Coins-read:
			return errors.New("Mismatch in coins count in snapshot metadata and actual snapshot data")
		}
		for range outputs {
			out, coin, err := s.coin(txid)
			switch {
			case err != nil:
				return s.broken(read, err)
			case coin.Height > height || out.Index == math.MaxUint32:
				return fmt.Errorf("Bad snapshot data after deserializing %d coins", read)
			case !coin.Out.Value.Valid():
				return fmt.Errorf("Bad snapshot data after deserializing %d coins - bad tx out value", read)
			}
			if err := f(out, &coin); err != nil {
				return err
			}
			if read++; read%coinsPerLook == 0 && ctx.Err() != nil {
				return errInterrupted
			}
		}
	}
	if err := s.need(1); err != nil {
		return err
	}
	if len(s.left) > 0 {
		return fmt.Errorf("Bad snapshot - coins left over after deserializing %d coins", head.Coins)
	}
	return nil
}

var errInterrupted = errors.New("Aborting after an interrupt was requested")

// snapshotReader reads the coins of a file.
type snapshotReader struct {
	r    io.Reader
	buf  []byte
	left []byte // of buf, not read yet
	end  bool   // nothing comes after it
}

// need sees to it that so many octets are in memory, or all that there are.
func (s *snapshotReader) need(n int) error {
	if len(s.left) >= n || s.end {
		return nil
	}
	if s.buf == nil {
		s.buf = make([]byte, snapshotBuffer)
	}
	have := copy(s.buf, s.left)
	more, err := io.ReadFull(s.r, s.buf[have:])
	s.left = s.buf[:have+more]
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		s.end, err = true, nil
	}
	return err
}

// group reads which transaction the next coins are of, and how many they are.
func (s *snapshotReader) group() (txid bitcoin.Hash, outputs uint64, err error) {
	if err := s.need(maxStoredCoin); err != nil {
		return txid, 0, err
	}
	d := decoder{b: s.left}
	copy(txid[:], d.take(len(txid)))
	outputs = uint64(d.compactSize())
	s.left = d.b
	return txid, outputs, d.err
}

func (s *snapshotReader) coin(txid bitcoin.Hash) (out bitcoin.OutPoint, coin consensus.Coin, err error) {
	if err := s.need(maxStoredCoin); err != nil {
		return out, coin, err
	}
	d := decoder{b: s.left}
	out = bitcoin.OutPoint{TxID: txid, Index: uint32(d.compactSize())}
	code := d.varInt()
	if code > math.MaxUint32 {
		d.fail()
	}
	coin = consensus.Coin{Origin: codeOrigin(code), Out: d.out()}
	s.left = d.b
	return out, coin, d.err
}

// broken tells where a file ends too early or cannot be understood.
func (s *snapshotReader) broken(read uint64, err error) error {
	if !errors.Is(err, errShort) {
		return err
	}
	return fmt.Errorf("Bad snapshot format or truncated snapshot after deserializing %d coins", read)
}
