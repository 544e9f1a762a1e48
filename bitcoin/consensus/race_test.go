//go:build race

package consensus

// scriptSample is which share of a real block's scripts the tests run: under the race detector
// signatures take ten times as long.
const scriptSample = 20
