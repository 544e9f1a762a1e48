package bitcoin

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"path"
	"testing"

	"github.com/tallypost/tallypost/internal/vectors"
)

func TestGenesis(t *testing.T) {
	const satoshiRoot = "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"
	for _, row := range []struct {
		network    *Network
		hash, root string
	}{
		{Mainnet(), "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
			satoshiRoot},
		{Testnet3(), "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943",
			satoshiRoot},
		{Testnet4(), "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043",
			"7aa0a7ae1e223414cb807e40cd57e667b718e42aaf9306db9102fe28912b7b4e"},
		{Signet(), "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6",
			satoshiRoot},
		{Regtest(), "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
			satoshiRoot},
	} {
		t.Run(row.network.Name, func(t *testing.T) {
			g := row.network.Genesis
			if g.Hash().String() != row.hash || g.Header.MerkleRoot.String() != row.root {
				t.Errorf("hash %v, root %v", g.Hash(), g.Header.MerkleRoot)
			}
			if root, mutated := g.MerkleRoot(); root != g.Header.MerkleRoot || mutated {
				t.Errorf("Merkle root of the transactions %v", root)
			}
			if !MeetsTarget(g.Hash(), g.Header.Bits, row.network.PowLimit) {
				t.Error("no proof of work")
			}
			if TargetToCompact(row.network.PowLimit) != g.Header.Bits {
				t.Error("the first target is not the easiest")
			}
			n, err := NetworkByName(row.network.Name)
			if err != nil || n.Magic != row.network.Magic {
				t.Errorf("by name: %v", err)
			}
			if n := NetworkByMagic(row.network.Magic); n == nil || n.Name != row.network.Name {
				t.Error("not found by magic")
			}
		})
	}
	if _, err := NetworkByName("testnet5"); err == nil {
		t.Error("a network that is not")
	}
	if NetworkByMagic([4]byte{1, 2, 3, 4}) != nil {
		t.Error("a magic that is nobody's")
	}
}

func TestSignetMagic(t *testing.T) {
	if magic := Signet().Magic; magic != [4]byte{0x0a, 0x03, 0xcf, 0x40} {
		t.Errorf("%x, BIP 325 says 0a03cf40", magic)
	}
	own := SignetWithChallenge([]byte{0x51})
	if own.Magic == Signet().Magic || !own.MinimumChainWork.IsZero() || len(own.DNSSeeds) != 0 {
		t.Error("a signet of one's own takes from the public one")
	}
}

// TestHeaderChains follows real headers: each names the one before and has the work that it claims.
func TestHeaderChains(t *testing.T) {
	for _, row := range []struct {
		file    string
		network *Network
	}{
		{"bitcoin/headers/mainnet_floresta_headers.bin", Mainnet()},
		{"bitcoin/headers/signet_0_2015.bin", Signet()},
	} {
		t.Run(row.network.Name, func(t *testing.T) {
			raw := vectors.Read(t, row.file)
			var prev Hash
			for ; len(raw) >= HeaderSize; raw = raw[HeaderSize:] {
				h, err := ParseHeader(raw[:HeaderSize])
				if err != nil {
					t.Fatal(err)
				}
				if h.PrevBlock != prev {
					t.Fatalf("header %v does not follow %v", h.Hash(), prev)
				}
				if prev == (Hash{}) && h != row.network.Genesis.Header {
					t.Fatal("the first header is not that of the genesis block")
				}
				prev = h.Hash()
				if !MeetsTarget(prev, h.Bits, row.network.PowLimit) {
					t.Fatalf("header %v without work", prev)
				}
				if !bytes.Equal(h.Append(nil), raw[:HeaderSize]) {
					t.Fatalf("header %v encoded again differs", prev)
				}
			}
		})
	}
}

