package mail

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"strings"
)

// Limits on the tree of parts of one message.
const (
	maxPartDepth = 8
	maxParts     = 100
	maxZipFiles  = 64
)

// ErrTooLarge is the error for what grows beyond its limit when it is decoded or unpacked.
var ErrTooLarge = errors.New("too large")

// Part is a leaf of the tree of MIME parts of a message (RFC 2046).
type Part struct {
	Type   string // media type in lower case; "text/plain" where none is given
	Name   string // of the file, if it has one
	header Header
	body   []byte
}

// Leaves returns the leaves of the tree of parts in a message, in their order. Damaged structure
// yields what can be read of it; what is beyond 100 parts or 8 levels is left out.
func Leaves(msg []byte) []Part {
	var t partTree
	t.add(msg, 0)
	return t.leaves
}

// FindLeaf reads the leaves of a message, each of at most limit octets, until one can be read. Where none
// can it returns the error that says most: any other one before none, which is what read has for a leaf that
// was never meant.
func FindLeaf[T any](msg []byte, limit int, read func([]byte) (T, error), none error) (T, error) {
	var first error
	var zero T
	for _, p := range Leaves(msg) {
		b, err := p.Decode(limit)
		if err == nil {
			var found T
			if found, err = read(b); err == nil {
				return found, nil
			}
		}
		if first == nil || errors.Is(first, none) && !errors.Is(err, none) {
			first = err
		}
	}
	if first == nil {
		first = fmt.Errorf("%w: message without parts", none)
	}
	return zero, first
}

type partTree struct {
	leaves []Part
	seen   int
}

func (t *partTree) add(raw []byte, depth int) {
	if t.seen++; t.seen > maxParts || depth > maxPartDepth {
		return
	}
	h, err := ParseHeader(raw)
	if errors.Is(err, ErrHeaderTooLarge) {
		return
	}
	p := Part{Type: "text/plain", header: h, body: raw[h.Len:]}
	kind, params := mediaType(h.Get("Content-Type"))
	if kind != "" {
		p.Type = kind
	}
	_, disposition := mediaType(h.Get("Content-Disposition"))
	if p.Name = disposition["filename"]; p.Name == "" {
		p.Name = params["name"]
	}
	boundary := params["boundary"]
	if !strings.HasPrefix(p.Type, "multipart/") || boundary == "" {
		t.leaves = append(t.leaves, p)
		return
	}
	for _, child := range splitParts(p.body, boundary) {
		t.add(child, depth+1)
	}
}

// mediaType is mime.ParseMediaType, which keeps the type where the parameters are broken.
func mediaType(value string) (kind string, params map[string]string) {
	kind, params, err := mime.ParseMediaType(value)
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		kind, _, _ = strings.Cut(value, ";")
		kind = strings.ToLower(strings.TrimSpace(kind))
	}
	return kind, params
}

// splitParts cuts a multipart body at its boundary lines; the last boundary may be missing.
func splitParts(body []byte, boundary string) (parts [][]byte) {
	mark := []byte("--" + boundary)
	start := -1
	for pos := 0; pos < len(body); {
		end := len(body)
		if i := bytes.IndexByte(body[pos:], '\n'); i >= 0 {
			end = pos + i + 1
		}
		if line := body[pos:end]; bytes.HasPrefix(line, mark) {
			after := bytes.TrimRight(line[len(mark):], " \t\r\n")
			if len(after) == 0 || string(after) == "--" {
				if start >= 0 {
					parts = append(parts, dropLineEnd(body[start:pos]))
				}
				if start = end; len(after) > 0 {
					return parts
				}
			}
		}
		pos = end
	}
	if start >= 0 && start < len(body) {
		parts = append(parts, body[start:])
	}
	return parts
}

// dropLineEnd removes the line end that belongs to the boundary (RFC 2046, section 5.1.1).
func dropLineEnd(b []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
}

// Decode undoes the transfer encoding; the result has at most limit octets.
func (p Part) Decode(limit int) ([]byte, error) {
	var r io.Reader = bytes.NewReader(p.body)
	switch encoding := strings.ToLower(p.header.Get("Content-Transfer-Encoding")); encoding {
	case "base64":
		r = base64.NewDecoder(base64.StdEncoding, &alphabet{r: r})
	case "quoted-printable":
		r = quotedprintable.NewReader(r)
	}
	b, err := readLimited(r, limit)
	if err != nil {
		return nil, fmt.Errorf("part %s: %w", p.Type, err)
	}
	return b, nil
}

// alphabet passes what belongs to base64: "Any characters outside of the base64 alphabet are to be
// ignored" (RFC 2045, section 6.8).
type alphabet struct{ r io.Reader }

func (a *alphabet) Read(b []byte) (int, error) {
	for {
		n, err := a.r.Read(b)
		kept := b[:0]
		for _, c := range b[:n] {
			if isAlnum(c) || c == '+' || c == '/' || c == '=' {
				kept = append(kept, c)
			}
		}
		if len(kept) > 0 || err != nil {
			return len(kept), err
		}
	}
}

// Unpack returns the content of a file as reports are mailed: gzip, the first file of a zip archive
// that is not empty, or neither. It looks at the octets, for names and types are often wrong. The
// result has at most limit octets, whatever the archive says of itself.
func Unpack(b []byte, limit int) ([]byte, error) {
	switch {
	case bytes.HasPrefix(b, gzipMagic):
		return gunzip(b, limit)
	case bytes.HasPrefix(b, []byte("PK\x03\x04")):
		return unzip(b, limit)
	case len(b) > limit:
		return nil, fmt.Errorf("%w: more than %d octets", ErrTooLarge, limit)
	}
	return b, nil
}

var gzipMagic = []byte("\x1f\x8b")

// gunzip reads one member after the other; what stands behind the last is ignored, for some writers end
// their files in line ends.
func gunzip(b []byte, limit int) (out []byte, err error) {
	r := bytes.NewReader(b)
	for n := 0; bytes.HasPrefix(b[len(b)-r.Len():], gzipMagic); n++ {
		if n == maxZipFiles { // each may be empty and still costs memory
			return nil, fmt.Errorf("gzip: %w: more than %d members", ErrTooLarge, maxZipFiles)
		}
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		z.Multistream(false)
		part, err := readLimited(z, limit-len(out))
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		out = append(out, part...)
	}
	return out, nil
}

func unzip(b []byte, limit int) ([]byte, error) {
	// The library reads the whole directory at once, which may have half a million entries.
	if n := bytes.Count(b, []byte("PK\x01\x02")); n > maxZipFiles {
		return nil, fmt.Errorf("zip: %w: more than %d files", ErrTooLarge, maxZipFiles)
	}
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, fmt.Errorf("zip: %w", err)
	}
	for _, f := range z.File {
		if f.FileInfo().IsDir() {
			continue
		}
		r, err := f.Open()
		if err != nil {
			return nil, fmt.Errorf("zip: %w", err)
		}
		out, err := readLimited(r, limit)
		r.Close()
		if err != nil {
			return nil, fmt.Errorf("zip: %w", err)
		}
		if len(out) > 0 {
			return out, nil
		}
	}
	return nil, errors.New("zip: archive without a file")
}

// readLimited returns what it read with the error, too.
func readLimited(r io.Reader, limit int) ([]byte, error) {
	out, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if len(out) > limit {
		return nil, fmt.Errorf("%w: more than the %d octets allowed", ErrTooLarge, limit)
	}
	return out, err
}
