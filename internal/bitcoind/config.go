package bitcoind

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/index"
	"github.com/tallypost/tallypost/bitcoin/mempool"
	"github.com/tallypost/tallypost/bitcoin/miner"
	"github.com/tallypost/tallypost/bitcoin/p2p"
	"github.com/tallypost/tallypost/bitcoin/p2p/addrbook"
	"github.com/tallypost/tallypost/bitcoin/rpc"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
	"github.com/tallypost/tallypost/bitcoin/wire"
	"github.com/tallypost/tallypost/internal/bitcoind/options"
	"github.com/tallypost/tallypost/internal/statusline"
)

// Bind is an address to listen at for peers.
type Bind struct {
	Addr        netip.AddrPort
	Permissions p2p.Permissions
	Onion       bool
	Optional    bool // a failure to listen there is no failure of the node
}

// Config is what a node is told, as the node uses it. FromOptions makes it.
type Config struct {
	Network *bitcoin.Network
	DataDir string // of the network
	BaseDir string // of all networks

	LogFile      string           // empty: none
	Line         *statusline.Line // shows how far the node has come; nil: none does
	LogConsole   bool
	LogUnlimited bool // any source may write any amount
	ShrinkLog    bool // at the start, if it is long
	logStyle     logStyle
	Debug        []string // categories
	DebugExclude []string
	LogLevels    []string // "level" or "category:level", valid
	PIDFile      string

	P2P       p2p.Config // but for what the node has made itself
	Binds     []Bind
	Tor       Tor
	ZMQ       []rpc.Notifier
	Book      addrbook.Config
	BookNotes []string // for the log before the addresses are read
	RPC       jsonrpc.Config
	RPCOn     bool
	RPCBind   []netip.AddrPort
	REST      bool
	Cookie    string // file; empty: none
	Perm      uint32 // of the cookie file
	User      string
	Pass      string

	Mempool     mempool.Config
	Mining      miner.Options
	MaxTipAge   time.Duration
	MinimumWork *bitcoin.Uint256
	AssumeValid *bitcoin.Hash
	Workers     int
	MockTime    int64
	Deprecated  []string
	Storage     Storage
	// PersistMempool keeps the mempool over a restart, PlainMempool in the form of before Core 28.
	PersistMempool bool
	PlainMempool   bool

	Indexes index.Wanted
	Notify  Notify

	Notes    []string // for the log
	Warnings []string // likewise
	// Aloud are warnings for standard error too.
	Aloud []string
	// Ready is called once the node answers calls; nil: nobody waits.
	Ready func()
	// StaleFees uses estimates of fees however old they are.
	StaleFees bool
	Given     []string // lines that tell what was set where, for the log
	File      string   // of configuration; empty: -noconf
}

// FromOptions makes a configuration of settings whose network has been chosen. The errors are Core's.
func FromOptions(o *options.Options) (c Config, err error) {
	interact(o)
	if c.Network, err = network(o); err != nil {
		return c, err
	}
	c.BaseDir = o.DataDir()
	c.DataDir = filepath.Join(c.BaseDir, c.Network.DataDir)
	c.Notes, c.Warnings, c.Given, c.File = o.Notes, o.Warnings, o.Given(), o.File
	steps := []func(*options.Options) error{c.sections, c.logging, c.chain, c.storage, c.mempool, c.peers, c.binds, c.tor, c.zmq, c.rpc,
		c.indexes, c.notify}
	for _, step := range steps {
		if err := step(o); err != nil {
			return c, err
		}
	}
	return c, nil
}

