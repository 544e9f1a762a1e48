package ellswift

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	mathrand "math/rand/v2"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

func unhex32(t testing.TB, s string) (b [32]byte) {
	t.Helper()
	if n, err := hex.Decode(b[:], []byte(s)); err != nil || n != len(b) {
		t.Fatalf("%q: %v", s, err)
	}
	return b
}

// TestDecodeVectors has a row of BIP 324's ellswift_decode_test_vectors.csv for each special case.
func TestDecodeVectors(t *testing.T) {
	for _, row := range []struct{ name, u, t, x string }{
		{"u%p=0;t%p=0;valid_x(x2)",
			"0000000000000000000000000000000000000000000000000000000000000000",
			"0000000000000000000000000000000000000000000000000000000000000000",
			"edd1fd3e327ce90cc7a3542614289aee9682003e9cf7dcc9cf2ca9743be5aa0c"},
		{"u%p=0;valid_x(x1);u>=p;t>=p",
			"fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f",
			"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffcbcfb7e7",
			"12303941aedc208880735b1f1795c8e55be520ea93e103357b5d2adb7ed59b8e"},
		{"u%p=0;valid_x(x3);t>=p",
			"0000000000000000000000000000000000000000000000000000000000000000",
			"fffffffffffffffffffffffffffffffffffffffffffffffffffffffff3113ad9",
			"7eed6b70e7b0767c7d7feac04e57aa2a12fef5e0f48f878fcbb88b3b6b5e0783"},
		{"t%p=0;valid_x(x1)",
			"7bf96b7b6da15d3476a2b195934b690a3a3de3e8ab8474856863b0de3af90b0e",
			"0000000000000000000000000000000000000000000000000000000000000000",
			"50851dfc9f418c314a437295b24feeea27af3d0cd2308348fda6e21c463e46ff"},
		{"t%p=0;valid_x(x3);u>=p",
			"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffb13f75c0",
			"0000000000000000000000000000000000000000000000000000000000000000",
			"4f51e0be078e0cddab2742156adba7e7a148e73157072fd618cd60942b146bd0"},
		{"valid_x(x1)",
			"a0f18492183e61e8063e573606591421b06bc3513631578a73a39c1c3306239f",
			"2f32904f0d2a33ecca8a5451705bb537d3bf44e071226025cdbfd249fe0f7ad6",
			"97a09cf1a2eae7c494df3c6f8a9445bfb8c09d60832f9b0b9d5eabe25fbd14b9"},
		{"valid_x(x2)",
			"a1ed0a0bd79d8a23cfe4ec5fef5ba5cccfd844e4ff5cb4b0f2e71627341f1c5b",
			"17c499249e0ac08d5d11ea1c2c8ca7001616559a7994eadec9ca10fb4b8516dc",
			"65a89640744192cdac64b2d21ddf989cdac7500725b645bef8e2200ae39691f2"},
		{"valid_x(x3)",
			"0ffde9ca81d751e9cdaffc1a50779245320b28996dbaf32f822f20117c22fbd6",
			"c74d99efceaa550f1ad1c0f43f46e7ff1ee3bd0162b7bf55f2965da9c3450646",
			"74e880b3ffd18fe3cddf7902522551ddf97fa4a35a3cfda8197f947081a57b8f"},
		{"valid_x(x3);valid_x(x2);valid_x(x1);u>=p;t>=p",
			"ffffffffffffffffffffffffffffffffffffffffffffffffffffffff9b77b7f2",
			"ffffffffffffffffffffffffffffffffffffffffffffffffffffffff156ca896",
			"0881950c8f51d6b9a6387465d5f12609ef1bb25412a08a74cb2dfb200c74bfbf"},
		{"(u'^3+t'^2+7)%p=0;valid_x(x1)",
			"5eb9696a2336fe2c3c666b02c755db4c0cfd62825c7b589a7b7bb442e141c1d6",
			"93413f0052d49e64abec6d5831d66c43612830a17df1fe4383db896468100221",
			"ef6e1da6d6c7627e80f7a7234cb08a022c1ee1cf29e4d0f9642ae924cef9eb38"},
		{"(u'^3+t'^2+7)%p=0;valid_x(x2);u>=p",
			"ffffffffffffffffffffffffffffffffffffffffffffffffffffffff15028c59",
			"0063f64d5a7f1c14915cd61eac886ab295bebd91992504cf77edb028bdd6267f",
			"3fde5713f8282eead7d39d4201f44a7c85a5ac8a0681f35e54085c6b69543374"},
		{"(u'^3-t'^2+7)%p=0;valid_x(x3)",
			"4056a34a210eec7892e8820675c860099f857b26aad85470ee6d3cf1304a9dcf",
			"375e70374271f20b13c9986ed7d3c17799698cfc435dbed3a9f34b38c823c2b4",
			"868aac2003b29dbcad1a3e803855e078a89d16543ac64392d122417298cec76e"},
		{"(u'^3-t'^2+7)%p=0;valid_x(x3);valid_x(x2);valid_x(x1);t>=p",
			"123658444f32be8f02ea2034afa7ef4bbe8adc918ceb49b12773b625f490b368",
			"ffffffffffffffffffffffffffffffffffffffffffffffffffffffff8dc5fe11",
			"ed16d65cf3a9538fcb2c139f1ecbc143ee14827120cbc2659e667256800b8142"},
		{"t%p=0;(u'^3-t'^2+7)%p=0;valid_x(x3);valid_x(x2);valid_x(x1)",
			"cbb0deab125754f1fdb2038b0434ed9cb3fb53ab735391129994a535d925f673",
			"0000000000000000000000000000000000000000000000000000000000000000",
			"872d81ed8831d9998b67cb7105243edbf86c10edfebb786c110b02d07b2e67cd"},
		{"u%p=0;(u'^3-t'^2+7)%p=0;valid_x(x3);u>=p",
			"fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f",
			"4218f20ae6c646b363db68605822fb14264ca8d2587fdd6fbc750d587e76a7ee",
			"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa9fffffd6b"},
	} {
		u, v, x := unhex32(t, row.u), unhex32(t, row.t), unhex32(t, row.x)
		e := Encoding(append(u[:], v[:]...))
		if got := e.Decode(); got != x {
			t.Errorf("%s: x %x, want %x", row.name, got, x)
		}
	}
}

