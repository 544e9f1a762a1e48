package wire

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"
)

// What a v2 packet adds to its contents: three octets of encrypted length, a header octet and the
// tag.
const (
	v2LengthSize = 3
	v2HeaderSize = 1
	v2TagSize    = chacha20poly1305.Overhead
	v2Overhead   = v2LengthSize + v2HeaderSize + v2TagSize

	v2IgnoreBit     = 0x80 // of the header: the packet is a decoy
	v2RekeyInterval = 224  // packets
	v2MaxContents   = 1 + commandSize + MaxPayload
)

// session has the keys of an encrypted connection (BIP 324, "Keys and session ID derivation"). What
// it sends with and what it receives with are apart: one goroutine each may use them.
type session struct {
	id                     [32]byte
	sendTerminator         [16]byte
	recvTerminator         [16]byte
	sendLength, recvLength lengthCipher
	sendPacket, recvPacket packetCipher
}

// newSession derives the keys from the secret of the handshake.
func newSession(secret [32]byte, magic [4]byte, initiator bool) (*session, error) {
	salt := append([]byte("bitcoin_v2_shared_secret"), magic[:]...)
	master, err := hkdf.Extract(sha256.New, secret[:], salt)
	if err != nil {
		return nil, fmt.Errorf("derive keys: %w", err)
	}
	derive := func(name string) (key [32]byte) {
		k, expandErr := hkdf.Expand(sha256.New, master, name, len(key))
		err = errors.Join(err, expandErr)
		copy(key[:], k)
		return key
	}
	s := new(session)
	send, recv := "initiator", "responder"
	if !initiator {
		send, recv = recv, send
	}
	s.sendLength.rekey(derive(send + "_L"))
	s.sendPacket.rekey(derive(send + "_P"))
	s.recvLength.rekey(derive(recv + "_L"))
	s.recvPacket.rekey(derive(recv + "_P"))
	terminators := derive("garbage_terminators")
	s.sendTerminator, s.recvTerminator = [16]byte(terminators[:16]), [16]byte(terminators[16:])
	if !initiator {
		s.sendTerminator, s.recvTerminator = s.recvTerminator, s.sendTerminator
	}
	s.id = derive("session_id")
	if err != nil {
		return nil, fmt.Errorf("derive keys: %w", err)
	}
	return s, nil
}

// begin appends room for the length and the header of a packet, whose contents the caller appends
// next.
func (s *session) begin(dst []byte, ignore bool) []byte {
	header := byte(0)
	if ignore {
		header = v2IgnoreBit
	}
	return append(dst, 0, 0, 0, header)
}

// finish encrypts, in place, the packet that begin started at this offset of dst.
func (s *session) finish(dst []byte, start int, aad []byte) []byte {
	plain := dst[start+v2LengthSize:]
	length := dst[start : start+v2LengthSize]
	n := len(plain) - v2HeaderSize
	length[0], length[1], length[2] = byte(n), byte(n>>8), byte(n>>16)
	s.sendLength.crypt(length)
	var room [v2TagSize]byte
	dst = append(dst, room[:]...)
	plain = dst[start+v2LengthSize : len(dst)-v2TagSize]
	s.sendPacket.seal(plain, aad)
	return dst
}

// appendPacket appends a whole packet.
func (s *session) appendPacket(dst, contents, aad []byte, ignore bool) []byte {
	start := len(dst)
	return s.finish(append(s.begin(dst, ignore), contents...), start, aad)
}

// length decrypts the length of the next packet's contents.
func (s *session) length(b [v2LengthSize]byte) (int, error) {
	s.recvLength.crypt(b[:])
	n := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
	if n > v2MaxContents {
		return 0, coreError("V2 transport error: packet too large (%d bytes)", n)
	}
	return n, nil
}

// open decrypts, in place, what follows the length of a packet.
func (s *session) open(b, aad []byte) (contents []byte, ignore bool, err error) {
	plain, err := s.recvPacket.open(b, aad)
	if err != nil {
		return nil, false, coreError("V2 transport error: packet decryption failure (%d bytes)",
			len(b)-v2HeaderSize-v2TagSize)
	}
	return plain[v2HeaderSize:], plain[0]&v2IgnoreBit != 0, nil
}

// lengthCipher encrypts lengths: one ChaCha20 stream for 224 of them, of which the next 32 octets
// are the next key (BIP 324, FSChaCha20). It gives no integrity: a changed length makes the packet
// fail.
type lengthCipher struct {
	stream  *chacha20.Cipher
	used    int
	renewed uint64 // times that the key was replaced
}

