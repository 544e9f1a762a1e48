//go:build !amd64 || purego

package bitcoin

// hashPairs writes the double hash of each pair of nodes over the first half of nodes.
func hashPairs(nodes []Hash) { hashPairsGeneric(nodes) }
