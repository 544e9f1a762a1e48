package blockstore

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// TestDump writes three coins of two transactions, the second of which has an index of three octets.
func TestDump(t *testing.T) {
	s, err := Open(Config{Network: bitcoin.Regtest(), CacheBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a, b := bitcoin.Hash{1}, bitcoin.Hash{2}
	for _, c := range []struct {
		out  bitcoin.OutPoint
		coin consensus.Coin
	}{
		{bitcoin.OutPoint{TxID: b, Index: 300}, consensus.Coin{Out: bitcoin.TxOut{Value: 7, Script: []byte{0x51}},
			Origin: consensus.Origin{Height: 9}}},
		{bitcoin.OutPoint{TxID: a, Index: 1}, consensus.Coin{Out: bitcoin.TxOut{Value: 1e8, Script: []byte{0x52}},
			Origin: consensus.Origin{Height: 3, Coinbase: true}}},
		{bitcoin.OutPoint{TxID: a, Index: 0}, consensus.Coin{Out: bitcoin.TxOut{Value: 2e8, Script: []byte{0x53}},
			Origin: consensus.Origin{Height: 3, Coinbase: true}}},
	} {
		s.coins.cache.add(&c.out, &c.coin, false)
	}
	s.coins.best = bitcoin.Hash{0xbe}
	if err := s.Flush(nil, s.coins); err != nil {
		t.Fatal(err)
	}
	snapshot, err := s.Coins().Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.Close()
	var out bytes.Buffer
	dumped, err := snapshot.Dump(context.Background(), &out)
	if err != nil || dumped.Coins != 3 {
		t.Fatalf("%+v, %v", dumped, err)
	}
	zeros := func(n int) string { return hex.EncodeToString(make([]byte, n)) }
	// code, amount and script as Bitcoin Core's coins.h and compressor.h have them
	want := "7574786fff" + "0200" + "fabfb5da" + "be" + zeros(31) + "0300000000000000" +
		"01" + zeros(31) + "02" +
		"00" + "07" + "13" + "0753" +
		"01" + "07" + "09" + "0752" +
		"02" + zeros(31) + "01" +
		"fd2c01" + "12" + "3d" + "0751"
	if got := hex.EncodeToString(out.Bytes()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	full := errors.New("full")
	if _, err := snapshot.Dump(context.Background(), failing{full}); !errors.Is(err, full) {
		t.Errorf("error of the writer: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
