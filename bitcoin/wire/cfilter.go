package wire

import (
	"encoding/binary"

	"github.com/tallypost/tallypost/bitcoin"
)

// BasicFilter is the one type of filter that BIP 158 defines.
const BasicFilter uint8 = 0

// FilterRange asks for filters of blocks from a height to the block of a hash (BIP 157).
type FilterRange struct {
	Type  uint8
	Start uint32 // height
	Stop  bitcoin.Hash
}

func (r *FilterRange) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(append(dst, r.Type), r.Start)
	return append(dst, r.Stop[:]...)
}

func (d *decoder) filterRange() FilterRange {
	return FilterRange{Type: d.uint8(), Start: d.uint32(), Stop: d.hash()}
}

// GetCFilters asks for a cfilter for each block of a range.
type GetCFilters struct{ FilterRange }

// Command returns "getcfilters".
func (*GetCFilters) Command() string { return "getcfilters" }

// Append appends the payload.
func (m *GetCFilters) Append(dst []byte) []byte { return m.FilterRange.append(dst) }

func parseGetCFilters(d *decoder) Message { return &GetCFilters{d.filterRange()} }

// CFilter carries the filter of one block.
type CFilter struct {
	Type   uint8
	Block  bitcoin.Hash
	Filter []byte
}

// Command returns "cfilter".
func (*CFilter) Command() string { return "cfilter" }

// Append appends the payload.
func (m *CFilter) Append(dst []byte) []byte {
	dst = append(append(dst, m.Type), m.Block[:]...)
	return appendVarBytes(dst, m.Filter)
}

func parseCFilter(d *decoder) Message {
	return &CFilter{Type: d.uint8(), Block: d.hash(), Filter: d.varBytes()}
}

// GetCFHeaders asks for a cfheaders for a range of blocks.
type GetCFHeaders struct{ FilterRange }

// Command returns "getcfheaders".
func (*GetCFHeaders) Command() string { return "getcfheaders" }

// Append appends the payload.
func (m *GetCFHeaders) Append(dst []byte) []byte { return m.FilterRange.append(dst) }

func parseGetCFHeaders(d *decoder) Message { return &GetCFHeaders{d.filterRange()} }

// CFHeaders carries the hashes of the filters of a range, and the filter header before it, from
// which the receiver computes the headers of all.
type CFHeaders struct {
	Type       uint8
	Stop       bitcoin.Hash
	PrevHeader bitcoin.Hash
	Hashes     []bitcoin.Hash
}

// Command returns "cfheaders".
func (*CFHeaders) Command() string { return "cfheaders" }

// Append appends the payload.
func (m *CFHeaders) Append(dst []byte) []byte {
	dst = append(append(dst, m.Type), m.Stop[:]...)
	return appendHashes(append(dst, m.PrevHeader[:]...), m.Hashes)
}

func parseCFHeaders(d *decoder) Message {
	m := &CFHeaders{Type: d.uint8(), Stop: d.hash(), PrevHeader: d.hash()}
	const text = "cfheaders message size = %d"
	m.Hashes = d.hashList(d.countAtMost(len(bitcoin.Hash{}), MaxCFHeaders, text))
	return m
}

// GetCFCheckpt asks for the filter header of every 1,000th block up to a hash.
type GetCFCheckpt struct {
	Type uint8
	Stop bitcoin.Hash
}

// Command returns "getcfcheckpt".
func (*GetCFCheckpt) Command() string { return "getcfcheckpt" }

// Append appends the payload.
func (m *GetCFCheckpt) Append(dst []byte) []byte {
	return append(append(dst, m.Type), m.Stop[:]...)
}

func parseGetCFCheckpt(d *decoder) Message {
	return &GetCFCheckpt{Type: d.uint8(), Stop: d.hash()}
}

// CFCheckpt carries the filter headers that a getcfcheckpt asked for.
type CFCheckpt struct {
	Type    uint8
	Stop    bitcoin.Hash
	Headers []bitcoin.Hash
}

// Command returns "cfcheckpt".
func (*CFCheckpt) Command() string { return "cfcheckpt" }

// Append appends the payload.
func (m *CFCheckpt) Append(dst []byte) []byte {
	return appendHashes(append(append(dst, m.Type), m.Stop[:]...), m.Headers)
}

func parseCFCheckpt(d *decoder) Message {
	return &CFCheckpt{Type: d.uint8(), Stop: d.hash(), Headers: d.hashes()}
}
