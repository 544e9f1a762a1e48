package reputation

import (
	"math"
	"slices"
)

// Token is the hash of a word or of another trait of a message.
type Token uint64

// words counts in how many wanted and unwanted messages each token was, and combines that by Robinson's
// and Fisher's method: Gary Robinson, "A Statistical Approach to the Spam Problem", Linux Journal 2003.
type words struct {
	counts    map[Token]tally
	ham, spam float64 // messages
}

type tally struct{ ham, spam float32 }

func newWords() words { return words{counts: make(map[Token]tally)} }

const (
	// minTrained is how many messages of each class must be known before words count at all.
	minTrained = 30
	// A token that was seen n times is believed as if it had been seen strength times more and been
	// neutral then.
	strength = 0.45
	// Tokens that say little are left out, and of the others the most telling are taken.
	minDistance = 0.1
	maxTelling  = 150
)

func (w *words) learn(tokens []Token, c Class, n float64) {
	if c == Spam {
		w.spam = max(w.spam+n, 0)
	} else {
		w.ham = max(w.ham+n, 0)
	}
	for _, t := range tokens {
		x := w.counts[t]
		if c == Spam {
			x.spam = max(x.spam+float32(n), 0)
		} else {
			x.ham = max(x.ham+float32(n), 0)
		}
		if x == (tally{}) {
			delete(w.counts, t)
			continue
		}
		w.counts[t] = x
	}
	if len(w.counts) > maxTokens {
		w.forget()
	}
}

// forget drops the rarest tokens until a tenth of the room is free.
func (w *words) forget() {
	for floor := float32(1); len(w.counts) > maxTokens-maxTokens/10; floor++ {
		for t, x := range w.counts {
			if x.ham+x.spam <= floor {
				delete(w.counts, t)
			}
		}
	}
}

// probability is how likely a message with this token is unwanted, as far as the token tells.
func (w *words) probability(t Token) float64 {
	x, ok := w.counts[t]
	if !ok {
		return 0.5
	}
	ham, spam := float64(x.ham)/w.ham, float64(x.spam)/w.spam
	p, n := spam/(ham+spam), float64(x.ham)+float64(x.spam)
	return (strength*0.5 + n*p) / (strength + n)
}

func (w *words) trained() bool { return w.ham >= minTrained && w.spam >= minTrained }

// judge returns the probability that a message with these tokens is unwanted, and how many of them told;
// ok is false while too little was learned.
func (w *words) judge(tokens []Token) (p float64, n int, ok bool) {
	if !w.trained() {
		return 0, 0, false
	}
	var telling []float64
	for _, t := range tokens {
		if p := w.probability(t); math.Abs(p-0.5) >= minDistance {
			telling = append(telling, p)
		}
	}
	slices.SortFunc(telling, func(a, b float64) int {
		switch x, y := math.Abs(a-0.5), math.Abs(b-0.5); {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
	telling = telling[:min(len(telling), maxTelling)]
	if len(telling) == 0 {
		return 0.5, 0, true
	}
	var forSpam, forHam float64
	for _, p := range telling {
		forSpam += math.Log(p)
		forHam += math.Log(1 - p)
	}
	h := chi2(-2*forSpam, 2*len(telling))
	s := chi2(-2*forHam, 2*len(telling))
	return (1 + h - s) / 2, len(telling), true
}

// chi2 is the probability that a chi-squared variable with an even number of degrees of freedom is at least
// x.
func chi2(x float64, degrees int) float64 {
	m := x / 2
	term := math.Exp(-m)
	sum := term
	for i := 1; i < degrees/2; i++ {
		term *= m / float64(i)
		sum += term
	}
	return min(sum, 1)
}