func (c *lengthCipher) rekey(key [32]byte) {
	var nonce [chacha20.NonceSize]byte
	binary.LittleEndian.PutUint64(nonce[4:], c.renewed)
	var err error
	if c.stream, err = chacha20.NewUnauthenticatedCipher(key[:], nonce[:]); err != nil {
		panic("wire: " + err.Error()) // only for wrong sizes
	}
}

func (c *lengthCipher) crypt(b []byte) {
	c.stream.XORKeyStream(b, b)
	if c.used++; c.used < v2RekeyInterval {
		return
	}
	var key [32]byte
	c.stream.XORKeyStream(key[:], key[:])
	c.used = 0
	c.renewed++
	c.rekey(key)
}

// packetCipher encrypts and authenticates header and contents with ChaCha20-Poly1305. The nonce
// counts packets and keys; after 224 packets the key is replaced (BIP 324, FSChaCha20Poly1305), so
// that one who steals keys cannot read what went before.
type packetCipher struct {
	aead    cipher.AEAD
	used    uint32
	renewed uint64
}

func (c *packetCipher) rekey(key [32]byte) {
	var err error
	if c.aead, err = chacha20poly1305.New(key[:]); err != nil {
		panic("wire: " + err.Error()) // only for wrong sizes
	}
}

func (c *packetCipher) nonce(packet uint32) (n [chacha20poly1305.NonceSize]byte) {
	binary.LittleEndian.PutUint32(n[:], packet)
	binary.LittleEndian.PutUint64(n[4:], c.renewed)
	return n
}

// seal encrypts in place; behind plain there is room for the tag.
func (c *packetCipher) seal(plain, aad []byte) {
	nonce := c.nonce(c.used)
	c.aead.Seal(plain[:0], nonce[:], plain, aad)
	c.count()
}

func (c *packetCipher) open(b, aad []byte) ([]byte, error) {
	nonce := c.nonce(c.used)
	plain, err := c.aead.Open(b[:0], nonce[:], b, aad)
	c.count()
	return plain, err
}

// count replaces the key, when it is time, by what the old one makes of 32 zeros.
func (c *packetCipher) count() {
	if c.used++; c.used < v2RekeyInterval {
		return
	}
	nonce := c.nonce(0xffffffff)
	sealed := c.aead.Seal(nil, nonce[:], make([]byte, 32), nil)
	c.used = 0
	c.renewed++
	c.rekey([32]byte(sealed))
}

// shortIDs has the commands that v2 sends in one octet: their place in the list (BIP 324, "v2
// Bitcoin P2P message structure"). Place 0 means that twelve octets of command follow.
var shortIDs = [...]string{
	1: "addr", "block", "blocktxn", "cmpctblock", "feefilter", "filteradd", "filterclear",
	"filterload", "getblocks", "getblocktxn", "getdata", "getheaders", "headers", "inv", "mempool",
	"merkleblock", "notfound", "ping", "pong", "sendcmpct", "tx", "getcfilters", "cfilter",
	"getcfheaders", "cfheaders", "getcfcheckpt", "cfcheckpt", "addrv2",
}

// shortIDOf is the inverse of shortIDs.
var shortIDOf = func() map[string]byte {
	ids := make(map[string]byte, len(shortIDs))
	for id, command := range shortIDs {
		if id > 0 {
			ids[command] = byte(id)
		}
	}
	return ids
}()

// appendMessage appends a message as an encrypted packet.
func (s *session) appendMessage(dst []byte, m Message) ([]byte, error) {
	start := len(dst)
	dst = s.begin(dst, false)
	command := m.Command()
	if id, ok := shortIDOf[command]; ok {
		dst = append(dst, id)
	} else {
		var err error
		if dst, err = appendCommand(append(dst, 0), command); err != nil {
			return dst[:start], err
		}
	}
	before := len(dst)
	dst = m.Append(dst)
	if size := len(dst) - before; size > MaxPayload {
		return dst[:start], fmt.Errorf("%s message: %d octets, more than %d",
			command, size, MaxPayload)
	}
	return s.finish(dst, start, nil), nil
}

// cutContents splits the contents of a packet into command and payload.
func cutContents(contents []byte) (command string, payload []byte, err error) {
	reject := &RejectError{
		fmt.Sprintf("V2 transport error: invalid message type (%d bytes contents)", len(contents)),
		len(contents) + v2Overhead,
	}
	if len(contents) == 0 {
		return "", nil, reject
	}
	if id := int(contents[0]); id != 0 {
		if id >= len(shortIDs) {
			return "", nil, reject
		}
		return shortIDs[id], contents[1:], nil
	}
	if len(contents) < 1+commandSize {
		return "", nil, reject
	}
	command, ok := cutCommand(contents[1:1+commandSize], 0x7f)
	if !ok {
		return "", nil, reject
	}
	return command, contents[1+commandSize:], nil
}
