//go:build unix && !linux

package blockstore

func wantHugePages([]byte) {}
