package p2p

import (
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

// TestFixedSeeds: what the networks bring along can be read, and is more than one network's.
func TestFixedSeeds(t *testing.T) {
	for _, net := range []*bitcoin.Network{bitcoin.Mainnet(), bitcoin.Testnet3(), bitcoin.Testnet4(), bitcoin.Signet()} {
		addrs, err := wire.ParseAddrs([]byte(net.FixedSeeds))
		if err != nil {
			t.Fatalf("%s: %v", net.Name, err)
		}
		of := map[wire.Net]int{}
		for _, a := range addrs {
			of[a.Net]++
			if !a.Valid() || a.Port == 0 && a.Net != wire.NetI2P {
				t.Errorf("%s: %v", net.Name, a)
			}
		}
		if of[wire.NetIPv4] < 5 || of[wire.NetTorV3] < 5 {
			t.Errorf("%s: %v", net.Name, of)
		}
	}
	if bitcoin.Regtest().FixedSeeds != "" {
		t.Error("regtest has seeds")
	}
	if _, err := wire.ParseAddrs([]byte{1, 4, 127, 0}); err == nil {
		t.Error("half an address is read")
	}
}
