package bitcoin

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Network is what distinguishes one Bitcoin network from another. The values are those of Bitcoin
// Core's kernel/chainparams.cpp, December 2025. A Network is not changed once it is in use: the
// With methods return changed copies.
type Network struct {
	Name    string // as in Core's -chain: main, test, testnet4, signet, regtest
	DataDir string // folder below the data directory; empty for main

	// The wire.
	Magic    [4]byte
	Port     uint16   // peers
	RPCPort  uint16   // JSON-RPC
	DNSSeeds []string // names that answer with addresses of nodes
	// FixedSeeds are addresses of nodes for who finds none otherwise, in the form of wire.ParseAddrs.
	FixedSeeds string

	// Addresses and keys.
	PubKeyHashPrefix byte // base58 addresses of P2PKH
	ScriptHashPrefix byte // base58 addresses of P2SH
	SecretPrefix     byte // WIF keys
	ExtPublicPrefix  [4]byte
	ExtSecretPrefix  [4]byte
	Bech32HRP        string

	// Proof of work.
	Genesis            *Block
	PowLimit           Uint256       // the easiest target
	TargetSpacing      time.Duration // aimed at between blocks
	TargetTimespan     time.Duration // of blocks whose time sets the next target
	AllowMinDifficulty bool          // a block 20 minutes late may have the easiest target
	NoRetargeting      bool
	EnforceBIP94       bool // testnet4's rules against time warp and block storms
	MinimumChainWork   Uint256
	AssumeValid        Hash // scripts of this block's ancestors need no check; zero for none

	// Rules and the height of the first block that they bind.
	SubsidyInterval      Height // blocks between halvings
	BIP34Height          Height // height in the coinbase
	BIP34Hash            Hash   // of the block at BIP34Height; zero where unknown
	BIP65Height          Height // OP_CHECKLOCKTIMEVERIFY
	BIP66Height          Height // strict DER
	CSVHeight            Height // BIP 68, 112, 113
	SegwitHeight         Height // BIP 141, 143, 147
	MinBIP9WarningHeight Height // unknown signals below it are old ones
	Deployments          [NumDeployments]Deployment
	ScriptExceptions     []ScriptException
	SignetChallenge      []byte // script that signs each block (BIP 325); else nil

	// For the node.
	Snapshots        []Snapshot // coins that loadtxoutset accepts
	TxStats          TxStats
	HeadersSync      HeadersSync
	PruneAfterHeight Height
	AssumedBlocksGB  int // disk that all blocks take, roughly
	AssumedCoinsGB   int
	ExpensiveChecks  bool // check index and mempool all the time: regtest
	MockableTime     bool // setmocktime is allowed
}

// DeploymentID names a deployment by version bits (BIP 9).
type DeploymentID int

// The deployments in Core's order.
const (
	TestDummy DeploymentID = iota
	Taproot                // BIP 340, 341, 342
	NumDeployments
)

// String returns the name that -vbparams and getdeploymentinfo use.
func (id DeploymentID) String() string {
	switch id {
	case TestDummy:
		return "testdummy"
	case Taproot:
		return "taproot"
	}
	return fmt.Sprintf("deployment %d", int(id))
}

// Special values of Deployment.Start and Deployment.Timeout.
const (
	AlwaysActive int64 = -1            // as Start: active from the first block on
	NeverActive  int64 = -2            // as Start: never, whatever is signalled
	NoTimeout    int64 = math.MaxInt64 // as Timeout
)

// Deployment is a rule that miners activate by version bits (BIP 9), with the minimum activation
// height that taproot used.
type Deployment struct {
	Bit                 uint8
	Start, Timeout      int64  // median time past in seconds since 1970, or a special value
	MinActivationHeight Height // a rule locked in earlier waits for it
	Period, Threshold   Height // blocks per period, and how many of them must signal
}

// ScriptException is a block that is valid only under fewer script rules than its height asks for.
type ScriptException struct {
	Block         Hash
	P2SH, Witness bool // the rules that do hold; no other does
}

// Snapshot is a set of coins that Core's developers have vouched for (assumeutxo).
type Snapshot struct {
	Height    Height
	Block     Hash
	CoinsHash Hash   // hash_serialized_3 of gettxoutsetinfo
	ChainTxs  uint64 // transactions up to the block
}

