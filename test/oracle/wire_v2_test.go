package oracle

import (
	"bytes"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/btcsuite/btcd/v2transport"
	"github.com/btcsuite/btcd/wire/v2"

	"github.com/tallypost/tallypost/bitcoin"
	ours "github.com/tallypost/tallypost/bitcoin/wire"
)

// v2Pair connects our side of BIP 324 with btcd's.
func v2Pair(t *testing.T, weInitiate bool, garbage int,
	decoys []int) (*ours.Conn, *v2transport.Peer) {
	t.Helper()
	left, right := net.Pipe()
	deadline := time.Now().Add(20 * time.Second)
	left.SetDeadline(deadline)
	right.SetDeadline(deadline)
	t.Cleanup(func() { left.Close(); right.Close() })
	conn := ours.NewConn(left, weInitiate, ours.Config{Magic: bitcoin.Mainnet().Magic, V2: true})
	peer := v2transport.NewPeer()
	peer.UseReadWriter(right)
	done := make(chan error, 1)
	go func() { done <- conn.Handshake() }()
	mainnet := v2transport.BitcoinNet(wire.MainNet)
	var err error
	if weInitiate {
		err = peer.RespondV2Handshake(garbage, mainnet)
	} else {
		err = peer.InitiateV2Handshake(garbage)
	}
	if err == nil {
		err = peer.CompleteHandshake(!weInitiate, decoys, mainnet)
	}
	if ourErr := <-done; ourErr != nil || err != nil {
		t.Fatalf("tallypost: %v; btcd: %v", ourErr, err)
	}
	return conn, peer
}

// TestV2WithBtcd opens connections in both roles and sends through several changes of keys.
func TestV2WithBtcd(t *testing.T) {
	for _, row := range []struct {
		name       string
		weInitiate bool
		garbage    int
		decoys     []int
	}{
		{"we call", true, 0, nil},
		{"we call, much garbage, decoys", true, 4095, []int{0, 1000}},
		{"we are called", false, 0, nil},
		{"we are called, much garbage, decoys", false, 4095, []int{5, 0}},
	} {
		t.Run(row.name, func(t *testing.T) {
			conn, peer := v2Pair(t, row.weInitiate, row.garbage, row.decoys)
			for i := range 500 {
				ping := &ours.Ping{Nonce: uint64(i)}
				checkSent(t, conn, peer, ping, append([]byte{18}, ping.Append(nil)...))
				checkReceived(t, conn, peer, i)
			}
			long := &ours.Raw{Name: "sendtxrcncl", Payload: make([]byte, 1000)}
			want := append([]byte("\x00sendtxrcncl\x00"), long.Payload...)
			checkSent(t, conn, peer, long, want)
		})
	}
}

func checkSent(t *testing.T, conn *ours.Conn, peer *v2transport.Peer, m ours.Message, want []byte) {
	t.Helper()
	written := make(chan error, 1)
	go func() {
		_, err := conn.WriteMessage(m)
		written <- err
	}()
	got, err := peer.V2ReceivePacket(nil)
	if err := errors.Join(err, <-written); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("btcd reads %x, %v; want %x", got, err, want)
	}
}

func checkReceived(t *testing.T, conn *ours.Conn, peer *v2transport.Peer, i int) {
	t.Helper()
	pong := &ours.Pong{Nonce: uint64(i)}
	type sent struct {
		octets int
		err    error
	}
	done := make(chan sent, 1)
	go func() {
		_, n, err := peer.V2EncPacket(append([]byte{19}, pong.Append(nil)...), nil, false)
		done <- sent{n, err}
	}()
	f, err := conn.ReadFrame()
	s := <-done
	if err := errors.Join(err, s.err); err != nil || f.Command != "pong" ||
		!bytes.Equal(f.Payload, pong.Append(nil)) || f.Size != s.octets {
		t.Fatalf("we read %+v of %d octets, %v", f, s.octets, err)
	}
}

// btcd's v2 side knows our v1 side for what it is.
func TestV1WithV2Btcd(t *testing.T) {
	left, right := net.Pipe()
	defer left.Close()
	defer right.Close()
	peer := v2transport.NewPeer()
	peer.UseReadWriter(right)
	conn := ours.NewConn(left, true, ours.Config{Magic: bitcoin.Mainnet().Magic})
	go conn.WriteMessage(&ours.Version{Protocol: 70016})
	err := peer.RespondV2Handshake(0, v2transport.BitcoinNet(wire.MainNet))
	if !errors.Is(err, v2transport.ErrUseV1Protocol) {
		t.Errorf("btcd takes our v1 for %v", err)
	}
}
