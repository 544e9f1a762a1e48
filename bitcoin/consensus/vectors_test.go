package consensus

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"path"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/internal/vectors"
)

// readRetargets returns the mainnet headers around retargets by height.
func readRetargets(t testing.TB) map[bitcoin.Height]bitcoin.Header {
	compressed := vectors.Read(t, "bitcoin/headers/mainnet-retargets-0-832608.tar.gz")
	unzipped, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		t.Fatal(err)
	}
	headers := map[bitcoin.Height]bitcoin.Header{}
	for archive := tar.NewReader(unzipped); ; {
		entry, err := archive.Next()
		if err == io.EOF {
			return headers
		}
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(entry.Name, ".bin") {
			continue
		}
		height, err := strconv.Atoi(strings.TrimSuffix(path.Base(entry.Name), ".bin"))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		header, err := bitcoin.ParseHeader(raw)
		if err != nil {
			t.Fatalf("%s: %v", entry.Name, err)
		}
		headers[bitcoin.Height(height)] = header
	}
}

// TestMainnetRetargets computes every target of mainnet up to height 832,608 from the first and the
// last header of the period before. Each is also a transition that headers with unknown
// predecessors may make.
func TestMainnetRetargets(t *testing.T) {
	net := bitcoin.Mainnet()
	headers := readRetargets(t)
	count := 0
	for height := net.RetargetInterval(); ; height += net.RetargetInterval() {
		first, last := headers[height-net.RetargetInterval()], headers[height-1]
		header, known := headers[height]
		if !known {
			break
		}
		s := State{Network: net, Height: height - 1, Header: last, Hash: last.Hash(),
			first: period{first.Time, first.Bits}}
		if got := s.NextBits(header.Time); got != header.Bits {
			t.Errorf("height %d: target %08x, want %08x", height, got, header.Bits)
		}
		if !PermittedTransition(net, height, last.Bits, header.Bits) {
			t.Errorf("height %d: transition from %08x to %08x not permitted",
				height, last.Bits, header.Bits)
		}
		if header.PrevBlock != s.Hash {
			t.Errorf("height %d does not follow", height)
		}
		count++
	}
	if count != 413 || len(headers) != 827 {
		t.Errorf("%d retargets in %d headers, want 413 in 827", count, len(headers))
	}
}

// TestPermittedTransition tries the edges of what a retarget can do (Bitcoin Core
// test/pow_tests.cpp has the same edges).
func TestPermittedTransition(t *testing.T) {
	main := bitcoin.Mainnet()
	for _, test := range []struct {
		net      *bitcoin.Network
		height   bitcoin.Height
		old, now uint32
		want     bool
	}{
		{main, 2016, 0x1c05a3f4, 0x1c0168fd, true},  // a quarter
		{main, 2016, 0x1c05a3f4, 0x1c0168fc, false}, // and harder
		{main, 2016, 0x1c387f6f, 0x1d00e1fd, true},  // four times
		{main, 2016, 0x1c387f6f, 0x1d00e1fe, false}, // and easier
		{main, 2016, 0x1d00ffff, 0x1d00ffff, true},  // no easier than the limit
		{main, 2016, 0x1d00ffff, 0x1d010000, false},
		{main, 2017, 0x1c05a3f4, 0x1c05a3f4, true}, // no change within a period
		{main, 2017, 0x1c05a3f4, 0x1c05a3f3, false},
		// Where blocks may be easy, anything is.
		{bitcoin.Testnet4(), 2017, 0x1c05a3f4, 0x1d00ffff, true},
		{bitcoin.Regtest(), 2017, 0x207fffff, 0x1d00ffff, true},
	} {
		got := PermittedTransition(test.net, test.height, test.old, test.now)
		if got != test.want {
			t.Errorf("%s, height %d, %08x to %08x: %v",
				test.net.Name, test.height, test.old, test.now, got)
		}
	}
}

// TestRealHeaders checks the headers of two networks as a chain.
func TestRealHeaders(t *testing.T) {
	for _, test := range []struct {
		file string
		net  *bitcoin.Network
		tip  string // hash of the last header
		last bitcoin.Height
	}{
		{"mainnet_floresta_headers.bin", bitcoin.Mainnet(), "", 10236},
		{"signet_0_2015.bin", bitcoin.Signet(), "", 2015},
	} {
		raw := vectors.Read(t, "bitcoin/headers/"+test.file)
		s := Genesis(test.net)
		for height := 1; height*bitcoin.HeaderSize < len(raw); height++ {
			h, err := bitcoin.ParseHeader(raw[height*bitcoin.HeaderSize:][:bitcoin.HeaderSize])
			if err != nil {
				t.Fatal(err)
			}
			hash := h.Hash()
			if err := CheckHeader(s, &h, hash, time.Unix(int64(h.Time), 0)); err != nil {
				t.Fatalf("%s: height %d: %v", test.file, height, err)
			}
			s = s.Apply(&h, hash)
		}
		if s.Height != test.last {
			t.Errorf("%s: ends at height %d, want %d", test.file, s.Height, test.last)
		}
		t.Logf("%s: %v", test.file, s.Hash)
	}
}

// BenchmarkHeader checks and applies headers of mainnet, without hashing them.
func BenchmarkHeader(b *testing.B) {
	raw := vectors.Read(b, "bitcoin/headers/mainnet_floresta_headers.bin")
	var headers []bitcoin.Header
	var hashes []bitcoin.Hash
	for i := bitcoin.HeaderSize; i < len(raw); i += bitcoin.HeaderSize {
		h, err := bitcoin.ParseHeader(raw[i:][:bitcoin.HeaderSize])
		if err != nil {
			b.Fatal(err)
		}
		headers, hashes = append(headers, h), append(hashes, h.Hash())
	}
	now := time.Unix(2_000_000_000, 0)
	net := bitcoin.Mainnet()
	b.ReportAllocs()
	for i := 0; b.Loop(); {
		s := Genesis(net)
		for j := range headers {
			if err := CheckHeader(s, &headers[j], hashes[j], now); err != nil {
				b.Fatal(err)
			}
			s = s.Apply(&headers[j], hashes[j])
		}
		i += len(headers)
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(i), "ns/header")
	}
}