// TestEncodeVectors has rows of BIP 324's xswiftec_inv_test_vectors.csv: for each of the eight
// names the value of t, or none.
func TestEncodeVectors(t *testing.T) {
	for _, row := range []struct {
		u, x string
		t    [8]string
	}{
		{"05ff6bdad900fc3261bc7fe34e2fb0f569f06e091ae437d3a52e9da0cbfb9590",
			"80cdf63774ec7022c89a5a8558e373a279170285e0ab27412dbce510bdfe23fc",
			[8]string{
				2: "45654798ece071ba79286d04f7f3eb1c3f1d17dd883610f2ad2efd82a287466b",
				3: "0aeaa886f6b76c7158452418cbf5033adc5747e9e9b5d3b2303db96936528557",
				6: "ba9ab867131f8e4586d792fb080c14e3c0e2e82277c9ef0d52d1027c5d78b5c4",
				7: "f51557790948938ea7badbe7340afcc523a8b816164a2c4dcfc24695c9ad76d8",
			}},
		{"1737a85f4c8d146cec96e3ffdca76d9903dcf3bd53061868d478c78c63c2aa9e",
			"39e48dd150d2f429be088dfd5b61882e7e8407483702ae9a5ab35927b15f85ea",
			[8]string{
				0: "1be8cc0b04be0c681d0c6a68f733f82c6c896e0c8a262fcd392918e303a7abf4",
				1: "605b5814bf9b8cb066667c9e5480d22dc5b6c92f14b4af3ee0a9eb83b03685e3",
				4: "e41733f4fb41f397e2f3959708cc07d3937691f375d9d032c6d6e71bfc58503b",
				5: "9fa4a7eb4064734f99998361ab7f2dd23a4936d0eb4b50c11f56147b4fc9764c",
			}},
		{"587c1a0cee91939e7f784d23b963004a3bf44f5d4e32a0081995ba20b0fca59e",
			"2ea988530715e8d10363907ff25124524d471ba2454d5ce3be3f04194dfd3a3c",
			[8]string{
				0: "cfd5a094aa0b9b8891b76c6ab9438f66aa1c095a65f9f70135e8171292245e74",
				1: "a89057d7c6563f0d6efa19ae84412b8a7b47e791a191ecdfdf2af84fd97bc339",
				2: "475d0ae9ef46920df07b34117be5a0817de1023e3cc32689e9be145b406b0aef",
				3: "a0759178ad80232454f827ef05ea3e72ad8d75418e6d4cc1cd4f5306c5e7c453",
				4: "302a5f6b55f464776e48939546bc709955e3f6a59a0608feca17e8ec6ddb9dbb",
				5: "576fa82839a9c0f29105e6517bbed47584b8186e5e6e132020d507af268438f6",
				6: "b8a2f51610b96df20f84cbee841a5f7e821efdc1c33cd9761641eba3bf94f140",
				7: "5f8a6e87527fdcdbab07d810fa15c18d52728abe7192b33e32b0acf83a1837dc",
			}},
		{"5fa88b3365a635cbbcee003cce9ef51dd1a310de277e441abccdb7be1e4ba249",
			"79461ff62bfcbcac4249ba84dd040f2cec3c63f725204dc7f464c16bf0ff3170",
			[8]string{
				2: "6bb700e1f4d7e236e8d193ff4a76c1b3bcd4e2b25acac3d51c8dac653fe909a0",
				3: "f4c73410633da7f63a4f1d55aec6dd32c4c6d89ee74075edb5515ed90da9e683",
				6: "9448ff1e0b281dc9172e6c00b5893e4c432b1d4da5353c2ae3725399c016f28f",
				7: "0b38cbef9cc25809c5b0e2aa513922cd3b39276118bf8a124aaea125f25615ac",
			}},
		{"7c37bb9c5061dc07413f11acd5a34006e64c5c457fdb9a438f217255a961f50d",
			"5c1a76b44568eb59d6789a7442d9ed7cdc6226b7752b4ff8eaf8e1a95736e507",
			[8]string{
				2: "b94d30cd7dbff60b64620c17ca0fafaa40b3d1f52d077a60a2e0cafd145086c2",
				6: "46b2cf32824009f49b9df3e835f05055bf4c2e0ad2f8859f5d1f3501ebaf756d",
			}},
		{"c17ec69e665f0fb0dbab48d9c2f94d12ec8a9d7eacb58084833091801eb0b80b",
			"147756e66d96e31c426d3cc85ed0c4cfbef6341dd8b285585aa574ea0204b55e",
			[8]string{
				0: "6f4aea431a0043bdd03134d6d9159119ce034b88c32e50e8e36c4ee45eac7ae9",
				1: "fd5be16d4ffa2690126c67c3ef7cb9d29b74d397c78b06b3605fda34dc9696a6",
				2: "5e9c60792a2f000e45c6250f296f875e174efc0e9703e628706103a9dd2d82c7",
				4: "90b515bce5ffbc422fcecb2926ea6ee631fcb4773cd1af171c93b11aa1538146",
				5: "02a41e92b005d96fed93983c1083462d648b2c683874f94c9fa025ca23696589",
				6: "a1639f86d5d0fff1ba39daf0d69078a1e8b103f168fc19d78f9efc5522d27968",
			}},
		{"e5bbb9ef360d0a501618f0067d36dceb75f5be9a620232aa9fd5139d0863fde5",
			"e5bbb9ef360d0a501618f0067d36dceb75f5be9a620232aa9fd5139d0863fde5",
			[8]string{}},
		{"f28fba64af766845eb2f4302456e2b9f8d80affe57e7aae42738d7cddb1c2ce6",
			"f28fba64af766845eb2f4302456e2b9f8d80affe57e7aae42738d7cddb1c2ce6",
			[8]string{
				0: "4f867ad8bb3d840409d26b67307e62100153273f72fa4b7484becfa14ebe7408",
				1: "5bbc4f59e452cc5f22a99144b10ce8989a89a995ec3cea1c91ae10e8f721bb5d",
				4: "b079852744c27bfbf62d9498cf819deffeacd8c08d05b48b7b41305db1418827",
				5: "a443b0a61bad33a0dd566ebb4ef317676576566a13c315e36e51ef1608de40d2",
			}},
	} {
		u, x := unhex32(t, row.u), unhex32(t, row.x)
		for which, want := range row.t {
			v, ok := encode(feBytes(x[:]), feBytes(u[:]), byte(which))
			got := ""
			if ok {
				got = hex.EncodeToString(v.Bytes()[:])
			}
			if got != want {
				t.Errorf("u %s x %s, %d: t %q, want %q", row.u, row.x, which, got, want)
			}
		}
	}
}

