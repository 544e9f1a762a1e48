package consensus

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
)

// headersOnly is a branch of headers that need no proof of work, as far as the rules about headers
// before the last one go.
type headersOnly struct {
	states []State
}

func newHeadersOnly(net *bitcoin.Network) *headersOnly {
	return &headersOnly{[]State{Genesis(net)}}
}

func (h *headersOnly) tip() *State { return &h.states[len(h.states)-1] }

// grow applies a header with the time and version given, and the right target for it.
func (h *headersOnly) grow(when uint32, version int32) {
	tip := h.tip()
	header := bitcoin.Header{Version: version, PrevBlock: tip.Hash, Time: when}
	header.Bits = tip.NextBits(when)
	h.states = append(h.states, tip.Apply(&header, header.Hash()))
}

func TestMedianTimePast(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	chain := newHeadersOnly(bitcoin.Regtest())
	for range 100 {
		chain.grow(uint32(random.IntN(1000)), 4)
	}
	for i := range chain.states {
		var times []uint32
		for j := max(0, i-10); j <= i; j++ {
			times = append(times, chain.states[j].Header.Time)
		}
		slices.Sort(times)
		if got, want := chain.states[i].MedianTimePast(), times[len(times)/2]; got != want {
			t.Fatalf("height %d: median %d, want %d", i, got, want)
		}
	}
}

// TestStateIsAValue grows two branches from one State: neither may see the other.
func TestStateIsAValue(t *testing.T) {
	fork := newHeadersOnly(bitcoin.Regtest())
	for i := range 20 {
		fork.grow(uint32(2000+i), 4)
	}
	one, two := headersOnly{slices.Clone(fork.states)}, headersOnly{slices.Clone(fork.states)}
	before := *fork.tip()
	for i := range 5 {
		one.grow(uint32(3000+i), 4)
		two.grow(uint32(9000+i), VersionTopBits|1<<28)
	}
	again := headersOnly{slices.Clone(fork.states)}
	for i := range 5 {
		again.grow(uint32(3000+i), 4)
	}
	if *again.tip() != *one.tip() {
		t.Error("the same headers give another State")
	}
	if *fork.tip() != before {
		t.Error("the State at the fork has changed")
	}
	if one.tip().Hash == two.tip().Hash {
		t.Error("the branches do not differ")
	}
}

func TestSubsidy(t *testing.T) {
	net := bitcoin.Mainnet()
	for _, test := range []struct {
		height bitcoin.Height
		want   bitcoin.Amount
	}{
		{0, 50 * bitcoin.Coin}, {209_999, 50 * bitcoin.Coin}, {210_000, 25 * bitcoin.Coin},
		{840_000, 312_500_000}, {6_929_999, 1}, {6_930_000, 0},
		{64 * 210_000, 0}, {1<<31 - 1, 0},
	} {
		if got := Subsidy(net, test.height); got != test.want {
			t.Errorf("height %d: %d, want %d", test.height, got, test.want)
		}
	}
	var total bitcoin.Amount
	for height := bitcoin.Height(0); height < 14_000_000; height += 1000 {
		total += 1000 * Subsidy(net, height)
	}
	if total != 2_099_999_997_690_000 { // Bitcoin Core test/validation_tests.cpp
		t.Errorf("sum of all subsidies %d", total)
	}
	if got := Subsidy(bitcoin.Regtest(), 150); got != 25*bitcoin.Coin {
		t.Errorf("regtest, height 150: %d", got)
	}
}

// naiveStage is the state machine of BIP 9 as the BIP writes it down: recursively, over all
// headers. It returns the stage of the block at the height.
func naiveStage(states []State, d *bitcoin.Deployment, height int) Stage {
	height -= height % int(d.Period)
	if height == 0 {
		return Defined
	}
	last := &states[height-1]
	switch stage := naiveStage(states, d, height-1); stage {
	case Defined:
		if int64(last.MedianTimePast()) >= d.Start {
			return Started
		}
		return stage
	case Started:
		count := 0
		for i := height - int(d.Period); i < height; i++ {
			version := uint32(states[i].Header.Version)
			if version>>29 == 1 && version>>d.Bit&1 == 1 {
				count++
			}
		}
		if count >= int(d.Threshold) {
			return LockedIn
		}
		if int64(last.MedianTimePast()) >= d.Timeout {
			return Failed
		}
		return stage
	case LockedIn:
		if height >= int(d.MinActivationHeight) {
			return Active
		}
		return stage
	default:
		return stage
	}
}

