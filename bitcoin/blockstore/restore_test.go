package blockstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// snapshotOfThree is a file with three coins of two transactions, of heights 3, 3 and 9.
func snapshotOfThree(t testing.TB) []byte {
	t.Helper()
	head := "7574786fff" + "0200" + "fabfb5da" + "be" + strings.Repeat("00", 31) + "0300000000000000"
	b, err := hex.DecodeString(head +
		"01" + strings.Repeat("00", 31) + "02" + "00" + "07" + "13" + "0753" + "01" + "07" + "09" + "0752" +
		"02" + strings.Repeat("00", 31) + "01" + "fd2c01" + "12" + "3d" + "0751")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type snapshotCoin struct {
	out  bitcoin.OutPoint
	coin consensus.Coin
}

func readSnapshot(b []byte, height bitcoin.Height) (head SnapshotHead, coins []snapshotCoin, err error) {
	r := bytes.NewReader(b)
	head, err = ReadSnapshotHead(r, bitcoin.Regtest())
	if err != nil {
		return head, nil, err
	}
	err = ReadSnapshotCoins(context.Background(), r, head, height,
		func(out bitcoin.OutPoint, coin *consensus.Coin) error {
			coins = append(coins, snapshotCoin{out, *coin})
			return nil
		})
	return head, coins, err
}

func TestReadSnapshot(t *testing.T) {
	head, coins, err := readSnapshot(snapshotOfThree(t), 9)
	if err != nil || len(coins) != 3 || head.Coins != 3 || head.Base != (bitcoin.Hash{0xbe}) {
		t.Fatalf("%+v, %d coins, %v", head, len(coins), err)
	}
	last := coins[2]
	if last.out.Index != 300 || last.coin.Height != 9 || last.coin.Coinbase || last.coin.Out.Value != 7 ||
		!bytes.Equal(last.coin.Out.Script, []byte{0x51}) {
		t.Errorf("the last one is %+v", last)
	}
	if first := coins[0].coin; !first.Coinbase || first.Out.Value != 2e8 {
		t.Errorf("the first one is %+v", first)
	}
}

// TestReadSnapshotRefuses breaks one thing in each row.
func TestReadSnapshotRefuses(t *testing.T) {
	const firstTx = 51
	put := func(at int, octets ...byte) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[at:], octets); return b }
	}
	mainnet := bitcoin.Mainnet().Magic
	for _, row := range []struct {
		name   string
		broken func([]byte) []byte
		want   string
	}{
		{"nothing", func([]byte) []byte { return nil }, "end of file"},
		{"head cut", func(b []byte) []byte { return b[:firstTx-1] }, "end of file"},
		{"magic", put(0, 'x'), "Invalid UTXO set snapshot magic bytes."},
		{"version", put(5, 3), "Version of snapshot 3 does not match any of the supported versions."},
		{"other network", put(7, mainnet[:]...),
			"The network of the snapshot (main) does not match the network of this node (regtest)."},
		{"no network", put(7, 0, 0, 0, 0), "created for an unrecognized network"},
		{"a coin less", put(43, 2), "Bad snapshot - coins left over after deserializing 2 coins"},
		{"two coins less", put(43, 1), "Mismatch in coins count in snapshot metadata and actual snapshot data"},
		{"the first two alone", func(b []byte) []byte { b[43] = 2; return b[:firstTx+33+10] }, ""},
		{"a coin more", put(43, 4), "Bad snapshot format or truncated snapshot after deserializing 3 coins"},
		{"an octet more", func(b []byte) []byte { return append(b, 0) },
			"Bad snapshot - coins left over after deserializing 3 coins"},
		{"cut", func(b []byte) []byte { return b[:len(b)-1] }, "after deserializing 2 coins"},
		{"too many outputs", put(firstTx+32, 4), "Mismatch in coins count"},
		{"number longer than needed", put(firstTx+32, 0xfd, 2, 0), "after deserializing 0 coins"},
		{"too high", put(firstTx+34, 20), "Bad snapshot data after deserializing 0 coins"},
		{"height of 33 bits", put(firstTx+34, 0x8f, 0xff, 0xff, 0xff, 0x7f), "after deserializing 0 coins"},
		{"more than all money", func(b []byte) []byte {
			amount := appendVarInt(nil, compressAmount(uint64(bitcoin.MaxMoney)+1))
			return append(append(b[:firstTx+35:firstTx+35], amount...), b[firstTx+36:]...)
		}, "Bad snapshot data after deserializing 0 coins - bad tx out value"},
		{"endless script", func(b []byte) []byte {
			return append(append(b[:firstTx+36:firstTx+36], appendVarInt(nil, 1<<40)...), b[firstTx+38:]...)
		}, "after deserializing 0 coins"},
	} {
		_, _, err := readSnapshot(row.broken(snapshotOfThree(t)), 9)
		if (row.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

// TestReadSnapshotInterrupted: who ends it is heard.
func TestReadSnapshotInterrupted(t *testing.T) {
	const coins = coinsPerLook + 1
	b := binary.LittleEndian.AppendUint64(snapshotOfThree(t)[:43], coins)
	for i := range coins {
		b = binary.LittleEndian.AppendUint64(b, uint64(i))
		b = append(b, make([]byte, 24)...)
		b = append(b, 1, 0, 7, 0x13, 7, 0x53)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r := bytes.NewReader(b)
	head, err := ReadSnapshotHead(r, bitcoin.Regtest())
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	err = ReadSnapshotCoins(ctx, r, head, 9, func(bitcoin.OutPoint, *consensus.Coin) error {
		read++
		return nil
	})
	if err == nil || err.Error() != "Aborting after an interrupt was requested" || read != coinsPerLook {
		t.Errorf("%d coins, %v", read, err)
	}
}

// FuzzReadSnapshot: whatever a file has, reading it ends, and what is read can be written as it was.
func FuzzReadSnapshot(f *testing.F) {
	whole := snapshotOfThree(f)
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add(append(bytes.Clone(whole[:83]), 0xfd, 0xff, 0xff))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, coins, _ := readSnapshot(b, 1<<20)
		for _, c := range coins {
			if c.coin.Height > 1<<20 || !c.coin.Out.Value.Valid() || len(c.coin.Out.Script) > maxStoredCoin {
				t.Fatalf("%+v", c)
			}
			d := decoder{b: appendCoin(nil, &c.coin)}
			if again := d.coin(); d.err != nil || !bytes.Equal(again.Out.Script, c.coin.Out.Script) ||
				again.Out.Value != c.coin.Out.Value || again.Origin != c.coin.Origin {
				t.Fatalf("%+v becomes %+v, %v", c.coin, again, d.err)
			}
		}
	})
}
