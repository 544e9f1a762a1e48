package p2p

import (
	"bytes"
	"errors"
	"os"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/p2p/addrbook"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

// maxAnchorsRead bounds what is read of a file; more than maxAnchors are not used.
const maxAnchorsRead = 100

// saveAnchors writes the addresses of the block-relay-only peers: after a restart they are asked first, so
// that whoever made us restart cannot have us all for himself. The file is Core's anchors.dat.
func (n *Node) saveAnchors() {
	if n.cfg.AnchorsFile == "" {
		return
	}
	list := n.anchors[:min(len(n.anchors), maxAnchors)]
	data := append([]byte(nil), n.net.Magic[:]...)
	data = bitcoin.AppendCompactSize(data, uint64(len(list)))
	for _, a := range list {
		data = addrbook.AppendDisk(data, a)
	}
	sum := bitcoin.DoubleHash(data)
	if err := writeFile(n.cfg.AnchorsFile, append(data, sum[:]...)); err != nil {
		n.log.Warn("anchors could not be written", "err", err)
		return
	}
	n.infof("DumpAnchors: Flush %d outbound block-relay-only peer addresses to anchors.dat completed",
		len(list))
}

// loadAnchors reads the anchors and deletes their file: a crash is not to repeat itself.
func (s *connecter) loadAnchors() {
	n := s.n
	if n.cfg.AnchorsFile == "" || n.cfg.ConnectOnly {
		return
	}
	data, err := os.ReadFile(n.cfg.AnchorsFile)
	if err != nil {
		return
	}
	os.Remove(n.cfg.AnchorsFile)
	list, err := parseAnchors(data, n.net.Magic)
	if err != nil {
		n.log.Warn("anchors could not be read", "err", err)
		list = nil
	}
	s.anchors = list[:min(len(list), maxAnchors)]
	n.infof("%d block-relay-only anchors will be tried for connections.", len(s.anchors))
}

func parseAnchors(data []byte, magic [4]byte) ([]wire.KnownAddr, error) {
	if len(data) < 37 || !bytes.Equal(data[:4], magic[:]) {
		return nil, errors.New("not an anchors file of this network")
	}
	body := data[:len(data)-32]
	if sum := bitcoin.DoubleHash(body); !bytes.Equal(sum[:], data[len(data)-32:]) {
		return nil, errors.New("checksum mismatch, data corrupted")
	}
	return addrbook.ParseDisk(body[4:], maxAnchorsRead)
}