// What is encoded decodes to the same, whatever was drawn.
func TestRoundTrip(t *testing.T) {
	draws := mathrand.NewChaCha8([32]byte{1})
	for range 100 {
		k, err := GenerateKey(draws)
		if err != nil {
			t.Fatal(err)
		}
		var p secp256k1.JacobianPoint
		secp256k1.ScalarBaseMultNonConst(&k.secret, &p)
		p.ToAffine()
		public := k.Public()
		if public.Decode() != *p.X.Bytes() {
			t.Fatalf("%x decodes to %x", public, public.Decode())
		}
		secret := k.secret.Bytes()
		if _, err := NewKey(&secret, &public); err != nil {
			t.Error(err)
		}
	}
}

func TestSecretIsShared(t *testing.T) {
	a, errA := GenerateKey(rand.Reader)
	b, errB := GenerateKey(rand.Reader)
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	forA, forB := a.Public(), b.Public()
	one, two := a.Secret(&forB, true), b.Secret(&forA, false)
	if one != two {
		t.Errorf("initiator has %x, responder %x", one, two)
	}
	if one == a.Secret(&forB, false) {
		t.Error("the roles do not enter the secret")
	}
}

func TestKeyErrors(t *testing.T) {
	var x [32]byte
	x[31] = 5 // 5^3 + 7 is no square
	if _, err := Encode(&x, rand.Reader); !errors.Is(err, ErrOffCurve) {
		t.Errorf("x = 5: %v", err)
	}
	if _, err := Encode(&[32]byte{31: 1}, bytes.NewReader(make([]byte, 40))); err == nil {
		t.Error("no randomness, no error")
	}
	if _, err := GenerateKey(bytes.NewReader(nil)); err == nil {
		t.Error("no randomness, no error")
	}
	k, err := GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public := k.Public()
	if _, err := NewKey(&[32]byte{31: 2}, &public); err == nil {
		t.Error("a key with the encoding of another")
	}
	if _, err := NewKey(new([32]byte), &public); err == nil {
		t.Error("the key 0")
	}
}

// Every 64 octets decode to a point.
func FuzzDecode(f *testing.F) {
	f.Add(make([]byte, 64))
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) != 64 {
			return
		}
		e := Encoding(b)
		x := e.Decode()
		if !onCurve(feBytes(x[:])) {
			t.Errorf("%x decodes to %x, which is off the curve", b, x)
		}
	})
}

func BenchmarkGenerateKey(b *testing.B) {
	for b.Loop() {
		if _, err := GenerateKey(rand.Reader); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSecret(b *testing.B) {
	k, err := GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	theirs := Encoding{1, 2, 3}
	for b.Loop() {
		k.Secret(&theirs, true)
	}
}
