package bitcoincli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
)

// decode reads a result into v, whose fields name what is wanted of it.
func decode(result any, v any) error { return json.Unmarshal(jsonrpc.AppendValue(nil, result), v) }

// addrInfo counts the addresses that the node knows, by network.
func (c *cli) addrInfo(ctx context.Context) (string, error) {
	if len(c.args) > 0 {
		return "", errors.New("-addrinfo takes no arguments")
	}
	result, err := c.one(ctx, "getnodeaddresses", []any{0}, c.wallet())
	if err != nil {
		return "", err
	}
	var nodes []struct{ Network *string }
	if err := decode(result, &nodes); err != nil {
		return "", err
	}
	counts := map[string]int{}
	for _, n := range nodes {
		if n.Network == nil {
			return "", errors.New("-addrinfo requires bitcoind server to be running v22.0 and up")
		}
		counts[*n.Network]++
	}
	known, total := jsonrpc.Object{}, 0
	for _, name := range publicNetworks {
		known.Set(name, counts[name])
		total += counts[name]
	}
	known.Set("total", total)
	return show(jsonrpc.Object{{"addresses_known", known}}), nil
}

// publicNetworks are those whose addresses are told to others.
var publicNetworks = [...]string{"ipv4", "ipv6", "onion", "i2p", "cjdns"}

// generate mines blocks to a new address of the node's wallet.
func (c *cli) generate(ctx context.Context) (string, error) {
	const defaultBlocks = "1"
	address, err := c.one(ctx, "getnewaddress", []any{}, c.wallet())
	if err != nil {
		return "", err
	}
	to, ok := address.(string)
	args := c.args
	switch {
	case !ok:
		return "", errors.New("getnewaddress returned no address")
	case len(args) > 2:
		return "", errors.New("too many arguments (maximum 2 for nblocks and maxtries)")
	case len(args) == 0:
		args = []string{defaultBlocks}
	case args[0] == "0":
		return "", errors.New("the first argument (number of blocks to generate, default: " + defaultBlocks +
			") must be an integer value greater than zero")
	}
	params, err := positional("generatetoaddress", slices.Insert(slices.Clone(args), 1, to))
	if err != nil {
		return "", err
	}
	blocks, err := c.one(ctx, "generatetoaddress", params, c.wallet())
	if err != nil {
		return "", err
	}
	return show(jsonrpc.Object{{"address", to}, {"blocks", blocks}}), nil
}

// What getInfo wants of results. Numbers are shown as the node wrote them.
type (
	networkInfo struct {
		Version         json.Number
		ProtocolVersion int
		Subversion      string
		TimeOffset      json.Number
		In              json.Number `json:"connections_in"`
		Out             json.Number `json:"connections_out"`
		Connections     json.Number
		Networks        []struct {
			Name, Proxy string
			Reachable   bool
		}
		RelayFee           json.Number
		LocalServicesNames []string
		LocalAddresses     []struct {
			Address string
			Port    int
			Score   int
		}
		Warnings any
	}
	chainInfo struct {
		Chain                string
		Blocks, Headers      json.Number
		VerificationProgress float64
		Difficulty           json.Number
	}
	walletInfo struct {
		WalletName    string
		KeypoolSize   json.Number
		UnlockedUntil *json.Number `json:"unlocked_until"`
		PayTxFee      json.Number
	}
	walletBalances struct{ Mine struct{ Trusted json.Number } }
)

