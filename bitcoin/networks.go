package bitcoin

import (
	"encoding/hex"
	"time"
)

const (
	retargetTimespan = 14 * 24 * time.Hour
	blockSpacing     = 10 * time.Minute
	easyPowLimit     = "00000000ffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
)

// Mainnet returns the network on which bitcoins have value.
func Mainnet() *Network {
	return &Network{
		Name:       "main",
		Magic:      [4]byte{0xf9, 0xbe, 0xb4, 0xd9},
		Port:       8333,
		RPCPort:    8332,
		FixedSeeds: fixedSeedsMain,
		DNSSeeds: []string{
			"seed.bitcoin.sipa.be.",
			"dnsseed.bluematt.me.",
			"seed.bitcoin.jonasschnelli.ch.",
			"seed.btc.petertodd.net.",
			"seed.bitcoin.sprovoost.nl.",
			"dnsseed.emzy.de.",
			"seed.bitcoin.wiz.biz.",
			"seed.mainnet.achownodes.xyz.",
		},
		PubKeyHashPrefix: 0,
		ScriptHashPrefix: 5,
		SecretPrefix:     128,
		ExtPublicPrefix:  [4]byte{0x04, 0x88, 0xb2, 0x1e},
		ExtSecretPrefix:  [4]byte{0x04, 0x88, 0xad, 0xe4},
		Bech32HRP:        "bc",

		Genesis:        satoshiGenesis(1231006505, 0x1d00ffff, 2083236893),
		PowLimit:       mustUint256(easyPowLimit),
		TargetSpacing:  blockSpacing,
		TargetTimespan: retargetTimespan,
		MinimumChainWork: mustUint256(
			"0000000000000000000000000000000000000000dee8e2a309ad8a9820433c68"),
		AssumeValid: mustHash( // height 912,683
			"00000000000000000000611fd22f2df7c8fbd0688745c3a6c3bb5109cc2a12cb"),

		SubsidyInterval: 210_000,
		BIP34Height:     227_931,
		BIP34Hash: mustHash(
			"000000000000024b89b42a942fe0d9fea3bb44ab7bd1b19115dd6a759c0808b8"),
		BIP65Height:          388_381,
		BIP66Height:          363_725,
		CSVHeight:            419_328,
		SegwitHeight:         481_824,
		MinBIP9WarningHeight: 483_840,
		Deployments: [NumDeployments]Deployment{
			TestDummy: {Bit: 28, Start: NeverActive, Timeout: NoTimeout,
				Period: 2016, Threshold: 1815},
			Taproot: {Bit: 2, Start: 1619222400, Timeout: 1628640000, MinActivationHeight: 709_632,
				Period: 2016, Threshold: 1815},
		},
		ScriptExceptions: []ScriptException{
			{ // breaks BIP 16
				Block: mustHash(
					"00000000000002dc756eebf4f49723ed8d30cc28a5f108eb94b1ba88ac4f9c22"),
			},
			{ // breaks BIP 341
				Block: mustHash(
					"0000000000000000000f14c35b2d841e986ab5441de8c585d5ffe55ea1e395ad"),
				P2SH:    true,
				Witness: true,
			},
		},

		Snapshots: []Snapshot{
			{840_000,
				mustHash("0000000000000000000320283a032748cef8227873ff4872689bf23f1cda83a5"),
				mustHash("a2a5521b1b5ab65f67818e5e8eccabb7171a517f9e2382208f77687310768f96"),
				991_032_194},
			{880_000,
				mustHash("000000000000000000010b17283c3c400507969a9c2afd1dcf2082ec5cca2880"),
				mustHash("dbd190983eaf433ef7c15f78a278ae42c00ef52e0fd2a54953782175fbadcea9"),
				1_145_604_538},
			{910_000,
				mustHash("0000000000000000000108970acb9522ffd516eae17acddcb1bd16469194a821"),
				mustHash("4daf8a17b4902498c5787966a2b51c613acdab5df5db73f196fa59a4da2f1568"),
				1_226_586_151},
		},
		TxStats:          TxStats{1756722903, 1_235_299_397, 5.456290459519495},
		HeadersSync:      HeadersSync{632, 15009},
		PruneAfterHeight: 100_000,
		AssumedBlocksGB:  810,
		AssumedCoinsGB:   14,
	}
}