// TestVersionBits runs random chains with random deployments past the naive state machine.
func TestVersionBits(t *testing.T) {
	seen := map[Stage]int{}
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 9))
		net := bitcoin.Regtest()
		genesis := int64(net.Genesis.Header.Time)
		net.Deployments[bitcoin.TestDummy] = bitcoin.Deployment{
			Bit:                 uint8(random.IntN(29)),
			Start:               genesis + int64(random.IntN(40_000)),
			Timeout:             genesis + 40_000 + int64(random.IntN(60_000)),
			MinActivationHeight: bitcoin.Height(random.IntN(200)),
			Period:              10,
			Threshold:           7,
		}
		d := &net.Deployments[bitcoin.TestDummy]
		eager := random.Float64()
		chain := newHeadersOnly(net)
		when := uint32(genesis)
		for range 250 {
			when += uint32(300 + random.IntN(600))
			version := int32(VersionTopBits)
			if random.Float64() < eager {
				version |= 1 << d.Bit
			}
			if random.IntN(10) == 0 {
				version ^= 1 << 30 // no longer a version of signals
			}
			chain.grow(when, version)
		}
		since := 0
		for i := range chain.states {
			s := &chain.states[i]
			stage := naiveStage(chain.states, d, i)
			if i > 0 && stage != naiveStage(chain.states, d, i-1) {
				since = i
			}
			seen[stage]++
			next := naiveStage(chain.states, d, i+1)
			a := s.Activation(bitcoin.TestDummy)
			if a.Stage != stage || a.Next != next || int(a.Since) != since {
				t.Fatalf("seed %d, height %d: %v since %d then %v, want %v since %d then %v",
					seed, i, a.Stage, a.Since, a.Next, stage, since, next)
			}
			signals := next == Started || next == LockedIn
			if got := s.BlockVersion()>>d.Bit&1 == 1; got != signals {
				t.Fatalf("seed %d, height %d: next version signals %v in stage %v",
					seed, i, got, next)
			}
			if s.Activation(bitcoin.Taproot).Stage != Active { // always, on regtest
				t.Fatalf("height %d: taproot is %v", i, s.Activation(bitcoin.Taproot).Stage)
			}
		}
	}
	if len(seen) != 5 {
		t.Errorf("the random chains reach %v only", seen)
	}
}

// TestActivationFigures follows one deployment and what getdeploymentinfo says of it.
func TestActivationFigures(t *testing.T) {
	net := bitcoin.Regtest()
	genesis := int64(net.Genesis.Header.Time)
	net.Deployments[bitcoin.TestDummy] = bitcoin.Deployment{Bit: 28, Start: genesis,
		Timeout: bitcoin.NoTimeout, MinActivationHeight: 45, Period: 10, Threshold: 8}
	chain := newHeadersOnly(net)
	for height := 1; height <= 60; height++ {
		version := int32(VersionTopBits)
		if height != 12 && height != 13 {
			version |= 1 << 28
		}
		chain.grow(uint32(genesis)+uint32(height), version)
	}
	for _, want := range []struct {
		height          int
		stage, next     Stage
		since           bitcoin.Height
		elapsed, count  bitcoin.Height
		possible, known bool
		active          bitcoin.Height
	}{
		{height: 9, stage: Defined, next: Started, elapsed: 10, count: 9, possible: true},
		{height: 10, stage: Started, next: Started, since: 10, elapsed: 1, count: 1,
			possible: true},
		{height: 13, stage: Started, next: Started, since: 10, elapsed: 4, count: 2,
			possible: true},
		{height: 19, stage: Started, next: LockedIn, since: 10, elapsed: 10, count: 8,
			possible: true},
		{height: 20, stage: LockedIn, next: LockedIn, since: 20, elapsed: 1, count: 1},
		{height: 30, stage: LockedIn, next: LockedIn, since: 20, elapsed: 1, count: 1},
		{height: 49, stage: LockedIn, next: Active, since: 20, elapsed: 10, count: 10,
			known: true, active: 50},
		{height: 55, stage: Active, next: Active, since: 50, elapsed: 6, count: 6, possible: true,
			known: true, active: 50},
	} {
		s := &chain.states[want.height]
		a := s.Activation(bitcoin.TestDummy)
		got := fmt.Sprint(a.Stage, a.Next, a.Since, a.Elapsed, a.Count, a.Possible)
		expected := fmt.Sprint(want.stage, want.next, want.since, want.elapsed, want.count,
			want.possible)
		if got != expected {
			t.Errorf("height %d: %v, want %v", want.height, got, expected)
		}
		active, known := s.ActiveSince(bitcoin.TestDummy)
		if active != want.active || known != want.known {
			t.Errorf("height %d: active since %d, %v", want.height, active, known)
		}
	}
	if a := chain.states[13].Activation(bitcoin.TestDummy); a.Period != 10 || a.Threshold != 8 {
		t.Errorf("period %d, threshold %d", a.Period, a.Threshold)
	}
	if a := chain.states[25].Activation(bitcoin.TestDummy); a.Threshold != 0 {
		t.Errorf("threshold %d though locked in", a.Threshold)
	}
}

