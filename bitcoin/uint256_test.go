package bitcoin

import (
	"math/big"
	"math/rand/v2"
	"testing"
)

var two256 = new(big.Int).Lsh(big.NewInt(1), 256)

// randomUint256 prefers words of few or all bits, where carries and guesses go wrong.
func randomUint256(r *rand.Rand) Uint256 {
	var x Uint256
	for i := range x {
		switch r.IntN(4) {
		case 0:
			x[i] = 0
		case 1:
			x[i] = ^uint64(0) << r.IntN(64)
		case 2:
			x[i] = uint64(1)<<r.IntN(64) - uint64(r.IntN(2))
		default:
			x[i] = r.Uint64()
		}
	}
	return x.Rsh(uint(r.IntN(4) * 64 * r.IntN(2)))
}

// TestUint256AgainstBig holds every operation against math/big.
func TestUint256AgainstBig(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		x, y := randomUint256(r), randomUint256(r)
		n, m := uint(r.IntN(300)), r.Uint32()
		bx, by := x.Big(), y.Big()
		checkBig(t, "add", x, y, x.Add(y), new(big.Int).Add(bx, by))
		checkBig(t, "sub", x, y, x.Sub(y), new(big.Int).Sub(bx, by))
		checkBig(t, "lsh", x, y, x.Lsh(n), new(big.Int).Lsh(bx, n))
		checkBig(t, "rsh", x, y, x.Rsh(n), new(big.Int).Rsh(bx, n))
		checkBig(t, "mul", x, y, x.MulUint32(m), new(big.Int).Mul(bx, big.NewInt(int64(m))))
		checkBig(t, "not", x, y, x.Not(), new(big.Int).Not(bx))
		if !y.IsZero() {
			checkBig(t, "div", x, y, x.Div(y), new(big.Int).Div(bx, by))
		}
		if x.Cmp(y) != bx.Cmp(by) || x.Cmp(x) != 0 || x.BitLen() != bx.BitLen() {
			t.Fatalf("%v %v: order or length differ", x, y)
		}
		if back, err := ParseUint256(x.String()); err != nil || back != x {
			t.Fatalf("%v reads as %v, %v", x, back, err)
		}
	}
}

func checkBig(t *testing.T, op string, x, y, got Uint256, want *big.Int) {
	t.Helper()
	want.Mod(want, two256)
	if got.Big().Cmp(want) != 0 {
		t.Fatalf("%s of %v and %v: %v, want %x", op, x, y, got, want)
	}
}

// Algorithm D guesses a digit one too large only here and there; this divisor makes it.
func TestUint256DivGivesBack(t *testing.T) {
	x := Uint256{0, 0, 1 << 63, 1<<63 - 1}
	y := Uint256{^uint64(0), 0, 1 << 63}
	want := new(big.Int).Div(x.Big(), y.Big())
	if got := x.Div(y); got.Big().Cmp(want) != 0 {
		t.Errorf("%v, want %x", got, want)
	}
}

// The rows are those of Core's arith_uint256 tests, "bignum_SetCompact".
func TestCompactTarget(t *testing.T) {
	for _, row := range []struct {
		bits               uint32
		target             string // without leading zeros
		back               uint32
		negative, overflow bool
	}{
		{0, "0", 0, false, false},
		{0x00123456, "0", 0, false, false},
		{0x01003456, "0", 0, false, false},
		{0x02000056, "0", 0, false, false},
		{0x03000000, "0", 0, false, false},
		{0x04000000, "0", 0, false, false},
		{0x00923456, "0", 0, false, false},
		{0x01803456, "0", 0, false, false},
		{0x02800056, "0", 0, false, false},
		{0x03800000, "0", 0, false, false},
		{0x04800000, "0", 0, false, false},
		{0x01123456, "12", 0x01120000, false, false},
		{0x01fedcba, "7e", 0x017e0000, true, false},
		{0x02123456, "1234", 0x02123400, false, false},
		{0x03123456, "123456", 0x03123456, false, false},
		{0x04123456, "12345600", 0x04123456, false, false},
		{0x04923456, "12345600", 0x04123456, true, false},
		{0x05009234, "92340000", 0x05009234, false, false},
		{0x20123456, "1234560000000000000000000000000000000000000000000000000000000000",
			0x20123456, false, false},
		{0xff123456, "0", 0, false, true},
		{0x21010000, "0", 0, false, true},
		{0x22000100, "0", 0, false, true},
		{0x1d00ffff, "ffff0000000000000000000000000000000000000000000000000000",
			0x1d00ffff, false, false},
	} {
		want, _ := new(big.Int).SetString(row.target, 16)
		got, negative, overflow := CompactToTarget(row.bits)
		if negative != row.negative || overflow != row.overflow {
			t.Errorf("%08x: negative %v, overflow %v", row.bits, negative, overflow)
		}
		if overflow {
			if !Work(row.bits).IsZero() {
				t.Errorf("%08x: work for a target that overflows", row.bits)
			}
			continue
		}
		if got.Big().Cmp(want) != 0 {
			t.Errorf("%08x: target %v, want %x", row.bits, got, want)
		}
		if back := TargetToCompact(got); back != row.back {
			t.Errorf("%08x comes back as %08x, want %08x", row.bits, back, row.back)
		}
		if negative && !Work(row.bits).IsZero() {
			t.Errorf("%08x: work for a negative target", row.bits)
		}
	}
}

func TestWork(t *testing.T) {
	for _, bits := range []uint32{0x1d00ffff, 0x207fffff, 0x1b0404cb, 0x01010000, 0x17034219} {
		target, _, _ := CompactToTarget(bits)
		want := new(big.Int).Div(two256, new(big.Int).Add(target.Big(), big.NewInt(1)))
		if got := Work(bits).Big(); got.Cmp(want) != 0 {
			t.Errorf("%08x: work %x, want %x", bits, got, want)
		}
	}
	if got := Work(0x1d00ffff); got != (Uint256{0x100010001}) {
		t.Errorf("work of the first block %v", got)
	}
	if d := Difficulty(0x1d00ffff); d != 1 {
		t.Errorf("difficulty of the first block %v", d)
	}
	if d := Difficulty(0x1b0404cb); d < 16307.42 || d > 16307.43 {
		t.Errorf("difficulty %v, want 16307.42", d)
	}
}

func BenchmarkWork(b *testing.B) {
	for b.Loop() {
		Work(0x17034219)
	}
}
