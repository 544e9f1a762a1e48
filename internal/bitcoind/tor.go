package bitcoind

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"

	"github.com/tallypost/tallypost/bitcoin/p2p/tor"
	"github.com/tallypost/tallypost/internal/bitcoind/options"
)

// controlPort is that of Tor.
const controlPort = "9051"

// Tor is what a node is told of the Tor beside it.
type Tor struct {
	Control  string // host:port of its control port; empty: no onion service is made
	Password string
	Target   netip.AddrPort // where connections of the service come in
	AskSOCKS bool           // it may say by which proxy onion addresses are reached
}

// tor reads -listenonion and what goes with it. It comes after binds.
func (c *Config) tor(o *options.Options) error {
	if !o.Bool("listenonion", true) || !o.Bool("listen", true) || len(c.Binds) == 0 {
		return nil
	}
	control := o.String("torcontrol", "127.0.0.1:"+controlPort)
	if _, _, err := net.SplitHostPort(control); err != nil {
		control = net.JoinHostPort(noBrackets(control), controlPort)
	}
	onions := 0
	for _, b := range c.Binds {
		if !b.Onion {
			continue
		}
		if onions++; onions == 1 {
			c.Tor.Target = b.Addr
		}
	}
	if onions > 1 {
		c.Warnings = append(c.Warnings, fmt.Sprintf("More than one onion bind address is provided. Using %s for the "+
			"automatically created Tor onion service.", c.Tor.Target))
	}
	for i := 0; !c.Tor.Target.IsValid() && i < len(c.Binds); i++ {
		if b := c.Binds[i]; b.Permissions == 0 {
			c.Tor.Target = b.Addr
		}
	}
	if !c.Tor.Target.IsValid() {
		return nil // there is nowhere for its connections to come in
	}
	c.Tor.Control, c.Tor.Password = control, o.String("torpassword", "")
	c.Tor.AskSOCKS = o.String("onion", "") == ""
	return nil
}

// runTor keeps an onion service while the node runs.
func (n *Node) runTor(ctx context.Context) {
	if n.cfg.Tor.Control == "" {
		return
	}
	n.log.Info("torcontrol thread start")
	defer n.log.Info("torcontrol thread exit")
	cfg := tor.Config{Control: n.cfg.Tor.Control, Password: n.cfg.Tor.Password,
		KeyFile: filepath.Join(n.cfg.DataDir, "onion_v3_private_key"), Target: n.cfg.Tor.Target.String(),
		Port: n.cfg.Network.Port, Clock: n.clock, Log: n.log, OnService: n.p2p.AddOwn, OnEnd: n.p2p.RemoveOwn}
	if n.cfg.Tor.AskSOCKS {
		cfg.OnSOCKS = n.p2p.SetOnionProxy
	}
	tor.New(cfg).Run(ctx)
}
