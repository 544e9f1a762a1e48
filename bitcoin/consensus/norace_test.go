//go:build !race

package consensus

const scriptSample = 1
