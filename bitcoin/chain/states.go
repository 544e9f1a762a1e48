package chain

import (
	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

const (
	// stateInterval is how many blocks lie between two States that are kept for good: half an octet
	// a header, and at most so many headers to apply for any other State.
	stateInterval = 1024
	// recentStates is how many others are kept: those of the tip, the best header and some branches.
	recentStates = 16
)

// states finds the State of any block. Those of every stateInterval-th height are kept, any other
// is had by applying the headers since.
type states struct {
	kept   map[node]*consensus.State
	recent [recentStates]struct {
		n     node
		state consensus.State
	}
	next int // of recent, to be replaced
	path []node
}

func (s *states) init(net *bitcoin.Network) {
	genesis := consensus.Genesis(net)
	s.kept = map[node]*consensus.State{0: &genesis}
	for i := range s.recent {
		s.recent[i].n = none
	}
}

// of returns the State of a node.
func (s *states) of(t *tree, n node) consensus.State {
	s.path = s.path[:0]
	at := n
	from := s.find(at)
	for from == nil {
		s.path = append(s.path, at)
		at = t.at(at).parent
		from = s.find(at)
	}
	state := *from
	for i := len(s.path) - 1; i >= 0; i-- {
		h := t.header(s.path[i])
		state = state.Apply(&h, t.at(s.path[i]).hash)
		if state.Height%stateInterval == 0 {
			s.keep(s.path[i], &state)
		}
	}
	if len(s.path) > 0 {
		s.remember(n, &state)
	}
	return state
}

// put notes the State of a node that was computed elsewhere.
func (s *states) put(n node, state *consensus.State) {
	if state.Height%stateInterval == 0 {
		s.keep(n, state)
	}
	if s.find(n) == nil {
		s.remember(n, state)
	}
}

func (s *states) find(n node) *consensus.State {
	for i := range s.recent {
		if s.recent[i].n == n {
			return &s.recent[i].state
		}
	}
	return s.kept[n]
}

func (s *states) keep(n node, state *consensus.State) {
	if s.kept[n] == nil {
		kept := *state
		s.kept[n] = &kept
	}
}

func (s *states) remember(n node, state *consensus.State) {
	r := &s.recent[s.next]
	r.n, r.state = n, *state
	s.next = (s.next + 1) % recentStates
}
