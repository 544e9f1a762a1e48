package web

import "time"

// States of a Bitcoin half.
const (
	BitcoinOff      = "off"
	BitcoinStarting = "starting"
	BitcoinSyncing  = "syncing" // it does not know the best chain of today yet
	BitcoinReady    = "ready"
	BitcoinFailed   = "failed" // see Error; one of the user's may come back
)

// BitcoinStatus is what there is to tell of the Bitcoin half.
type BitcoinStatus struct {
	Mode    string `json:"mode"` // as bitcoin.mode of the configuration
	State   string `json:"state"`
	Network string `json:"network,omitempty"`
	Node    string `json:"node,omitempty"`  // what the node of mode external calls itself
	Error   string `json:"error,omitempty"` // why it failed

	Doing    string  `json:"doing,omitempty"` // what it has to do; a line for people
	Progress float64 `json:"progress"`        // of that or of the chain, from 0 to 1
	Rate     float64 `json:"blocks_per_second,omitempty"`
	Left     float64 `json:"seconds_left,omitempty"`

	Height  int       `json:"height"`
	Headers int       `json:"headers"`
	Tip     string    `json:"tip,omitempty"`
	TipTime time.Time `json:"tip_time,omitzero"`
	Peers   int       `json:"peers"`
}

// Bitcoin is what the pages and the API need of the Bitcoin half.
type Bitcoin interface {
	Status() BitcoinStatus
}