// getInfo shows the most important of what a node can tell.
func (c *cli) getInfo(ctx context.Context) (string, error) {
	if len(c.args) > 0 {
		return "", errors.New("-getinfo takes no arguments")
	}
	replies, err := c.several(ctx, c.wallet(), "getnetworkinfo", "getblockchaininfo", "getwalletinfo", "getbalances")
	if err != nil {
		return "", err
	}
	var network networkInfo
	var chain chainInfo
	for i, into := range []any{&network, &chain} {
		if replies[i].err != nil {
			return "", replies[i].err
		}
		if err := decode(replies[i].result, into); err != nil {
			return "", err
		}
	}
	paint, err := c.palette()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%sChain: %s%s\nBlocks: %s\nHeaders: %s\n", paint.blue, chain.Chain, paint.reset, chain.Blocks,
		chain.Headers)
	bar := ""
	if chain.VerificationProgress < 0.99 {
		bar = progressBar(chain.VerificationProgress) + " "
	}
	fmt.Fprintf(&b, "Verification progress: %s%.4f%%\nDifficulty: %s\n\n", bar, 100*chain.VerificationProgress,
		chain.Difficulty)
	fmt.Fprintf(&b, "%sNetwork: in %s, out %s, total %s%s\nVersion: %s\nTime offset (s): %s\n", paint.green,
		network.In, network.Out, network.Connections, paint.reset, network.Version, network.TimeOffset)
	fmt.Fprintf(&b, "Proxies: %s\nMin tx relay fee rate (BTC/kvB): %s\n\n", network.proxies(), network.RelayFee)
	if replies[2].err == nil && replies[2].result != nil {
		var w walletInfo
		if err := decode(replies[2].result, &w); err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%sWallet: %s%s\nKeypool size: %s\n", paint.magenta, nameOr(w.WalletName), paint.reset,
			w.KeypoolSize)
		if w.UnlockedUntil != nil {
			fmt.Fprintf(&b, "Unlocked until: %s\n", *w.UnlockedUntil)
		}
		fmt.Fprintf(&b, "Transaction fee rate (-paytxfee) (BTC/kvB): %s\n\n", w.PayTxFee)
	}
	if replies[3].err == nil && replies[3].result != nil {
		var own walletBalances
		if err := decode(replies[3].result, &own); err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%sBalance:%s %s\n\n", paint.cyan, paint.reset, own.Mine.Trusted)
	}
	if c.wallet() == nil {
		if err := c.allBalances(ctx, &b, paint); err != nil {
			return "", err
		}
	}
	fmt.Fprintf(&b, "%sWarnings:%s %s", paint.yellow, paint.reset, network.warnings())
	return b.String(), nil
}

func nameOr(s string) string {
	if s == "" {
		return `""`
	}
	return s
}

// proxies lists each proxy once, with the networks that are reached by it.
func (n *networkInfo) proxies() string {
	var order, out []string
	by := map[string][]string{}
	for _, net := range n.Networks {
		if net.Proxy == "" {
			continue
		}
		if by[net.Proxy] == nil {
			order = append(order, net.Proxy)
		}
		by[net.Proxy] = append(by[net.Proxy], net.Name)
	}
	for _, p := range order {
		out = append(out, fmt.Sprintf("%s (%s)", p, strings.Join(by[p], ", ")))
	}
	if len(out) == 0 {
		return "n/a"
	}
	return strings.Join(out, ", ")
}

// warnings joins the warnings; older nodes send them as one text.
func (n *networkInfo) warnings() string {
	var out []string
	switch w := n.Warnings.(type) {
	case string:
		if w != "" {
			out = append(out, w)
		}
	case []any:
		for _, v := range w {
			out = append(out, fmt.Sprint(v))
		}
	}
	if len(out) == 0 {
		return "(none)"
	}
	return strings.Join(out, ", ")
}

// allBalances shows those of all wallets, if there are several.
func (c *cli) allBalances(ctx context.Context, b *strings.Builder, paint palette) error {
	var e *jsonrpc.Error
	result, err := c.one(ctx, "listwallets", []any{}, nil)
	if errors.As(err, &e) { // a node without wallets
		return nil
	}
	var names []string
	if err == nil {
		err = decode(result, &names)
	}
	if err != nil || len(names) <= 1 {
		return err
	}
	var amounts []string
	width := 10
	for _, name := range names {
		result, err := c.one(ctx, "getbalances", []any{}, &name)
		var own walletBalances
		if err == nil {
			err = decode(result, &own)
		}
		if err != nil {
			return err
		}
		amounts = append(amounts, own.Mine.Trusted.String())
		width = max(width, len(own.Mine.Trusted))
	}
	fmt.Fprintf(b, "%sBalances%s\n", paint.cyan, paint.reset)
	for i, name := range names {
		fmt.Fprintf(b, "%*s %s\n", width, amounts[i], nameOr(name))
	}
	b.WriteByte('\n')
	return nil
}

// palette has the codes of colours, or nothing.
type palette struct{ reset, green, blue, yellow, magenta, cyan string }

func (c *cli) palette() (palette, error) {
	colour := c.Terminal
	switch c.o.String("color", "auto") {
	case "always":
		colour = true
	case "never":
		colour = false
	case "auto":
	default:
		return palette{}, errors.New("Invalid value for -color option. Valid values: always, auto, never.")
	}
	if !colour {
		return palette{}, nil
	}
	return palette{"\x1b[0m", "\x1b[32m", "\x1b[34m", "\x1b[33m", "\x1b[35m", "\x1b[36m"}, nil
}

// progressBar shows a part of a whole in steps of a twentieth.
func progressBar(progress float64) string {
	if progress < 0 || progress > 1 {
		return ""
	}
	const step = 0.05
	var b strings.Builder
	for i := 0; float64(i) < progress/step; i++ {
		b.WriteRune('▒')
	}
	for i := 0; float64(i) < (1-progress)/step; i++ {
		b.WriteRune('░')
	}
	return b.String()
}
