package reputation

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// TestCorpus trains on a part of a public corpus and judges the rest. TALLYPOST_SPAM_CORPUS names its folder:
// subfolders whose name begins with "spam" or contains "ham" hold one message a file, as SpamAssassin's
// public corpus does.
func TestCorpus(t *testing.T) {
	root := os.Getenv("TALLYPOST_SPAM_CORPUS")
	if root == "" {
		t.Skip("TALLYPOST_SPAM_CORPUS is not set")
	}
	for _, part := range []struct {
		name  string
		train func(i int) bool
	}{{"every second message", func(i int) bool { return i%2 == 0 }}, {"every tenth message", func(i int) bool { return i%10 == 0 }}} {
		h := New()
		now := time.Unix(1e9, 0)
		type item struct {
			tokens []Token
			class  Class
			folder string
		}
		var rest []item
		trained := 0
		dirs, err := os.ReadDir(root)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range dirs {
			class := Ham
			switch {
			case strings.HasPrefix(d.Name(), "spam"):
				class = Spam
			case !strings.Contains(d.Name(), "ham"):
				continue
			}
			files, err := filepath.Glob(filepath.Join(root, d.Name(), "*.txt"))
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(files)
			for i, f := range files {
				b, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				tokens := tokensOf(b)
				if part.train(i) {
					trained++
					h.Learn(Sender{}, tokens, class, now)
				} else {
					rest = append(rest, item{tokens, class, d.Name()})
				}
			}
		}
		right, falsePositive, ham, spam := 0, make(map[string]int), 0, 0
		missed := 0
		for _, x := range rest {
			p, _, ok := h.words.judge(x.tokens)
			if !ok {
				t.Fatal("too little was learned")
			}
			says := p >= 0.95 // from where it counts two points and more
			if x.class == Spam {
				spam++
				if says {
					right++
				} else {
					missed++
				}
				continue
			}
			ham++
			if says {
				falsePositive[x.folder]++
			} else {
				right++
			}
		}
		fp := 0
		for _, n := range falsePositive {
			fp += n
		}
		t.Logf("%s: trained on %d, judged %d: accuracy %.2f %%, false positives %d of %d (%.2f %%) %v, missed %d of %d (%.2f %%), %d tokens",
			part.name, trained, len(rest), 100*float64(right)/float64(len(rest)), fp, ham, 100*float64(fp)/float64(ham),
			falsePositive, missed, spam, 100*float64(missed)/float64(spam), len(h.words.counts))
		if acc := float64(right) / float64(len(rest)); acc < 0.93 {
			t.Errorf("accuracy %.3f", acc)
		}
	}
}

// tokensOf drops the mbox line that the corpus has in front of each message.
func tokensOf(b []byte) []Token {
	if s := string(b[:min(len(b), 5)]); s == "From " {
		_, rest, _ := strings.Cut(string(b), "\n")
		b = []byte(rest)
	}
	h, _ := mail.ParseHeader(b)
	return Tokens(h, b)
}

func sender(domain, network string) Sender {
	return Sender{Domains: []string{domain}, Network: netip.MustParsePrefix(network)}
}
