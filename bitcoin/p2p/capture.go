package p2p

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// capture writes a message to the peer's file, as Core's -capturemessages does (net.cpp,
// CaptureMessageToFile): the time in microseconds (8 octets), the command (12), the size (4), the payload.
// All of a file is of one direction, so that it has one writer.
func (p *Peer) capture(file, command string, payload []byte) {
	dir := p.n.cfg.CaptureDir
	if dir == "" {
		return
	}
	le := binary.LittleEndian
	b := le.AppendUint64(nil, uint64(p.n.clock.Now().UnixMicro()))
	var name [12]byte
	copy(name[:], command)
	b = le.AppendUint32(append(b, name[:]...), uint32(len(payload)))
	dir = filepath.Join(dir, strings.ReplaceAll(p.addr.String(), ":", "_"))
	if err := appendFile(dir, file, append(b, payload...)); err != nil {
		p.n.log.Warn(fmt.Sprintf("a message of peer=%d was not captured", p.id), "err", err)
	}
}

func appendFile(dir, name string, data []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}
