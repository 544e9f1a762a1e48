package secp

import (
	"crypto/sha256"
	"testing"
)

// TestRFC6979 has signatures of known nonces, made by other implementations for the same keys and
// messages.
func TestRFC6979(t *testing.T) {
	for _, c := range []struct {
		key     [32]byte
		message string
		want    string
	}{
		{[32]byte{31: 1}, "Satoshi Nakamoto",
			"934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d8" +
				"2442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5"},
		{[32]byte{31: 1},
			"All those moments will be lost in time, like tears in rain. Time to die...",
			"8600dbd41e348fe5c9465ab92d23e3db8b98b873beecd930736488696438cb6b" +
				"547fe64427496db33bf66019dacbf0039c04199abb0122918601db38a72cfc21"},
	} {
		k, err := ParsePrivateKey(&c.key)
		if err != nil {
			t.Fatal(err)
		}
		digest := sha256.Sum256([]byte(c.message))
		if got := k.SignECDSA(&digest, false); got != [64]byte(unhex(t, c.want)) {
			t.Errorf("%q: %x, want %s", c.message, got, c.want)
		}
	}
}

// TestLowR signs until r is short, with signatures that verify.
func TestLowR(t *testing.T) {
	k := key(t, 11)
	pub := k.PublicKey().Compressed()
	ground := 0
	for i := byte(0); i < 16; i++ {
		digest := sha256.Sum256([]byte{i})
		plain, low := k.SignECDSA(&digest, false), k.SignECDSA(&digest, true)
		if plain != low {
			ground++
		}
		if low[0] >= 0x80 || !LowS(&low) || len(AppendDER(nil, &low)) > 70 {
			t.Errorf("%d: %x is not low", i, low)
		}
		if !VerifyECDSA(Default(), pub[:], &digest, AppendDER(nil, &low)) {
			t.Errorf("%d: does not verify", i)
		}
	}
	if ground == 0 {
		t.Error("no signature needed a second nonce")
	}
}