// Testnet3 returns the third test network.
func Testnet3() *Network {
	n := testNetwork()
	n.Name = "test"
	n.DataDir = "testnet3"
	n.Magic = [4]byte{0x0b, 0x11, 0x09, 0x07}
	n.Port = 18333
	n.RPCPort = 18332
	n.FixedSeeds = fixedSeedsTestnet3
	n.DNSSeeds = []string{
		"testnet-seed.bitcoin.jonasschnelli.ch.",
		"seed.tbtc.petertodd.net.",
		"seed.testnet.bitcoin.sprovoost.nl.",
		"testnet-seed.bluematt.me.",
		"seed.testnet.achownodes.xyz.",
	}
	n.Genesis = satoshiGenesis(1296688602, 0x1d00ffff, 414098458)
	n.AllowMinDifficulty = true
	n.MinimumChainWork = mustUint256(
		"0000000000000000000000000000000000000000000016dd270dd94fac1d7632")
	n.AssumeValid = mustHash( // height 4,550,000
		"0000000000000065c6c38258e201971a3fdfcc2ceee0dd6e85a6c022d45dee34")
	n.BIP34Height = 21_111
	n.BIP34Hash = mustHash("0000000023b3a96d3484e5abb3755c413e7d41500f8e2a5c3f0dd01299cd8ef8")
	n.BIP65Height = 581_885
	n.BIP66Height = 330_776
	n.CSVHeight = 770_112
	n.SegwitHeight = 834_624
	n.MinBIP9WarningHeight = 836_640
	n.Deployments[Taproot] = Deployment{Bit: 2, Start: 1619222400, Timeout: 1628640000,
		Period: 2016, Threshold: 1512}
	n.ScriptExceptions = []ScriptException{{ // breaks BIP 16
		Block: mustHash("00000000dd30457c001f4095d208cc1296b0eed002427aa599874af7a432b105"),
	}}
	n.Snapshots = []Snapshot{{2_500_000,
		mustHash("0000000000000093bcb68c03a9a168ae252572d348a2eaeba2cdf9231d73206f"),
		mustHash("f841584909f68e47897952345234e37fcd9128cd818f41ee6c3ca68db8071be7"),
		66_484_552}}
	n.TxStats = TxStats{1751816758, 508_468_699, 7.172978845985714}
	n.HeadersSync = HeadersSync{628, 13460}
	n.AssumedBlocksGB = 240
	n.AssumedCoinsGB = 19
	return n
}

// Testnet4 returns the fourth test network (BIP 94).
func Testnet4() *Network {
	n := testNetwork()
	n.Name = "testnet4"
	n.DataDir = "testnet4"
	n.Magic = [4]byte{0x1c, 0x16, 0x3f, 0x28}
	n.Port = 48333
	n.RPCPort = 48332
	n.FixedSeeds = fixedSeedsTestnet4
	n.DNSSeeds = []string{"seed.testnet4.bitcoin.sprovoost.nl.", "seed.testnet4.wiz.biz."}
	n.Genesis = genesis(
		"03/May/2024 000000000000000000001ebd58c244970b3aa9d783bb001011fbe8ea8e98e00e",
		make([]byte, 33), 1714777860, 0x1d00ffff, 393743547)
	n.AllowMinDifficulty = true
	n.EnforceBIP94 = true
	n.MinimumChainWork = mustUint256(
		"00000000000000000000000000000000000000000000034a4690fe592dc49c7c")
	n.AssumeValid = mustHash( // height 91,000
		"000000000000000180a58e7fa3b0db84b5ea76377524894f53660d93ac839d9b")
	n.Snapshots = []Snapshot{{90_000,
		mustHash("0000000002ebe8bcda020e0dd6ccfbdfac531d2f6a81457191b99fc2df2dbe3b"),
		mustHash("784fb5e98241de66fdd429f4392155c9e7db5c017148e66e8fdbc95746f8b9b5"),
		11_347_043}}
	n.TxStats = TxStats{1752470331, 11_414_302, 0.2842619757327476}
	n.HeadersSync = HeadersSync{275, 7017}
	n.AssumedBlocksGB = 22
	n.AssumedCoinsGB = 2
	return n
}