// Snapshot returns the coins that are vouched for as of a block, or nil.
func (n *Network) Snapshot(block Hash) *Snapshot {
	for i := range n.Snapshots {
		if n.Snapshots[i].Block == block {
			return &n.Snapshots[i]
		}
	}
	return nil
}

// TxStats says how many transactions a network had, to tell how far a sync has come.
type TxStats struct {
	Time  int64 // seconds since 1970
	Count uint64
	Rate  float64 // transactions a second after Time
}

// HeadersSync sizes the protection against floods of headers with little work.
type HeadersSync struct {
	CommitmentPeriod int // headers between two commitments
	RedownloadBuffer int // headers
}

// RetargetInterval returns the number of blocks between two changes of the target.
func (n *Network) RetargetInterval() Height { return Height(n.TargetTimespan / n.TargetSpacing) }

// OnionPort returns the port where peers that come by Tor are expected.
func (n *Network) OnionPort() uint16 { return n.Port + 1 }

// NetworkByName returns the network that Core's -chain calls so.
func NetworkByName(name string) (*Network, error) {
	for _, network := range []func() *Network{Mainnet, Testnet3, Testnet4, Signet, Regtest} {
		if n := network(); n.Name == name {
			return n, nil
		}
	}
	return nil, fmt.Errorf("unknown chain %q: want main, test, testnet4, signet or regtest", name)
}

// NetworkByMagic returns the public network, or regtest, whose messages begin with this, or nil.
func NetworkByMagic(magic [4]byte) *Network {
	for _, network := range []func() *Network{Mainnet, Testnet3, Testnet4, Signet, Regtest} {
		if n := network(); n.Magic == magic {
			return n
		}
	}
	return nil
}

// WithActivationHeight returns a copy in which a buried rule binds from another height on. The
// argument is that of Core's -testactivationheight, name@height, which Core heeds on regtest only;
// the errors are Core's.
func (n *Network) WithActivationHeight(arg string) (*Network, error) {
	const option = "for -testactivationheight=name@height."
	name, value, found := strings.Cut(arg, "@")
	if !found {
		return nil, coreError("Invalid format (%s) %s", arg, option)
	}
	height, ok := parseInteger(value, 32)
	if !ok || height < 0 || height >= math.MaxInt32 {
		return nil, coreError("Invalid height value (%s) %s", arg, option)
	}
	c := *n
	heights := map[string]*Height{
		"segwit": &c.SegwitHeight,
		"bip34":  &c.BIP34Height,
		"dersig": &c.BIP66Height,
		"cltv":   &c.BIP65Height,
		"csv":    &c.CSVHeight,
	}
	rule, ok := heights[name]
	if !ok {
		return nil, coreError("Invalid name (%s) %s", arg, option)
	}
	*rule = Height(height)
	return &c, nil
}

// WithVersionBits returns a copy in which a deployment has other times. The argument is that of
// Core's -vbparams, deployment:start:end[:min_activation_height], which Core heeds on regtest only;
// the errors are Core's.
func (n *Network) WithVersionBits(arg string) (*Network, error) {
	part := strings.Split(arg, ":")
	if len(part) < 3 || len(part) > 4 {
		return nil, coreError("Version bits parameters malformed, " +
			"expecting deployment:start:end[:min_activation_height]")
	}
	var value [3]int64
	for i, name := range []string{"nStartTime", "nTimeout", "min_activation_height"} {
		if i+1 == len(part) {
			break
		}
		bits := 64
		if i == 2 {
			bits = 32
		}
		var ok bool
		if value[i], ok = parseInteger(part[i+1], bits); !ok {
			return nil, coreError("Invalid %s (%s)", name, part[i+1])
		}
	}
	c := *n
	for id := range c.Deployments {
		if DeploymentID(id).String() == part[0] {
			d := &c.Deployments[id]
			d.Start, d.Timeout, d.MinActivationHeight = value[0], value[1], Height(value[2])
			return &c, nil
		}
	}
	return nil, coreError("Invalid deployment (%s)", part[0])
}

// coreText is an error in Core's words, which begin with a capital letter and may end in a full
// stop: tests and users look for them.
type coreText string

func (e coreText) Error() string { return string(e) }

func coreError(format string, args ...any) error { return coreText(fmt.Sprintf(format, args...)) }

// parseInteger reads a decimal number as Core's ToIntegral does: without a plus sign.
func parseInteger(s string, bits int) (int64, bool) {
	v, err := strconv.ParseInt(s, 10, bits)
	return v, err == nil && s[0] != '+'
}
