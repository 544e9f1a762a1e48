package evidence

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
)

// part is a file in the archive.
type part struct {
	name string
	data []byte
}

// The records of a zip archive (PKWARE APPNOTE 6.3.10, section 4.3), as far as method Store needs
// them.
const (
	localSignature   = 0x04034b50
	centralSignature = 0x02014b50
	endSignature     = 0x06054b50

	localSize   = 30
	versionZip  = 10     // 1.0: what it takes to unpack Store
	dateOfParts = 0x0021 // 1980-01-01, the first there is

	maxName  = 32
	maxParts = 4*MaxEvents + 4
)

// appendCommon appends what local and central records have in common, from the version needed on.
func appendCommon(dst []byte, p part) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint16(dst, versionZip)
	dst = le.AppendUint16(dst, 0) // flags
	dst = le.AppendUint16(dst, 0) // Store
	dst = le.AppendUint16(dst, 0) // time
	dst = le.AppendUint16(dst, dateOfParts)
	dst = le.AppendUint32(dst, crc32.ChecksumIEEE(p.data))
	dst = le.AppendUint32(dst, uint32(len(p.data))) // compressed
	dst = le.AppendUint32(dst, uint32(len(p.data)))
	dst = le.AppendUint16(dst, uint16(len(p.name)))
	return le.AppendUint16(dst, 0) // extra fields
}

// writeArchive writes the one archive that these parts make. Its own writer keeps it the same for
// ever: archive/zip promises no such thing.
func writeArchive(w io.Writer, parts []part) error {
	le := binary.LittleEndian
	if len(parts) > maxParts {
		return fmt.Errorf("%d parts, the limit is %d", len(parts), maxParts)
	}
	var central []byte
	offset := uint64(0)
	for _, p := range parts {
		if offset+uint64(len(p.data)) > math.MaxInt32 {
			return errors.New("the parts are larger than 2 GiB")
		}
		central = le.AppendUint32(central, centralSignature)
		central = le.AppendUint16(central,
			versionZip) // made by: MS-DOS, so that there are no modes
		central = appendCommon(central, p)
		central = append(central, make([]byte, 10)...) // comment, disk, attributes: none
		central = le.AppendUint32(central, uint32(offset))
		central = append(central, p.name...)

		local := le.AppendUint32(nil, localSignature)
		local = appendCommon(local, p)
		local = append(local, p.name...)
		if _, err := w.Write(local); err != nil {
			return fmt.Errorf("header of %s: %w", p.name, err)
		}
		if _, err := w.Write(p.data); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		offset += uint64(len(local) + len(p.data))
	}
	end := le.AppendUint32(central, endSignature)
	end = le.AppendUint32(end, 0) // disks
	end = le.AppendUint16(end, uint16(len(parts)))
	end = le.AppendUint16(end, uint16(len(parts)))
	end = le.AppendUint32(end, uint32(len(central)))
	end = le.AppendUint32(end, uint32(offset))
	end = le.AppendUint16(end, 0) // comment
	if _, err := w.Write(end); err != nil {
		return fmt.Errorf("directory of the archive: %w", err)
	}
	return nil
}

// readArchive takes the parts out of an archive, from the local records alone. The parts share its
// memory. Whether it is the archive that the parts make is for sameArchive to say.
func readArchive(file []byte) ([]part, error) {
	le := binary.LittleEndian
	var parts []part
	rest := file
	for len(rest) >= localSize && le.Uint32(rest) == localSignature {
		if len(parts) == maxParts {
			return nil, fmt.Errorf("more than %d parts", maxParts)
		}
		size, nameSize := uint64(le.Uint32(rest[22:])), int(le.Uint16(rest[26:]))
		if nameSize == 0 || nameSize > maxName || le.Uint16(rest[28:]) != 0 {
			return nil, fmt.Errorf("part %d of the archive has a bad name or extra fields",
				len(parts)+1)
		}
		rest = rest[localSize:]
		if uint64(len(rest)) < uint64(nameSize)+size {
			return nil, fmt.Errorf("the file ends inside part %d of the archive", len(parts)+1)
		}
		parts = append(parts, part{
			name: string(rest[:nameSize]),
			data: rest[nameSize : nameSize+int(size) : nameSize+int(size)],
		})
		rest = rest[nameSize+int(size):]
	}
	if len(parts) == 0 {
		return nil, errors.New("not an evidence file: it does not begin as a zip archive does")
	}
	return parts, nil
}

// sameArchive writes the archive of the parts anew and compares it with the file, octet for octet.
func sameArchive(file []byte, parts []part) error {
	c := comparer{want: file}
	if err := writeArchive(&c, parts); err != nil {
		return err
	}
	if c.at != len(file) {
		return fmt.Errorf("%d octets behind the end of the archive", len(file)-c.at)
	}
	return nil
}

// comparer is a writer that fails at the first octet that is not the one wanted.
type comparer struct {
	want []byte
	at   int
}

func (c *comparer) Write(p []byte) (int, error) {
	rest := c.want[c.at:]
	if len(rest) >= len(p) && bytes.Equal(rest[:len(p)], p) {
		c.at += len(p)
		return len(p), nil
	}
	n := 0
	for n < len(p) && n < len(rest) && p[n] == rest[n] {
		n++
	}
	if n == len(rest) {
		return n, fmt.Errorf("the file ends at octet %d, which is too early", len(c.want))
	}
	return n, fmt.Errorf("octet %d of the file is %#02x, want %#02x", c.at+n, rest[n], p[n])
}