// TestSpecialDeployments: neither of the special values heeds what miners signal.
func TestSpecialDeployments(t *testing.T) {
	for _, test := range []struct {
		start int64
		want  Stage
	}{{bitcoin.AlwaysActive, Active}, {bitcoin.NeverActive, Failed}} {
		net := bitcoin.Regtest()
		net.Deployments[bitcoin.TestDummy].Start = test.start
		chain := newHeadersOnly(net)
		for height := range 3 * 144 {
			chain.grow(net.Genesis.Header.Time+uint32(height), VersionTopBits|1<<28)
		}
		for i := range chain.states {
			a := chain.states[i].Activation(bitcoin.TestDummy)
			if a.Stage != test.want || a.Next != test.want || a.Since != 0 {
				t.Fatalf("start %d, height %d: %+v", test.start, i, a)
			}
		}
		if v := chain.tip().BlockVersion(); v != VersionTopBits {
			t.Errorf("version %#x", v)
		}
	}
}

// TestUnknownActivations: bits that no deployment explains are watched on Core's terms, and those
// of a known deployment only outside its stages of signalling.
func TestUnknownActivations(t *testing.T) {
	net := bitcoin.Regtest() // periods of 144, of which 108 must signal
	chain := newHeadersOnly(net)
	grow := func(blocks int, version int32) {
		for range blocks {
			chain.grow(chain.tip().Header.Time+1, version)
		}
	}
	grow(143, VersionTopBits) // up to the end of the first period, which is never one of signalling
	grow(36, VersionTopBits)
	grow(108, VersionTopBits|1<<27|1<<28) // 28 is testdummy, which is being signalled
	check := func(wantLocked, wantActive string) {
		t.Helper()
		lockedIn, active := chain.tip().UnknownActivations()
		if fmt.Sprint(lockedIn) != wantLocked || fmt.Sprint(active) != wantActive {
			t.Errorf("height %d: locked in %v, active %v; want %s, %s",
				chain.tip().Height, lockedIn, active, wantLocked, wantActive)
		}
	}
	check("[27]", "[]")
	grow(143, VersionTopBits)
	check("[27]", "[]")
	grow(1, VersionTopBits)
	check("[]", "[27]")
	net.MinBIP9WarningHeight = 1000
	chain = newHeadersOnly(net)
	grow(4*144, VersionTopBits|1<<27)
	check("[]", "[]")
}