// Signet returns the public signet (BIP 325).
func Signet() *Network {
	challenge := mustHex("5121" +
		"03ad5e0edad18cb1f0fc0d28a3d4f1f3e445640337489abb10404f2d1e086be430" + "21" +
		"0359ef5021964fe22d6f8e05b2463c9540ce96883fe3b278760f048f5189f2e6c4" + "52ae")
	n := SignetWithChallenge(challenge)
	n.FixedSeeds = fixedSeedsSignet
	n.DNSSeeds = []string{"seed.signet.bitcoin.sprovoost.nl.", "seed.signet.achownodes.xyz."}
	n.MinimumChainWork = mustUint256(
		"0000000000000000000000000000000000000000000000000000067d328e681a")
	n.AssumeValid = mustHash( // height 267,665
		"000000128586e26813922680309f04e1de713c7542fee86ed908f56368aefe2e")
	n.TxStats = TxStats{1756723017, 26_185_472, 0.7452721495389969}
	n.AssumedBlocksGB = 20
	n.AssumedCoinsGB = 4
	return n
}

// SignetWithChallenge returns a signet of one's own: its blocks satisfy this script, and its magic
// follows from it.
func SignetWithChallenge(challenge []byte) *Network {
	n := testNetwork()
	n.Name = "signet"
	n.DataDir = "signet"
	hash := DoubleHash(append(AppendCompactSize(nil, uint64(len(challenge))), challenge...))
	n.Magic = [4]byte(hash[:4])
	n.Port = 38333
	n.RPCPort = 38332
	n.Genesis = satoshiGenesis(1598918400, 0x1e0377ae, 52613770)
	n.PowLimit = mustUint256("00000377ae000000000000000000000000000000000000000000000000000000")
	n.Deployments[TestDummy].Threshold = 1815
	n.Deployments[Taproot].Threshold = 1815
	n.SignetChallenge = challenge
	n.Snapshots = []Snapshot{{160_000,
		mustHash("0000003ca3c99aff040f2563c2ad8f8ec88bd0fd6b8f0895cfaf1ef90353a62c"),
		mustHash("fe0a44309b74d6b5883d246cb419c6221bcccf0b308c9b59b7d70783dbdf928a"),
		2_289_496}}
	n.HeadersSync = HeadersSync{390, 9584}
	return n
}

// Regtest returns the network for tests: private, with blocks that take two hashes.
func Regtest() *Network {
	n := testNetwork()
	n.Name = "regtest"
	n.DataDir = "regtest"
	n.Magic = [4]byte{0xfa, 0xbf, 0xb5, 0xda}
	n.Port = 18444
	n.RPCPort = 18443
	n.DNSSeeds = []string{"dummySeed.invalid."}
	n.Bech32HRP = "bcrt"
	n.Genesis = satoshiGenesis(1296688602, 0x207fffff, 2)
	n.PowLimit = mustUint256("7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff")
	n.TargetTimespan = 24 * time.Hour
	n.AllowMinDifficulty = true
	n.NoRetargeting = true
	n.SubsidyInterval = 150
	n.SegwitHeight = 0
	n.Deployments = [NumDeployments]Deployment{
		TestDummy: {Bit: 28, Start: 0, Timeout: NoTimeout, Period: 144, Threshold: 108},
		Taproot:   {Bit: 2, Start: AlwaysActive, Timeout: NoTimeout, Period: 144, Threshold: 108},
	}
	n.Snapshots = []Snapshot{ // of Core's tests
		{110,
			mustHash("6affe030b7965ab538f820a56ef56c8149b7dc1d1c144af57113be080db7c397"),
			mustHash("b952555c8ab81fec46f3d4253b7af256d766ceb39fb7752b9d18cdf4a0141327"),
			111},
		{200,
			mustHash("385901ccbd69dff6bbd00065d01fb8a9e464dede7cfe0372443884f9b1dcf6b9"),
			mustHash("17dcc016d188d16068907cdeb38b75691a118d43053b8cd6a25969419381d13a"),
			201},
		{299,
			mustHash("7cc695046fec709f8c9394b6f928f81e81fd3ac20977bb68760fa1faa7916ea2"),
			mustHash("d2b051ff5e8eef46520350776f4100dd710a63447a8e01d917e92e79751a63e2"),
			334},
	}
	n.TxStats = TxStats{Rate: 0.001}
	n.HeadersSync = HeadersSync{275, 7017}
	n.ExpensiveChecks = true
	n.MockableTime = true
	return n
}