// TestRetargetHeaders holds proof of work and compact form against the headers around all
// retargets.
func TestRetargetHeaders(t *testing.T) {
	packed := vectors.Read(t, "bitcoin/headers/mainnet-retargets-0-832608.tar.gz")
	zr, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	limit := Mainnet().PowLimit
	headers := 0
	for tr := tar.NewReader(zr); ; {
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if path.Ext(hdr.Name) != ".bin" {
			continue
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		for ; len(b) >= HeaderSize; b = b[HeaderSize:] {
			h, err := ParseHeader(b[:HeaderSize])
			if err != nil {
				t.Fatal(err)
			}
			target, _, _ := CompactToTarget(h.Bits)
			if !MeetsTarget(h.Hash(), h.Bits, limit) || TargetToCompact(target) != h.Bits {
				t.Fatalf("%s: header %v", hdr.Name, h.Hash())
			}
			headers++
		}
	}
	if headers != 827 {
		t.Errorf("only %d headers", headers)
	}
}

func TestMeetsTargetRefuses(t *testing.T) {
	limit := Mainnet().PowLimit
	hash := Mainnet().Genesis.Hash()
	for _, row := range []struct {
		name string
		hash Hash
		bits uint32
		ok   bool
	}{
		{"the target of the block", hash, 0x1d00ffff, true},
		{"an easier target than the limit", hash, 0x1d010000, false},
		{"negative", hash, 0x1d80ffff, false},
		{"overflow", hash, 0xff00ffff, false},
		{"zero", hash, 0, false},
		{"zero and negative", hash, 0x1d800000, false},
		{"a hash equal to the target", mustUint256(easyPowLimit[:12] +
			"0000000000000000000000000000000000000000000000000000").Hash(), 0x1d00ffff, true},
		{"a harder target than the hash", hash, 0x1a00ffff, false},
	} {
		if MeetsTarget(row.hash, row.bits, limit) != row.ok {
			t.Errorf("%s: %v", row.name, !row.ok)
		}
	}
}

func TestWithActivationHeight(t *testing.T) {
	n := Regtest()
	for _, row := range []struct {
		arg    string
		height func(*Network) Height
		want   Height
	}{
		{"segwit@432", func(n *Network) Height { return n.SegwitHeight }, 432},
		{"bip34@2", func(n *Network) Height { return n.BIP34Height }, 2},
		{"dersig@102", func(n *Network) Height { return n.BIP66Height }, 102},
		{"cltv@111", func(n *Network) Height { return n.BIP65Height }, 111},
		{"csv@2147483646", func(n *Network) Height { return n.CSVHeight }, 2147483646},
	} {
		changed, err := n.WithActivationHeight(row.arg)
		if err != nil || row.height(changed) != row.want {
			t.Errorf("%s: %v", row.arg, err)
		}
		if row.height(n) == row.want {
			t.Errorf("%s changed the original", row.arg)
		}
	}
	const option = " for -testactivationheight=name@height."
	for arg, want := range map[string]string{
		"segwit":             "Invalid format (segwit)",
		"taproot@1":          "Invalid name (taproot@1)",
		"segwit@":            "Invalid height value (segwit@)",
		"segwit@+1":          "Invalid height value (segwit@+1)",
		"segwit@-1":          "Invalid height value (segwit@-1)",
		"segwit@2147483647":  "Invalid height value (segwit@2147483647)",
		"segwit@99999999999": "Invalid height value (segwit@99999999999)",
	} {
		if _, err := n.WithActivationHeight(arg); err == nil || err.Error() != want+option {
			t.Errorf("%s: %v, want %s", arg, err, want)
		}
	}
}

func TestWithVersionBits(t *testing.T) {
	n := Regtest()
	changed, err := n.WithVersionBits("testdummy:-2:9223372036854775807:432")
	want := Deployment{28, NeverActive, NoTimeout, 432, 144, 108}
	if err != nil || changed.Deployments[TestDummy] != want {
		t.Errorf("%+v, %v", changed, err)
	}
	changed, err = n.WithVersionBits("taproot:1:2")
	want = Deployment{2, 1, 2, 0, 144, 108}
	if err != nil || changed.Deployments[Taproot] != want {
		t.Errorf("%+v, %v", changed, err)
	}
	if n.Deployments != Regtest().Deployments {
		t.Error("the original changed")
	}
	const malformed = "Version bits parameters malformed, " +
		"expecting deployment:start:end[:min_activation_height]"
	for arg, want := range map[string]string{
		"taproot":         malformed,
		"taproot:1":       malformed,
		"taproot:1:2:3:4": malformed,
		"taproot:x:2":     "Invalid nStartTime (x)",
		"taproot:1:":      "Invalid nTimeout ()",
		"taproot:1:2:z":   "Invalid min_activation_height (z)",
		"segwit:1:2":      "Invalid deployment (segwit)",
	} {
		if _, err := n.WithVersionBits(arg); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", arg, err, want)
		}
	}
}
