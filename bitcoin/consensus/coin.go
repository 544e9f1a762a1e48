package consensus

import "github.com/tallypost/tallypost/bitcoin"

// Coin is an unspent output and where it comes from. The zero Coin stands for an output that does
// not exist or is spent.
type Coin struct {
	Out bitcoin.TxOut // the script must not be changed, as others may hold it too
	Origin
}

// Origin says which block created a coin and whether its coinbase did. No coin has height 0, for
// the genesis block creates none.
type Origin struct {
	Height   bitcoin.Height
	Coinbase bool
}

// IsSpent reports whether this is the origin of no coin.
func (o Origin) IsSpent() bool { return o.Height == 0 }

// Spent are the coins that the inputs of a transaction spend, or those of a whole block, coinbase
// apart: one for each input, in order. For a block that is its undo data.
type Spent struct {
	Outs    []bitcoin.TxOut
	Origins []Origin
}

// NewSpent returns room for the coins of n inputs.
func NewSpent(n int) Spent {
	return Spent{Outs: make([]bitcoin.TxOut, n), Origins: make([]Origin, n)}
}

// Len returns the number of coins.
func (s Spent) Len() int { return len(s.Outs) }

// Coin returns the coin of an input.
func (s Spent) Coin(input int) Coin { return Coin{s.Outs[input], s.Origins[input]} }

// Set sets the coin of an input.
func (s Spent) Set(input int, c *Coin) { s.Outs[input], s.Origins[input] = c.Out, c.Origin }

// Part returns the coins of the inputs from one up to another.
func (s Spent) Part(from, to int) Spent { return Spent{s.Outs[from:to:to], s.Origins[from:to:to]} }

// View is what the rules read from outside while they judge a block: the coins as the block before
// left them, and the times of the branch that ends there.
type View interface {
	// Coins sets coins[i] to the unspent output at outs[i], or to the zero Coin where there is
	// none. The slices are of one length and are not kept.
	Coins(outs []bitcoin.OutPoint, coins []Coin) error

	// MedianTimePast is that of the block at the height on this branch, see State.MedianTimePast.
	Medians
}