// testNetwork returns what the test networks have in common.
func testNetwork() *Network {
	return &Network{
		PubKeyHashPrefix: 111,
		ScriptHashPrefix: 196,
		SecretPrefix:     239,
		ExtPublicPrefix:  [4]byte{0x04, 0x35, 0x87, 0xcf},
		ExtSecretPrefix:  [4]byte{0x04, 0x35, 0x83, 0x94},
		Bech32HRP:        "tb",
		PowLimit:         mustUint256(easyPowLimit),
		TargetSpacing:    blockSpacing,
		TargetTimespan:   retargetTimespan,
		SubsidyInterval:  210_000,
		BIP34Height:      1,
		BIP65Height:      1,
		BIP66Height:      1,
		CSVHeight:        1,
		SegwitHeight:     1,
		PruneAfterHeight: 1000,
		Deployments: [NumDeployments]Deployment{
			TestDummy: {Bit: 28, Start: NeverActive, Timeout: NoTimeout,
				Period: 2016, Threshold: 1512},
			Taproot: {Bit: 2, Start: AlwaysActive, Timeout: NoTimeout,
				Period: 2016, Threshold: 1512},
		},
	}
}

// satoshiGenesis returns the first block that all networks but testnet4 share, up to time and
// target.
func satoshiGenesis(time, bits, nonce uint32) *Block {
	return genesis("The Times 03/Jan/2009 Chancellor on brink of second bailout for banks",
		mustHex("04678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb6"+
			"49f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5f"),
		time, bits, nonce)
}

// genesis returns the first block of a network: one coinbase that carries a headline and pays a
// key. Its output can never be spent.
func genesis(headline string, key []byte, time, bits, nonce uint32) *Block {
	script := mustHex("04ffff001d0104") // pushes of 486604799, the first target, and 4
	if len(headline) > 75 {
		script = append(script, 0x4c) // OP_PUSHDATA1
	}
	script = append(append(script, byte(len(headline))), headline...)
	coinbase := Tx{
		Version: 1,
		In: []TxIn{{
			PrevOut:  OutPoint{Index: 0xffffffff},
			Script:   script,
			Sequence: 0xffffffff,
		}},
		Out: []TxOut{{
			Value:  50 * Coin,
			Script: append(append([]byte{byte(len(key))}, key...), 0xac), // key OP_CHECKSIG
		}},
	}
	block := &Block{
		Header: Header{
			Version:    1,
			MerkleRoot: coinbase.TxID(),
			Time:       time,
			Bits:       bits,
			Nonce:      nonce,
		},
		Txs: []Tx{coinbase},
	}
	parsed, err := ParseBlock(block.Append(nil)) // with its hashes kept
	if err != nil {
		panic(err)
	}
	return parsed
}

func mustHash(s string) Hash {
	h, err := ParseHash(s)
	if err != nil {
		panic(err)
	}
	return h
}

func mustUint256(s string) Uint256 { return Uint256FromHash(mustHash(s)) }

func mustHex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}