// sections refuses options that would have no effect where they stand, and tells of sections that are none
// (Bitcoin Core init.cpp, AppInitParameterInteraction).
func (c *Config) sections(o *options.Options) error {
	var lines strings.Builder
	for _, name := range o.Misplaced() {
		fmt.Fprintf(&lines, "Config setting for %s only applied on %s network when in [%[2]s] section.\n", name,
			c.Network.Name)
	}
	if lines.Len() > 0 {
		return errors.New(lines.String())
	}
	if c.Network.Name == "test" {
		c.Notes = append(c.Notes, "Warning: Support for testnet3 is deprecated and will be removed in an upcoming "+
			"release. Consider switching to testnet4.")
	}
	for _, s := range o.UnknownSections() {
		fmt.Fprintf(&lines, "%s:%d Section [%s] is not recognized.\n", s.File, s.Line, s.Name)
	}
	if lines.Len() > 0 {
		c.Aloud = append(c.Aloud, lines.String())
	}
	for _, gone := range []struct{ option, text string }{
		{"checkpoints", "Option '-checkpoints' is set but checkpoints were removed. This option has no effect."},
		{"limitancestorsize", "Option '-limitancestorsize' is given but ancestor size limits have been replaced with " +
			"cluster size limits (see -limitclustersize). This option has no effect."},
		{"limitdescendantsize", "Option '-limitdescendantsize' is given but descendant size limits have been replaced " +
			"with cluster size limits (see -limitclustersize). This option has no effect."},
	} {
		if o.Has(gone.option) {
			c.Aloud = append(c.Aloud, gone.text)
		}
	}
	c.StaleFees = o.Bool("acceptstalefeeestimates", false)
	return nil
}

// interact lets settings imply others (Core's InitParameterInteraction).
func interact(o *options.Options) {
	imply := func(because, name, value string) {
		if o.SetDefault(name, value) {
			o.Notes = append(o.Notes, fmt.Sprintf("parameter interaction: %s -> setting -%s=%s",
				because, name, value))
		}
	}
	interactNetwork(o, imply)
	if o.Bool("blocksonly", false) {
		imply("-blocksonly=1", "whitelistrelay", "0")
		imply("-blocksonly=1", "maxmempool", "5")
	}
	if o.Bool("whitelistforcerelay", false) {
		imply("-whitelistforcerelay=1", "whitelistrelay", "1")
	}
}

