package consensus

import "github.com/tallypost/tallypost/bitcoin"

// Coin is an unspent output and where it comes from. No coin has height 0, for the genesis block creates
// none: the zero Coin stands for an output that does not exist or is spent.
type Coin struct {
	Out      bitcoin.TxOut // the script must not change, as others may hold it too
	Height   bitcoin.Height
	Coinbase bool
}

// IsSpent reports whether this is no coin.
func (c *Coin) IsSpent() bool { return c.Height == 0 }

// View is what the rules read from outside while they judge a block: the coins as the block before left
// them, and the times of the branch that ends there.
type View interface {
	// Coins sets coins[i] to the unspent output at outs[i], or to the zero Coin where there is none.
	// The two have the same length, and outs no outpoint twice.
	Coins(outs []bitcoin.OutPoint, coins []Coin) error

	// MedianTimePast returns that of the block at the height on this branch; see State.MedianTimePast.
	Medians
}

// maxScriptSize is the size past which a script cannot be run (Bitcoin Core script/script.h,
// MAX_SCRIPT_SIZE).
const maxScriptSize = 10_000

const opReturn = 0x6a

// IsUnspendable reports whether no input can ever spend an output with this script. Such outputs
// never become coins (Bitcoin Core script/script.h, IsUnspendable).
func IsUnspendable(script []byte) bool {
	return len(script) > 0 && script[0] == opReturn || len(script) > maxScriptSize
}
