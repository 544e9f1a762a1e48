package blockstore

import (
	"math/rand/v2"
	"reflect"
	"testing"
)

// TestTableAgainstModel enters and removes entries at random, so many that the table grows to its bound
// and becomes crowded, and compares it with a map. Hashes are drawn from few, so that they meet.
func TestTableAgainstModel(t *testing.T) {
	const most = leastWidth + 3
	rng := rand.New(rand.NewPCG(3, 4))
	table := newTable(most)
	defer table.free()
	hashes := make(map[ref]uint32)
	var refs []ref
	find := func(r ref) int {
		for at := table.home(hashes[r]); table.at(at) != 0; at = table.after(at) {
			if table.at(at).ref() == r {
				return at
			}
		}
		return -1
	}
	check := func() {
		t.Helper()
		if table.used != len(refs) {
			t.Fatalf("%d entries, want %d", table.used, len(refs))
		}
		for _, r := range refs {
			if find(r) < 0 {
				t.Fatalf("entry %d of hash %#x is not found in a table of 2^%d", r, hashes[r], table.width)
			}
		}
	}
	enter := func(r ref) {
		// Some hashes are the greatest ones, which belong to the end of the table and wrap around.
		hashes[r] = rng.Uint32()
		switch k := rng.IntN(8); {
		case k == 0:
			hashes[r] |= 0xffff_fff0
		case k == 1 && len(refs) > 0:
			hashes[r] = hashes[refs[rng.IntN(len(refs))]]
		}
		at := table.home(hashes[r])
		for table.at(at) != 0 {
			at = table.after(at)
		}
		table.enter(at, newSlot(hashes[r], r))
		refs = append(refs, r)
	}
	for r := ref(1); !table.crowded(); r++ {
		enter(r)
		if rng.IntN(4) == 0 {
			i := rng.IntN(len(refs))
			table.remove(find(refs[i]))
			refs[i] = refs[len(refs)-1]
			refs = refs[:len(refs)-1]
		}
		if r%5000 == 0 {
			check()
		}
	}
	if table.width != most {
		t.Errorf("the table grew to 2^%d, want 2^%d", table.width, most)
	}
	check()
	for len(refs) > 0 {
		last := refs[len(refs)-1]
		table.remove(find(last))
		if refs = refs[:len(refs)-1]; len(refs)%5000 == 0 {
			check()
		}
	}
	for i := range table.len() {
		if table.at(i) != 0 {
			t.Fatalf("slot %d of an empty table is %#x", i, table.at(i))
		}
	}
}

// TestRegion: memory is of the size, empty, and where it is large begins with a large page.
func TestRegion(t *testing.T) {
	for _, size := range []int{8, 4096, hugePage, 3 * hugePage} {
		r := newRegion(size)
		if len(r.b) != size {
			t.Fatalf("%d octets, want %d", len(r.b), size)
		}
		for i, b := range r.b {
			if b != 0 {
				t.Fatalf("octet %d of %d is %d", i, size, b)
			}
		}
		if at := reflect.ValueOf(r.b).Pointer(); r.whole != nil && size >= hugePage && at%hugePage != 0 {
			t.Errorf("a region of %d octets begins at %#x", size, at)
		}
		for i := range r.b {
			r.b[i] = 1
		}
		r.free()
		r.free()
	}
}