// TestMinDifficulty runs the rules for easy blocks of the test networks.
func TestMinDifficulty(t *testing.T) {
	const interval = 2016
	limit := uint32(0x1d00ffff)
	for _, net := range []*bitcoin.Network{bitcoin.Testnet3(), bitcoin.Testnet4()} {
		chain := newHeadersOnly(net)
		step := func(seconds uint32) { chain.grow(chain.tip().Header.Time+seconds, VersionTopBits) }
		for range interval - 1 {
			step(300)
		}
		step(300) // first of the second period: twice as hard
		hard := chain.tip().Header.Bits
		if hard == limit || hard == 0x1d00ffff {
			t.Fatalf("%s: target %08x after a fast period", net.Name, hard)
		}
		for _, row := range []struct {
			seconds, want uint32
		}{
			{1200, hard}, {1201, limit}, {1200, hard}, {1201, limit}, {5000, limit},
			{1, hard}, {1201, limit},
		} {
			if step(row.seconds); chain.tip().Header.Bits != row.want {
				t.Errorf("%s, height %d, after %d s: target %08x, want %08x", net.Name,
					chain.tip().Height, row.seconds, chain.tip().Header.Bits, row.want)
			}
		}
		for chain.tip().Height%interval != interval-2 {
			step(600)
		}
		step(1201) // an easy block at the end of the period
		s := chain.tip()
		// Testnet3 goes on from the easy block, testnet4 from the first block of the period.
		from := limit
		if net.EnforceBIP94 {
			from = hard
		}
		first := chain.states[len(chain.states)-interval].Header.Time
		want := scale(net, from, int64(s.Header.Time-first))
		if got := s.NextBits(s.Header.Time + 5000); got != want {
			t.Errorf("%s: %08x after a period with an easy end, want %08x", net.Name, got, want)
		}
	}
}

// TestRegtestNeverRetargets: not even where BIP 94 is switched on.
func TestRegtestNeverRetargets(t *testing.T) {
	chain := newHeadersOnly(bitcoin.Regtest())
	for range 1000 {
		chain.grow(chain.tip().Header.Time+1, 4)
	}
	if bits := chain.tip().NextBits(0); bits != 0x207fffff {
		t.Errorf("target %08x", bits)
	}
}

func TestEquivalentTime(t *testing.T) {
	net := bitcoin.Mainnet()
	work := func(blocks uint32) bitcoin.Uint256 {
		return bitcoin.Work(0x1d00ffff).MulUint32(blocks)
	}
	for _, test := range []struct {
		to, from bitcoin.Uint256
		want     int64
	}{
		{work(10), work(4), 3600},
		{work(4), work(10), -3600},
		{work(4), work(4), 0},
		{bitcoin.Uint256{}.Not(), work(0), 1<<63 - 1},
		{work(0), bitcoin.Uint256{}.Not().Rsh(20), -(1<<63 - 1)},
	} {
		if got := EquivalentTime(net, test.to, test.from, 0x1d00ffff); got != test.want {
			t.Errorf("%v to %v: %d, want %d", test.from, test.to, got, test.want)
		}
	}
}

func TestAssumeValid(t *testing.T) {
	net := bitcoin.Mainnet()
	chain := newHeadersOnly(net)
	for range 10 {
		chain.grow(chain.tip().Header.Time+600, 1)
	}
	s := chain.tip()
	weeks := func(n uint32) bitcoin.Uint256 {
		return s.Work.Add(bitcoin.Work(0x1d00ffff).MulUint32(n * 1008))
	}
	valid := AssumeValid{Configured: true, Known: true, Height: 100, Ancestor: true, InBest: true,
		BestWork: weeks(3), BestBits: 0x1d00ffff}
	if must, reason := valid.Verify(s); must || reason != "" {
		t.Fatalf("scripts of an ancestor must run: %s", reason)
	}
	for _, test := range []struct {
		want  string
		spoil func(*AssumeValid)
	}{
		{"assumevalid=0 (always verify)", func(a *AssumeValid) { a.Configured = false }},
		{"assumevalid hash not in headers", func(a *AssumeValid) { a.Known = false }},
		{"block not in assumevalid chain", func(a *AssumeValid) { a.Ancestor = false }},
		{"block height above assumevalid height", func(a *AssumeValid) {
			a.Ancestor, a.Height = false, 9
		}},
		{"block not in best header chain", func(a *AssumeValid) { a.InBest = false }},
		{"best header chainwork below minimumchainwork", func(a *AssumeValid) {
			a.MinWork = weeks(4)
		}},
		{"block too recent relative to best header", func(a *AssumeValid) {
			a.BestWork = weeks(2)
		}},
	} {
		a := valid
		test.spoil(&a)
		if must, reason := a.Verify(s); !must || reason != test.want {
			t.Errorf("%v %q, want %q", must, reason, test.want)
		}
	}
}