func network(o *options.Options) (*bitcoin.Network, error) {
	name, err := o.Network()
	if err != nil {
		return nil, err
	}
	n, err := bitcoin.NetworkByName(name)
	if err != nil {
		return nil, fmt.Errorf("Unknown chain %s.", name)
	}
	if challenges := o.List("signetchallenge"); len(challenges) > 0 && name == "signet" {
		if len(challenges) > 1 {
			return nil, errors.New("-signetchallenge cannot be multiple values.")
		}
		b, err := parseHex(challenges[0])
		if err != nil {
			return nil, fmt.Errorf("-signetchallenge must be hex, not '%s'.", challenges[0])
		}
		n = bitcoin.SignetWithChallenge(b)
	}
	if name != "regtest" {
		return n, nil
	}
	for _, arg := range o.List("testactivationheight") {
		if n, err = n.WithActivationHeight(arg); err != nil {
			return nil, err
		}
	}
	for _, arg := range o.List("vbparams") {
		if n, err = n.WithVersionBits(arg); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// file returns the file that an option names, in the network's directory if it is relative.
func (c *Config) file(o *options.Options, name, def string) string {
	if o.Negated(name) {
		return ""
	}
	f := o.String(name, def)
	if f == "" {
		f = def
	}
	if filepath.IsAbs(f) {
		return f
	}
	return filepath.Join(c.DataDir, f)
}

func (c *Config) chain(o *options.Options) error {
	if s := o.String("minimumchainwork", ""); s != "" {
		w, err := parseUint256(s)
		if err != nil {
			return fmt.Errorf("Invalid minimum work specified (%s), must be up to 64 hex digits", s)
		}
		c.MinimumWork = &w
	}
	if s := o.String("assumevalid", ""); s != "" {
		w, err := parseUint256(s)
		if err != nil {
			return fmt.Errorf("Invalid assumevalid block hash specified (%s), must be up to 64 hex digits "+
				"(or 0 to disable)", s)
		}
		h := w.Hash()
		c.AssumeValid = &h
	}
	c.MaxTipAge = time.Duration(min(o.Int("maxtipage", 24*3600), 1<<33)) * time.Second // a Duration ends at 1<<33
	c.Workers = int(max(o.Int("par", 0), 0))
	c.Deprecated = o.List("deprecatedrpc")
	c.MockTime = o.Int("mocktime", 0)
	if tests := o.List("test"); len(tests) > 0 && c.Network.Name != "regtest" {
		return errors.New("-test=<option> can only be used with regtest")
	}
	for _, test := range o.List("test") {
		if !slices.Contains(testOptions, test) {
			c.Aloud = append(c.Aloud, fmt.Sprintf("Unrecognised option \"%s\" provided in -test=<option>.", test))
		}
	}
	c.Book.Fixed = slices.Contains(o.List("test"), "addrman")
	if slices.Contains(o.List("test"), "bip94") && c.Network.Name == "regtest" {
		c.Network.EnforceBIP94 = true
	}
	if c.MockTime != 0 && !c.Network.MockableTime {
		return errors.New("-mocktime can only be used with regtest")
	}
	return nil
}

// testOptions are the values of -test.
var testOptions = []string{"addrman", "reindex_after_failure_noninteractive_yes", "bip94"}

func (c *Config) mempool(o *options.Options) error {
	m := &c.Mempool
	m.MaxBytes = o.Int("maxmempool", 300) * 1_000_000
	m.Expiry = time.Duration(o.Int("mempoolexpiry", 336)) * time.Hour
	for _, f := range []struct {
		name string
		rate *mempool.FeeRate
	}{{"minrelaytxfee", &m.MinRelayFee}, {"incrementalrelayfee", &m.IncrementalFee},
		{"dustrelayfee", &m.DustRelayFee}, {"blockmintxfee", &c.Mining.MinRate}} {
		if !o.Has(f.name) {
			continue
		}
		amount, ok := bitcoin.ParseMoney(o.String(f.name, ""))
		if !ok {
			return fmt.Errorf("Invalid amount for -%s=<amount>: '%s'", f.name, o.String(f.name, ""))
		}
		if *f.rate = mempool.FeeRate(amount); amount == 0 {
			*f.rate = -1 // none
		}
	}
	if !o.Has("blockmintxfee") {
		c.Mining.MinRate = 1
	}
	m.MaxDataCarrier = int(o.Int("datacarriersize", 100_000))
	if !o.Bool("datacarrier", true) || m.MaxDataCarrier == 0 {
		m.MaxDataCarrier = -1
	}
	c.PersistMempool, c.PlainMempool = o.Bool("persistmempool", true), o.Bool("persistmempoolv1", false)
	m.RefuseBareMultisig = !o.Bool("permitbaremultisig", true)
	// Any network but the main one lets nonstandard transactions be asked for; regtest has them by default
	// no more than others.
	if m.AcceptNonStandard = o.Bool("acceptnonstdtxn", false); m.AcceptNonStandard &&
		c.Network.Name == "main" {
		return errors.New("acceptnonstdtxn is not currently supported for main chain")
	}
	m.MaxClusterCount = int(o.Int("limitclustercount", 0))
	if m.MaxClusterCount > mempool.MaxClusterCount {
		return fmt.Errorf("limitclustercount must be less than or equal to %d", mempool.MaxClusterCount)
	}
	m.MaxClusterVSize = int(o.Int("limitclustersize", 0)) * 1000
	m.BytesPerSigOp = int(o.Int("bytespersigop", 0))
	if err := m.Check(); err != nil {
		return err
	}
	c.Mining.MaxWeight = int(o.Int("blockmaxweight", 4_000_000))
	c.Mining.ReservedWeight = int(o.Int("blockreservedweight", miner.DefaultReservedWeight))
	if c.Network.Name == "regtest" {
		c.Mining.Version = int32(o.Int("blockversion", 0))
	}
	switch {
	case c.Mining.MaxWeight > 4_000_000:
		return fmt.Errorf("Specified -blockmaxweight (%d) exceeds consensus maximum block weight (4000000)",
			c.Mining.MaxWeight)
	case c.Mining.ReservedWeight > 4_000_000:
		return fmt.Errorf("Specified -blockreservedweight (%d) exceeds consensus maximum block weight "+
			"(4000000)", c.Mining.ReservedWeight)
	case c.Mining.ReservedWeight < 2000:
		return fmt.Errorf("Specified -blockreservedweight (%d) is lower than minimum safety value of (2000)",
			c.Mining.ReservedWeight)
	}
	return nil
}

func (c *Config) peers(o *options.Options) error {
	p := &c.P2P
	p.ConnectOnly = len(o.List("connect")) > 0 || o.Negated("connect")
	if list := o.List("connect"); !(len(list) == 1 && list[0] == "0") {
		p.Connect = list
	}
	p.AddNodes, p.Seeds = o.List("addnode"), o.List("seednode")
	p.DNSSeed, p.ForceDNSSeed = o.Bool("dnsseed", true), o.Bool("forcednsseed", false)
	p.NoFixedSeeds = !o.Bool("fixedseeds", true)
	c.connectNotes(o)
	p.NoListen = !o.Bool("listen", true)
	if p.MaxConnections = int(o.Int("maxconnections", 125)); p.MaxConnections < 0 {
		return errors.New("-maxconnections must be greater or equal than zero")
	}
	p.PeerTimeout = time.Duration(o.Int("peertimeout", 60)) * time.Second
	if p.PeerTimeout <= 0 {
		return errors.New("peertimeout must be a positive integer.")
	}
	p.ConnectTimeout = time.Duration(o.Int("timeout", 5000)) * time.Millisecond
	p.MaxSendBuffer = int(o.Int("maxsendbuffer", 1000)) * 1000
	p.MaxRecvBuffer = int(o.Int("maxreceivebuffer", 5000)) * 1000
	p.BlocksOnly = o.Bool("blocksonly", false) || c.Storage.HeadersOnly
	p.PeerBloom = o.Bool("peerbloomfilters", false)
	p.V2 = o.Bool("v2transport", true)
	if !o.Bool("whitelistrelay", true) {
		p.Implicit = p2p.PermNoBan | p2p.PermMempool
	}
	if o.Bool("whitelistforcerelay", false) {
		p.Implicit = p2p.PermNoBan | p2p.PermMempool | p2p.PermForceRelay
	}
	target, ok := parseByteUnits(o.String("maxuploadtarget", "0"), 'M')
	if !ok {
		return fmt.Errorf("Unable to parse -maxuploadtarget: '%s'", o.String("maxuploadtarget", ""))
	}
	p.MaxUpload = target
	p.Reconcile = o.Bool("txreconciliation", false)
	if o.Bool("capturemessages", false) {
		p.CaptureDir = filepath.Join(c.DataDir, "message_capture")
	}
	p.BanTime = time.Duration(o.Int("bantime", 24*3600)) * time.Second
	p.Inactive = !o.Bool("networkactive", true)
	p.MaxTipAge = c.MaxTipAge
	p.MinimumWork = c.Network.MinimumChainWork
	if c.MinimumWork != nil {
		p.MinimumWork = *c.MinimumWork
	}
	p.Services = wire.ServiceNetwork | wire.ServiceNetworkLimited | wire.ServiceWitness
	if o.Int("prune", 0) > 0 {
		p.Services &^= wire.ServiceNetwork // not all blocks, only the last ones
	}
	if c.Storage.HeadersOnly {
		p.Services = 0
	}
	if p.V2 {
		p.Services |= wire.ServiceP2PV2
	}
	if p.PeerBloom {
		p.Services |= wire.ServiceBloom
	}
	if err := c.userAgent(o); err != nil {
		return err
	}
	for _, s := range o.List("whitelist") {
		w, err := p2p.ParseWhitelist(s)
		if err != nil {
			return err
		}
		p.Whitelist = append(p.Whitelist, w)
	}
	return c.networks(o)
}

// connectNotes tells what has no effect where connections are given (Bitcoin Core init.cpp, AppInitMain).
func (c *Config) connectNotes(o *options.Options) {
	if !c.P2P.ConnectOnly {
		return
	}
	if len(c.P2P.Connect) > 0 && len(c.P2P.Seeds) > 0 {
		c.Notes = append(c.Notes, "-seednode is ignored when -connect is used")
	}
	if o.Has("dnsseed") && o.Bool("dnsseed", true) && o.Has("proxy") {
		c.Notes = append(c.Notes, "-dnsseed is ignored when -connect is used and -proxy is specified")
	}
}

func (c *Config) userAgent(o *options.Options) error {
	var comments []string
	for _, s := range o.List("uacomment") {
		if strings.ContainsAny(s, "/:()") || strings.ContainsFunc(s, func(r rune) bool {
			return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,;-_?@", r)
		}) {
			return fmt.Errorf("User Agent comment (%s) contains unsafe characters.", s)
		}
		comments = append(comments, s)
	}
	agent := "/Satoshi:30.99.0"
	if len(comments) > 0 {
		agent += "(" + strings.Join(comments, "; ") + ")"
	}
	agent += "/"
	if len(agent) > wire.MaxUserAgent {
		return fmt.Errorf("Total length of network version string (%d) exceeds maximum length (%d). Reduce "+
			"the number or size of uacomments.", len(agent), wire.MaxUserAgent)
	}
	c.P2P.UserAgent = agent
	return nil
}

// noBrackets takes the brackets off an IPv6 address.
func noBrackets(s string) string {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		if addr, rest, ok := strings.Cut(inner, "]"); ok {
			return addr + rest
		}
	}
	return s
}

func (c *Config) rpc(o *options.Options) error {
	c.RPCOn = o.Bool("server", true)
	port := o.Int("rpcport", int64(c.Network.RPCPort))
	if port < 1 || port > math.MaxUint16 {
		return fmt.Errorf("Invalid port specified in -rpcport: '%s'", o.String("rpcport", ""))
	}
	c.REST = o.Bool("rest", false)
	r := &c.RPC
	r.Timeout = time.Duration(o.Int("rpcservertimeout", 30)) * time.Second
	r.Workers, r.Queue = int(max(o.Int("rpcthreads", 16), 1)), int(max(o.Int("rpcworkqueue", 64), 1))
	for _, s := range o.List("rpcallowip") {
		p, err := p2p.ParseSubnet(noBrackets(s))
		if a := p.Addr(); err == nil && a.Is6() && a.As16()[0] == 0xfc && o.Bool("cjdnsreachable", false) {
			err = errors.New("that is an address of CJDNS, which has no subnets")
		}
		if err != nil {
			return fmt.Errorf("Invalid -rpcallowip subnet specification: %s. Valid values are a single IP "+
				"(e.g. 1.2.3.4), a network/netmask (e.g. 1.2.3.4/255.255.255.0), a network/CIDR (e.g. "+
				"1.2.3.4/24), all ipv4 (0.0.0.0/0), or all ipv6 (::/0). RFC4193 is allowed only if "+
				"-cjdnsreachable=0.\nError: Unable to start HTTP server. See debug log for details.", s)
		}
		r.AllowIPs = append(r.AllowIPs, p)
	}
	for _, s := range o.List("rpcauth") {
		cred, err := jsonrpc.ParseCredential(s)
		if err != nil {
			return errors.New("Unable to start HTTP server. See debug log for details.")
		}
		r.Credentials = append(r.Credentials, cred)
	}
	r.Whitelist = jsonrpc.ParseWhitelist(o.List("rpcwhitelist"))
	r.WhitelistDefault = o.Bool("rpcwhitelistdefault", len(o.List("rpcwhitelist")) > 0)
	c.User, c.Pass = o.String("rpcuser", ""), o.String("rpcpassword", "")
	if c.Pass == "" {
		c.Cookie = c.file(o, "rpccookiefile", ".cookie")
	}
	perm, err := jsonrpc.CookiePerms(o.String("rpccookieperms", "owner"))
	if err != nil {
		return errors.New("Unable to start HTTP server. See debug log for details.")
	}
	c.Perm = uint32(perm)
	return c.rpcBinds(o, uint16(port))
}

// rpcBinds reads where to listen for calls: at home only, unless others are allowed to call.
func (c *Config) rpcBinds(o *options.Options, port uint16) error {
	if len(o.List("rpcallowip")) == 0 || len(o.List("rpcbind")) == 0 {
		if len(o.List("rpcbind")) > 0 {
			c.Warnings = append(c.Warnings, "Option -rpcbind was ignored because -rpcallowip was not "+
				"specified, refusing to allow everyone to connect")
		}
		c.RPCBind = []netip.AddrPort{netip.AddrPortFrom(netip.IPv6Loopback(), port),
			netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)}
		return nil
	}
	for _, s := range o.List("rpcbind") {
		ap, err := parseBind(s, port)
		if err != nil {
			return fmt.Errorf("Invalid port specified in -rpcbind: '%s'", s)
		}
		c.RPCBind = append(c.RPCBind, ap)
	}
	return nil
}
