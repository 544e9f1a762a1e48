// Package consensus decides whether a block belongs to the chain: the rules that every node must
// judge alike, in Bitcoin Core's order and with Core's words for what is wrong.
//
// The rules are functions over values. A State is everything about the headers up to a block that
// judging its successor needs, in half a kilobyte, so that a fork is a copy and the state of any
// block is had by applying headers from an earlier one. A block goes this way:
//
//	CheckHeader(state, header, hash, now)    proof of work, difficulty, time, version
//	NewCandidate(network, block, 0)          Merkle root, form of each transaction; anywhere
//	CheckBlockAt(state, block)               height, finality, witness commitment, weight
//	Connect(state, candidate, view)          amounts, maturity, relative locks, fees, sigops
//	  -> next state, Diff, error             what the coins lose and gain, and undo data
//	RunChecks(ctx, workers, diff.Checks())   scripts, in parallel, of several blocks at once
//	Disconnect(state, candidate, undo, view) the way back
//
// Only Connect has an order: each block needs the coins as the one before left them. It runs no
// script. A block may count as part of the chain only after its scripts have passed as well; until
// then what was applied can be taken back with the undo data.
//
// What Connect needs beyond the block comes in through a View, what it changes goes out as a Diff.
// Wrong blocks give an *Error; any other error comes from the View and says nothing about the
// block.
//
// Not here: a clock, disk, network, log or any goroutine that outlives its call. Which of two valid
// chains is better, storing blocks and coins, policy for unconfirmed transactions, and the script
// interpreter are other packages.
package consensus
