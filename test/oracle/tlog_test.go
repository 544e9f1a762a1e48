package oracle

import (
	"archive/zip"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/transparency-dev/formats/log"
	tlogproof "github.com/transparency-dev/formats/proof"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/merkle/testonly"
	"golang.org/x/mod/sumdb/note"
	sumdb "golang.org/x/mod/sumdb/tlog"

	"github.com/tallypost/tallypost/bridge/eventlog"
	"github.com/tallypost/tallypost/bridge/evidence"
	"github.com/tallypost/tallypost/bridge/tlog"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

const tlogOrigin = "mail.example.org/tlog"

// section is a store for a log, in a map.
type section map[string][]byte

func (s section) Get(key []byte) ([]byte, error) {
	if v, ok := s[string(key)]; ok {
		return bytes.Clone(v), nil
	}
	return nil, queue.ErrNotFound
}

func (s section) Scan(prefix, from []byte, fn func(key, value []byte) bool) error {
	var keys []string
	for k := range s {
		if strings.HasPrefix(k, string(prefix)) && k >= string(from) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		if !fn([]byte(k), s[k]) {
			break
		}
	}
	return nil
}

// twin is a log of ours and the tree that transparency-dev/merkle makes of the same entries.
type twin struct {
	t        *testing.T
	log      *eventlog.Log
	store    section
	tree     *testonly.Tree
	verifier note.Verifier // x/mod's, not ours
}

func newTwin(t *testing.T) *twin {
	t.Helper()
	skey, vkey, err := note.GenerateKey(nil, tlogOrigin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := tlog.ParseSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	if signer.Verifier().String() != vkey {
		t.Fatalf("our verifier key is %s, that of x/mod %s", signer.Verifier(), vkey)
	}
	w := &twin{t: t, store: section{}, tree: testonly.New(rfc6962.DefaultHasher)}
	if w.verifier, err = note.NewVerifier(vkey); err != nil {
		t.Fatal(err)
	}
	w.log, err = eventlog.Open(eventlog.Config{Signer: signer, SignEvery: 1}, w.store)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// Add enters events into both.
func (w *twin) Add(events ...mail.Event) {
	w.t.Helper()
	indexes, writes, err := w.log.Append(events)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, write := range writes {
		w.store[string(write.Key)] = write.Value
	}
	w.log.Committed()
	for _, index := range indexes {
		entry, err := w.log.Entry(index)
		if err != nil {
			w.t.Fatal(err)
		}
		w.tree.AppendData(entry)
	}
}

// Checkpoint reads the newest checkpoint with transparency-dev/formats.
func (w *twin) Checkpoint() *log.Checkpoint {
	w.t.Helper()
	text, err := w.log.Checkpoint()
	if err != nil {
		w.t.Fatal(err)
	}
	c, rest, n, err := log.ParseCheckpoint(text, tlogOrigin, w.verifier)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(rest) > 0 || len(n.Sigs) != 1 || len(n.UnverifiedSigs) > 0 {
		w.t.Errorf("checkpoint %q has more than it should", text)
	}
	if c.Size != w.tree.Size() || !bytes.Equal(c.Hash, w.tree.Hash()) {
		w.t.Fatalf("checkpoint of size %d, root %x; merkle has %d, %x", c.Size, c.Hash,
			w.tree.Size(), w.tree.Hash())
	}
	return c
}

func anEvent(n int) mail.Event {
	return mail.Event{Kind: mail.RelayToNonERDS, Time: time.Unix(int64(n), 0), ID: mail.ID(n + 1),
		Reply: fmt.Sprintf("250 2.0.0 taken as %d", n)}
}

func manyEvents(from, n int) (events []mail.Event) {
	for i := range n {
		events = append(events, anEvent(from+i))
	}
	return events
}

// TestLogIsReadByOthers grows a log at random and has every checkpoint, tile, bundle and proof read and
// verified by golang.org/x/mod and transparency-dev.
func TestLogIsReadByOthers(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 7))
	w := newTwin(t)
	w.Checkpoint()
	var sizes []uint64
	for _, limit := range []int{3, 200, 254, 255, 256, 257, 300, 511, 512, 513, 1100, 2000} {
		for size := int(w.tree.Size()); size < limit; size = int(w.tree.Size()) {
			w.Add(manyEvents(size, 1+rnd.IntN(limit-size))...)
		}
		c := w.Checkpoint()
		w.checkTiles(c)
		for _, index := range []uint64{0, c.Size / 2, c.Size - 1, rnd.Uint64N(c.Size)} {
			w.checkInclusion(index, c)
		}
		for _, older := range sizes {
			w.checkConsistency(older, c)
		}
		sizes = append(sizes, c.Size)
	}
}

func (w *twin) checkInclusion(index uint64, c *log.Checkpoint) {
	w.t.Helper()
	ours, err := w.log.Prove(index)
	if err != nil {
		w.t.Fatal(err)
	}
	w.checkProofFile(ours[0].Marshal(), index, c)
	theirs, err := w.tree.InclusionProof(index, c.Size)
	if err != nil {
		w.t.Fatal(err)
	}
	if !slices.EqualFunc(ours[0].Hashes, theirs, sameHash) {
		w.t.Errorf("leaf %d of %d: proof %v, merkle has %x", index, c.Size, ours[0].Hashes, theirs)
	}
}

// checkProofFile reads a .tlog-proof with transparency-dev/formats and verifies it with merkle.
func (w *twin) checkProofFile(text []byte, index uint64, c *log.Checkpoint) {
	w.t.Helper()
	var p tlogproof.TLogProof
	if err := p.Unmarshal(text); err != nil {
		w.t.Fatal(err)
	}
	if p.Index != index || p.ExtraData != nil || !bytes.Equal(p.Marshal(), text) {
		w.t.Errorf("proof of %d is read as %+v", index, p)
	}
	if _, _, _, err := log.ParseCheckpoint(p.Checkpoint, tlogOrigin, w.verifier); err != nil {
		w.t.Error(err)
	}
	var hashes [][]byte
	for _, h := range p.Hashes {
		hashes = append(hashes, h[:])
	}
	entry, err := w.log.Entry(index)
	if err != nil {
		w.t.Fatal(err)
	}
	leaf := rfc6962.DefaultHasher.HashLeaf(entry)
	err = proof.VerifyInclusion(rfc6962.DefaultHasher, index, c.Size, leaf, hashes, c.Hash)
	if err != nil {
		w.t.Errorf("leaf %d of %d: %v", index, c.Size, err)
	}
	leaf[0] ^= 1
	if proof.VerifyInclusion(rfc6962.DefaultHasher, index, c.Size, leaf, hashes, c.Hash) == nil {
		w.t.Errorf("leaf %d of %d: merkle takes any leaf", index, c.Size)
	}
	// And the other way: what they write we read.
	back, err := tlog.ParseProof(p.Marshal())
	if err != nil || back.Index != index {
		w.t.Errorf("proof written by formats: %v", err)
	}
}

func (w *twin) checkConsistency(older uint64, c *log.Checkpoint) {
	w.t.Helper()
	ours, err := w.log.ProveConsistency(older, c.Size)
	if err != nil {
		w.t.Fatal(err)
	}
	theirs, err := w.tree.ConsistencyProof(older, c.Size)
	if err != nil {
		w.t.Fatal(err)
	}
	if !slices.EqualFunc(ours, theirs, sameHash) {
		w.t.Errorf("%d to %d: proof %v, merkle has %x", older, c.Size, ours, theirs)
	}
	err = proof.VerifyConsistency(rfc6962.DefaultHasher, older, c.Size, theirs,
		w.tree.HashAt(older), c.Hash)
	if err != nil {
		w.t.Errorf("%d to %d: %v", older, c.Size, err)
	}
	// The verifiers agree on their proof as well.
	err = tlog.VerifyConsistency(older, tlog.Hash(w.tree.HashAt(older)), c.Size, tlog.Hash(c.Hash), ours)
	if err != nil {
		w.t.Error(err)
	}
}

func sameHash(h tlog.Hash, b []byte) bool { return bytes.Equal(h[:], b) }

// client reads the tiles of a log by their paths, as an HTTP client of C2SP tlog-tiles would.
type client struct {
	t     *testing.T
	log   *eventlog.Log
	saved int
}

func (c *client) Height() int { return 8 }

func (c *client) ReadTiles(tiles []sumdb.Tile) (data [][]byte, err error) {
	for _, t := range tiles {
		path := "tile/" + strings.TrimPrefix(t.Path(), "tile/8/")
		tile, err := tlog.ParseTilePath(path)
		if err != nil {
			return nil, err
		}
		d, err := c.log.Tile(tile)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		data = append(data, d)
	}
	return data, nil
}

func (c *client) SaveTiles(tiles []sumdb.Tile, _ [][]byte) { c.saved += len(tiles) }

// checkTiles has x/mod authenticate the tiles against the root, then compares all leaves with the bundles.
func (w *twin) checkTiles(c *log.Checkpoint) {
	w.t.Helper()
	cl := &client{t: w.t, log: w.log}
	reader := sumdb.TileHashReader(sumdb.Tree{N: int64(c.Size), Hash: sumdb.Hash(c.Hash)}, cl)
	var indexes []int64
	for i := range int64(c.Size) {
		indexes = append(indexes, sumdb.StoredHashIndex(0, i))
	}
	leaves, err := reader.ReadHashes(indexes)
	if err != nil || cl.saved == 0 {
		w.t.Fatalf("size %d: %v, %d tiles", c.Size, err, cl.saved)
	}
	for n := uint64(0); n*256 < c.Size; n++ {
		t := tlog.Tile{Level: tlog.EntryLevel, N: n, Width: int(min(256, c.Size-n*256))}
		bundle, err := w.log.Tile(t)
		if err != nil {
			w.t.Fatal(err)
		}
		for i := range t.Width {
			size := int(binary.BigEndian.Uint16(bundle))
			entry := bundle[2 : 2+size]
			bundle = bundle[2+size:]
			if leaves[int(n)*256+i] != sumdb.RecordHash(entry) {
				w.t.Errorf("entry %d of %s is not the leaf of the tile", i, t.Path())
			}
		}
		if len(bundle) > 0 {
			w.t.Errorf("%s has %d octets too many", t.Path(), len(bundle))
		}
	}
	last := int64(c.Size) - 1
	p, err := sumdb.ProveRecord(int64(c.Size), last, reader)
	if err == nil {
		err = sumdb.CheckRecord(p, int64(c.Size), sumdb.Hash(c.Hash), last, leaves[last])
	}
	if err != nil {
		w.t.Errorf("size %d: %v", c.Size, err)
	}
}

// TestEvidenceIsReadByOthers takes an evidence file apart and verifies its parts without our code.
func TestEvidenceIsReadByOthers(t *testing.T) {
	const body = "Subject: x\r\n\r\nbody\r\n"
	w := newTwin(t)
	w.Add(manyEvents(0, 300)...)
	sum := sha256.Sum256([]byte(body))
	accepted := mail.Event{Kind: mail.ReceivedFromNonERDS, Time: time.Now(), ID: 301,
		From: &mail.Address{}, Size: int64(len(body)), SHA256: hex.EncodeToString(sum[:])}
	w.Add(accepted)
	outcome := anEvent(300)
	w.Add(outcome)
	w.Add(manyEvents(302, 500)...)
	c := w.Checkpoint()
	indexes, err := w.log.Find(301)
	if err != nil || !slices.Equal(indexes, []uint64{300, 301}) {
		t.Fatalf("indexes %d, %v", indexes, err)
	}
	file := w.evidence([]byte(body), indexes)
	if _, err := evidence.Verify(file, evidence.Options{Key: w.log.Verifier().String()}); err != nil {
		t.Fatal(err)
	}
	parts := unzip(t, file)
	if got := sha256.Sum256(parts["message.eml"]); !bytes.Contains(parts["event.json"],
		[]byte(`"sha256":"`+hex.EncodeToString(got[:])+`"`)) {
		t.Errorf("event %s is not of the message", parts["event.json"])
	}
	for i, name := range []string{"", "outcome-0001."} {
		event, salt, entry, tp := "event.json", "salt", "entry", "message.tlog-proof"
		if name != "" {
			event, salt, entry, tp = name+"json", name+"salt", name+"entry", name+"tlog-proof"
		}
		key, err := hex.DecodeString(strings.TrimSpace(string(parts[salt])))
		if err != nil {
			t.Fatal(err)
		}
		mac := hmac.New(sha256.New, key)
		mac.Write(parts[event])
		lines := strings.Split(string(parts[entry]), "\n")
		if want := base64.StdEncoding.EncodeToString(mac.Sum(nil)); lines[2] != want {
			t.Errorf("%s has the commitment %s, want %s", entry, lines[2], want)
		}
		w.checkProofFile(parts[tp], indexes[i], c)
	}
	if _, _, _, err := log.ParseCheckpoint(parts["checkpoint"], tlogOrigin, w.verifier); err != nil {
		t.Error(err)
	}
	if _, err := note.NewVerifier(strings.TrimSpace(string(parts["key"]))); err != nil {
		t.Error(err)
	}
}

// evidence collects what a file needs, the way a caller of both packages does.
func (w *twin) evidence(message []byte, indexes []uint64) []byte {
	w.t.Helper()
	proofs, err := w.log.Prove(indexes...)
	if err != nil {
		w.t.Fatal(err)
	}
	contents := evidence.Contents{Message: message, Key: w.log.Verifier()}
	for i, index := range indexes {
		private, err := w.log.Event(index)
		if err != nil {
			w.t.Fatal(err)
		}
		entry, err := w.log.Entry(index)
		if err != nil {
			w.t.Fatal(err)
		}
		contents.Events = append(contents.Events, evidence.Event{
			Canonical: private.Canonical, Salt: private.Salt, Entry: entry, Proof: proofs[i],
		})
	}
	file, err := evidence.Build(contents)
	if err != nil {
		w.t.Fatal(err)
	}
	return file
}

func unzip(t *testing.T, file []byte) map[string][]byte {
	t.Helper()
	r, err := zip.NewReader(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	parts := make(map[string][]byte)
	for _, f := range r.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if parts[f.Name], err = io.ReadAll(in); err != nil {
			t.Fatal(err)
		}
	}
	return parts
}

// TestTreeAgainstMerkle compares roots over a tree that reaches the third tile level.
func TestTreeAgainstMerkle(t *testing.T) {
	tree := testonly.New(rfc6962.DefaultHasher)
	var edge tlog.Edge
	rnd := rand.New(rand.NewPCG(1, 9))
	for i := range 70_000 {
		leaf := binary.BigEndian.AppendUint64(nil, rnd.Uint64())
		tree.AppendData(leaf)
		edge.Append(tlog.LeafHash(leaf), func(tlog.Tile, []byte) {})
		if i%997 == 0 || i > 65_530 && i < 65_540 || i == 69_999 {
			if root := edge.Root(); !sameHash(root, tree.Hash()) {
				t.Fatalf("size %d: root %v, merkle has %x", i+1, root, tree.Hash())
			}
		}
	}
}
