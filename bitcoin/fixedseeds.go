package bitcoin

import _ "embed" // for the addresses of nodes

// Addresses of nodes that were reliable when Bitcoin Core's list was made (chainparamsseeds.h, December 2025),
// each as BIP 155 writes network, address and port.
var (
	//go:embed seeds/main.bin
	fixedSeedsMain string
	//go:embed seeds/testnet3.bin
	fixedSeedsTestnet3 string
	//go:embed seeds/testnet4.bin
	fixedSeedsTestnet4 string
	//go:embed seeds/signet.bin
	fixedSeedsSignet string
)