// TestCheckHeader breaks one thing of a valid header at a time. Regtest's target needs two tries at
// a proof.
func TestCheckHeader(t *testing.T) {
	net := bitcoin.Regtest()
	net.EnforceBIP94 = true
	chain := newHeadersOnly(net)
	for range 143 {
		chain.grow(chain.tip().Header.Time+600, 4)
	}
	s := *chain.tip() // the next one begins a period
	now := time.Unix(int64(s.Header.Time)+600, 999_000_000)
	valid := bitcoin.Header{Version: VersionTopBits, PrevBlock: s.Hash,
		Time: s.Header.Time + 600, Bits: 0x207fffff}
	for _, test := range []struct {
		want    string // reason, or empty
		kind    Kind
		corrupt func(*bitcoin.Header)
	}{
		{"", 0, func(h *bitcoin.Header) {}},
		{"", 0, func(h *bitcoin.Header) { h.Version = 4 }},
		{"", 0, func(h *bitcoin.Header) { h.Time += 7200 }},
		{"", 0, func(h *bitcoin.Header) { h.Time = s.Header.Time - 600 }},
		{"bad-diffbits", KindInvalidHeader, func(h *bitcoin.Header) { h.Bits-- }},
		{"prev-blk-not-found", KindMissingPrev, func(h *bitcoin.Header) { h.PrevBlock[3]++ }},
		{"time-too-old", KindInvalidHeader, func(h *bitcoin.Header) {
			h.Time = s.MedianTimePast()
		}},
		{"time-timewarp-attack", KindInvalidHeader, func(h *bitcoin.Header) {
			h.Time = s.Header.Time - 601
		}},
		{"time-too-new", KindTimeFuture, func(h *bitcoin.Header) { h.Time += 7201 }},
		{"bad-version(0x00000003)", KindInvalidHeader, func(h *bitcoin.Header) { h.Version = 3 }},
		{"bad-version(0xe0000000)", KindInvalidHeader, func(h *bitcoin.Header) {
			h.Version = -1 << 29
		}},
	} {
		h := valid
		test.corrupt(&h)
		solve(net, &h)
		expectError(t, CheckHeader(s, &h, h.Hash(), now), test.kind, test.want)
	}
	h := valid
	for h.Nonce = 0; bitcoin.MeetsTarget(h.Hash(), h.Bits, net.PowLimit); h.Nonce++ {
	}
	expectError(t, CheckHeader(s, &h, h.Hash(), now), KindInvalidHeader, "high-hash")
	h.Bits = 0x2100ffff // easier than the limit: no proof at all
	expectError(t, CheckHeader(s, &h, bitcoin.Hash{}, now), KindInvalidHeader, "high-hash")
}

// TestHeaderVersions: each of the three rules that were activated by version asks for its own.
func TestHeaderVersions(t *testing.T) {
	net := bitcoin.Regtest()
	net.BIP34Height, net.BIP66Height, net.BIP65Height = 2, 3, 4
	chain := newHeadersOnly(net)
	for height, least := range []int32{-1 << 31, 2, 3, 4} {
		s := *chain.tip()
		for _, version := range []int32{-1 << 31, -1, 0, 1, 2, 3, 4, VersionTopBits} {
			h := bitcoin.Header{Version: version, PrevBlock: s.Hash, Time: s.Header.Time + 600,
				Bits: 0x207fffff}
			solve(net, &h)
			want := ""
			if version < least {
				want = fmt.Sprintf("bad-version(0x%08x)", uint32(version))
			}
			err := CheckHeader(s, &h, h.Hash(), time.Unix(int64(h.Time), 0))
			expectError(t, err, KindInvalidHeader, want)
		}
		chain.grow(uint32(1_300_000_000+600*height), 4)
	}
}
