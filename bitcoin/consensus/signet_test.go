package consensus

import (
	"bytes"
	"encoding/hex"
	"slices"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
	"github.com/tallypost/tallypost/bitcoin/secp"
)

func testKey(t testing.TB, seed byte) *secp.PrivateKey {
	t.Helper()
	key, err := secp.ParsePrivateKey(&[32]byte{31: seed})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// signetWith returns a signet with a challenge of its own and no difficulty.
func signetWith(challenge []byte) *bitcoin.Network {
	net := bitcoin.Regtest()
	net.SignetChallenge = challenge
	return net
}

// solution encodes an input's script and witness as BIP 325 has them.
func solution(scriptSig []byte, witness ...[]byte) []byte {
	b := bitcoin.AppendCompactSize(nil, uint64(len(scriptSig)))
	b = append(b, scriptSig...)
	b = bitcoin.AppendCompactSize(b, uint64(len(witness)))
	for _, item := range witness {
		b = append(bitcoin.AppendCompactSize(b, uint64(len(item))), item...)
	}
	return b
}

// putSolution makes the coinbase commit to the witnesses, unless it does, and carry the pushes
// after that.
func putSolution(d *draft, pushes ...[]byte) {
	if WitnessCommitment(&d.Txs[0]) < 0 {
		d.commit()
	}
	out := &d.Txs[0].Out[WitnessCommitment(&d.Txs[0])]
	for _, push := range pushes {
		out.Script = script.AppendPush(slices.Clip(out.Script), push)
	}
	d.Header.MerkleRoot, _ = d.MerkleRoot()
	d.asIs = true
}

// signetSign returns the solution for a draft by the holder of a key. The draft has a commitment.
func signetSign(t testing.TB, d *draft, key *secp.PrivateKey) []byte {
	t.Helper()
	unsolved := &draft{Block: d.Block.Clone()}
	putSolution(unsolved, append(slices.Clone(signetHeader), solution(nil)...))
	challenge, tx, err := SignetTxs(d.g.net, unsolved.Block)
	if err != nil {
		t.Fatal(err)
	}
	public := key.PublicKey().Compressed()
	code := challenge.Out[0].Script
	if _, hash, ok := script.WitnessProgram(code); ok {
		var spending script.Spending
		spending.InitForSigning(tx, challenge.Out)
		code = script.PayToPubKeyHash([20]byte(hash))
		digest := spending.WitnessSigHash(0, code, script.SigHashAll)
		rs := key.SignECDSA(&digest, true)
		return solution(nil, append(secp.AppendDER(nil, &rs), byte(script.SigHashAll)), public[:])
	}
	digest := script.LegacySigHash(tx, 0, code, script.SigHashAll)
	rs := key.SignECDSA(&digest, true)
	signature := append(secp.AppendDER(nil, &rs), byte(script.SigHashAll))
	return solution(script.AppendPush(nil, signature))
}

// TestSignet is BIP 325: a block must carry a solution to the network's challenge.
func TestSignet(t *testing.T) {
	key, other := testKey(t, 1), testKey(t, 2)
	public := key.PublicKey().Compressed()
	challenges := map[string][]byte{
		"key":              new(script.Builder).Push(public[:]).Op(script.OpCheckSig).Script(),
		"witness key hash": script.PayToWitness(0, hash160(public[:])),
	}
	header := func(solution []byte) []byte { return slices.Concat(signetHeader, solution) }
	for name, challenge := range challenges {
		for _, row := range []struct {
			name  string
			valid bool
			step  func(*draft)
		}{
			{"solved", true, func(d *draft) { putSolution(d, header(signetSign(t, d, key))) }},
			{"other pushes around", true, func(d *draft) {
				putSolution(d, []byte("signed too"))
				putSolution(d, header(signetSign(t, d, key)))
			}},
			{"with a transaction", true, func(d *draft) {
				d.Txs = append(d.Txs, *spend(output{})) // which is refused later only
				putSolution(d, header(signetSign(t, d, key)))
			}},
			{"no commitment", false, func(d *draft) {}},
			{"no solution", false, func(d *draft) { putSolution(d) }},
			{"empty solution", false, func(d *draft) { putSolution(d, header(nil)) }},
			{"solution of nothing", false, func(d *draft) {
				putSolution(d, header(solution(nil)))
			}},
			{"other key", false, func(d *draft) {
				putSolution(d, header(signetSign(t, d, other)))
			}},
			{"other time", false, func(d *draft) {
				putSolution(d, header(signetSign(t, d, key)))
				d.Header.Time++
			}},
			{"other version", false, func(d *draft) {
				putSolution(d, header(signetSign(t, d, key)))
				d.Header.Version++
			}},
			{"other coinbase", false, func(d *draft) {
				solved := signetSign(t, d, key)
				d.Txs[0].Out[0].Value--
				putSolution(d, header(solved))
			}},
			{"octet too many", false, func(d *draft) {
				putSolution(d, header(append(signetSign(t, d, key), 0)))
			}},
			{"octet too few", false, func(d *draft) {
				solved := signetSign(t, d, key)
				putSolution(d, header(solved[:len(solved)-1]))
			}},
			{"count without items", false, func(d *draft) {
				putSolution(d, header([]byte{0, 0xfd, 0xff, 0xff}))
			}},
			{"other header", false, func(d *draft) {
				putSolution(d, append([]byte{1, 2, 3, 4}, signetSign(t, d, key)...))
			}},
		} {
			g := newGenerator(t, signetWith(challenge))
			g.next(name+", "+row.name, row.step)
			if len(g.on.block.Txs) > 1 {
				g.reject(KindConsensus, "bad-txns-inputs-missingorspent")
			} else if row.valid {
				g.accept()
			} else {
				g.reject(KindConsensus, "bad-signet-blksig")
			}
			b := g.blocks[name+", "+row.name].block
			if _, err := NewCandidate(g.net, b, SkipProofOfWork); err != nil {
				t.Errorf("%s, %s: a template needs no solution: %v", name, row.name, err)
			}
		}
	}
}

// TestSignetTrivialChallenge: a challenge that everybody can meet needs no solution, but a
// commitment.
func TestSignetTrivialChallenge(t *testing.T) {
	g := newGenerator(t, signetWith(opTrue))
	g.next("bare")
	g.reject(KindConsensus, "bad-signet-blksig")
	g.next("with commitment", func(d *draft) { putSolution(d) })
	g.accept()
	if solvesSignet(g.net, &bitcoin.Block{}) {
		t.Error("a block without transactions has a solution")
	}
	if err := CheckBlock(g.net, g.net.Genesis, 0); err != nil {
		t.Errorf("the genesis block needs no solution: %v", err)
	}
}

// TestCutSolution: what is signed is the commitment's script with its pushes in the shortest form,
// up to where it can be read.
func TestCutSolution(t *testing.T) {
	const header = "ecc7daa2"
	for _, row := range []struct{ script, stripped, solution string }{
		{"6a", "6a", ""},
		{"6a24aabb", "6a", ""}, // the push is cut off
		{"6a02aabb51", "6a02aabb51", ""},
		{"6a4c02aabb4d0100cc", "6a02aabb01cc", ""},
		{"6a06" + header + "0102", "6a04" + header, "0102"},
		{"6a04" + header + "05" + header + "07", "6a04" + header + "04" + header, "07"},
		{"6a05" + header + "0705" + header + "08", "6a04" + header + "05" + header + "08", "07"},
		{"6a05" + header + "074c005152ac", "6a04" + header + "4c5152ac", "07"},
		{"6a05" + header + "074d", "6a04" + header, "07"},
		{"", "", ""},
	} {
		octets := func(s string) []byte {
			b, err := hex.DecodeString(s)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		stripped, solution, found := cutSolution(octets(row.script))
		if !bytes.Equal(stripped, octets(row.stripped)) ||
			!bytes.Equal(solution, octets(row.solution)) || found != (row.solution != "") {
			t.Errorf("%s: %x, %x, %v; want %s, %s",
				row.script, stripped, solution, found, row.stripped, row.solution)
		}
	}
}

func hash160(b []byte) []byte {
	hash := script.Hash160(b)
	return hash[:]
}
