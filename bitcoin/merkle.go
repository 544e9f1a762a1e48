package bitcoin

import "slices"

// MerkleRoot returns the root of the tree over the leaves; that of none is zero. Where a level has
// an odd number of nodes its last is paired with itself, so that a list whose end is repeated has
// the root of the shorter one (CVE-2012-2459). mutated reports that two different nodes of one pair
// are equal, which an honest list cannot have: such a block is refused without marking its header
// as invalid.
func MerkleRoot(leaves []Hash) (root Hash, mutated bool) {
	return merkleRoot(slices.Clone(leaves))
}

// merkleRoot is MerkleRoot in place: it uses nodes up.
func merkleRoot(nodes []Hash) (root Hash, mutated bool) {
	if len(nodes) == 0 {
		return Hash{}, false
	}
	for len(nodes) > 1 {
		for i := 0; i+1 < len(nodes); i += 2 {
			mutated = mutated || nodes[i] == nodes[i+1]
		}
		if len(nodes)%2 == 1 {
			nodes = append(nodes, nodes[len(nodes)-1])
		}
		hashPairs(nodes)
		nodes = nodes[:len(nodes)/2]
	}
	return nodes[0], mutated
}

// hashPairsGeneric is hashPairs where the processor has nothing better.
func hashPairsGeneric(nodes []Hash) {
	for i := 0; i+1 < len(nodes); i += 2 {
		nodes[i/2] = hashPair(&nodes[i], &nodes[i+1])
	}
}

func hashPair(left, right *Hash) Hash {
	var pair [64]byte
	copy(pair[:32], left[:])
	copy(pair[32:], right[:])
	return DoubleHash(pair[:])
}
