package intake

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/tallypost/tallypost/mail/smtp"
)

// Limits bound what clients can make the server do. A network is the /24 of an IPv4 address or the /64 of an
// IPv6 address, which is what one customer usually has. Zero is no limit. The addresses of
// Config.RelayFrom are exempt from all but Connections.
type Limits struct {
	Connections        int // open at a time, all clients together
	ConnectionsAddress int // open at a time from one address
	ConnectionsNetwork int // open at a time from one network

	ConnectRate    Rate // new connections from one address
	MessageRate    Rate // messages from one address
	MessageRateNet Rate // messages from one network
	ByteRate       Rate // octets from one address
	// RefusedRate bounds the recipients refused to one address: dictionary attacks end here.
	RefusedRate Rate
	// AuthFailRate bounds failed log-ins from one network, to all accounts.
	AuthFailRate Rate

	AccountRecipientRate Rate // recipients of one account
	AccountByteRate      Rate // octets of one account
}

// limiter holds the meters of the Limits.
type limiter struct {
	cfg    Limits
	exempt func(netip.Addr) bool
	now    func() time.Time

	all       *counter[struct{}]
	addrs     *counter[netip.Addr]
	nets      *counter[netip.Prefix]
	connects  *meter[netip.Addr]
	messages  *meter[netip.Addr]
	netMsgs   *meter[netip.Prefix]
	octets    *meter[netip.Addr]
	refused   *meter[netip.Addr]
	authFails *meter[netip.Prefix]
	accRcpts  *meter[string]
	accOctets *meter[string]
}

func newLimiter(cfg Limits, exempt func(netip.Addr) bool, now func() time.Time) *limiter {
	return &limiter{cfg: cfg, exempt: exempt, now: now,
		all: newCounter[struct{}](), addrs: newCounter[netip.Addr](), nets: newCounter[netip.Prefix](),
		connects: newMeter[netip.Addr](cfg.ConnectRate), messages: newMeter[netip.Addr](cfg.MessageRate),
		netMsgs: newMeter[netip.Prefix](cfg.MessageRateNet), octets: newMeter[netip.Addr](cfg.ByteRate),
		refused: newMeter[netip.Addr](cfg.RefusedRate), authFails: newMeter[netip.Prefix](cfg.AuthFailRate),
		accRcpts: newMeter[string](cfg.AccountRecipientRate), accOctets: newMeter[string](cfg.AccountByteRate)}
}

// network returns the network of an address.
func network(ip netip.Addr) netip.Prefix {
	ip = ip.Unmap()
	bits := 64
	if ip.Is4() {
		bits = 24
	}
	p, err := ip.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{} // not an IP connection
	}
	return p
}

func busy(format string, args ...any) *smtp.Reply {
	return refuse(421, "4.7.0", format, args...)
}

// admit is an smtp.Config.Admit.
func (l *limiter) admit(_ context.Context, remote netip.AddrPort) (leave func(), err error) {
	ip, net := remote.Addr().Unmap(), network(remote.Addr())
	perAddr, perNet := l.cfg.ConnectionsAddress, l.cfg.ConnectionsNetwork
	if l.exempt(ip) {
		perAddr, perNet = 0, 0
	} else if wait := l.connects.take(ip, 1, l.now()); wait > 0 {
		return nil, busy("%s connects too often, try again in %s", ip, seconds(wait))
	}
	if !l.all.enter(struct{}{}, l.cfg.Connections) {
		return nil, busy("too many connections to this server, try again later")
	}
	if !l.addrs.enter(ip, perAddr) {
		l.all.leave(struct{}{})
		return nil, busy("too many connections from %s: the limit is %d", ip, perAddr)
	}
	if !l.nets.enter(net, perNet) {
		l.addrs.leave(ip)
		l.all.leave(struct{}{})
		return nil, busy("too many connections from %s: the limit is %d", net, perNet)
	}
	return func() {
		l.nets.leave(net)
		l.addrs.leave(ip)
		l.all.leave(struct{}{})
	}, nil
}

func seconds(d time.Duration) string {
	return fmt.Sprintf("%d seconds", int64((d+time.Second-1)/time.Second))
}

// message counts a message at MAIL.
func (l *limiter) message(ip netip.Addr, account string) error {
	if account != "" || l.exempt(ip) {
		return nil
	}
	if wait := l.messages.take(ip, 1, l.now()); wait > 0 {
		return refuse(450, "4.7.1", "%s sends too many messages, try again in %s", ip, seconds(wait))
	}
	if wait := l.netMsgs.take(network(ip), 1, l.now()); wait > 0 {
		return refuse(450, "4.7.1", "%s sends too many messages, try again in %s", network(ip), seconds(wait))
	}
	return nil
}

// recipient counts a recipient of an account.
func (l *limiter) recipient(account string) error {
	if account == "" {
		return nil
	}
	if wait := l.accRcpts.take(account, 1, l.now()); wait > 0 {
		return refuse(450, "4.7.1", "the account %s has reached its limit of %d recipients in %s, go on in %s",
			account, l.cfg.AccountRecipientRate.Count, l.cfg.AccountRecipientRate.Per, seconds(wait))
	}
	return nil
}

// refusal counts a recipient that was refused; too many end the connection.
func (l *limiter) refusal(ip netip.Addr) error {
	if l.exempt(ip) {
		return nil
	}
	if wait := l.refused.take(ip, 1, l.now()); wait > 0 {
		return busy("too many unknown recipients from %s, try again in %s", ip, seconds(wait))
	}
	return nil
}

// size counts the octets of a message.
func (l *limiter) size(ip netip.Addr, account string, n int64) error {
	if account != "" {
		if wait := l.accOctets.take(account, n, l.now()); wait > 0 {
			return refuse(450, "4.7.1", "the account %s has reached its limit of octets, go on in %s", account, seconds(wait))
		}
		return nil
	}
	if l.exempt(ip) {
		return nil
	}
	if wait := l.octets.take(ip, n, l.now()); wait > 0 {
		return refuse(450, "4.7.1", "%s sends too much, try again in %s", ip, seconds(wait))
	}
	return nil
}
