package intake

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/tallypost/tallypost/mail/smtp"
)

// Limits bound what clients can make the server do. A network is the /24 of an IPv4 address or the /64
// of an IPv6 address, which is what one customer usually has. Zero is no limit. The addresses of
// Config.RelayFrom are exempt from all but Connections and AuthFailRate.
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
	// AuthFailRate bounds failed log-ins from one network, to all accounts. Past it nobody logs in
	// from there, for a while, whatever the password.
	AuthFailRate Rate

	AccountRecipientRate Rate // recipients of one account
	AccountByteRate      Rate // octets of one account
}

// DefaultLimits are generous: the largest senders stay far below them with what one small or middling
// site gets.
func DefaultLimits() Limits {
	return Limits{
		Connections:        2000,
		ConnectionsAddress: 50, // as Postfix has it
		ConnectionsNetwork: 200,

		ConnectRate:    Rate{1200, 10 * time.Minute},
		MessageRate:    Rate{6000, time.Hour},
		MessageRateNet: Rate{20_000, time.Hour},
		ByteRate:       Rate{8 << 30, time.Hour},
		RefusedRate:    Rate{200, 10 * time.Minute},
		AuthFailRate:   Rate{30, 10 * time.Minute},

		AccountRecipientRate: Rate{5000, 24 * time.Hour},
		AccountByteRate:      Rate{8 << 30, 24 * time.Hour},
	}
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
	return &limiter{
		cfg: cfg, exempt: exempt, now: now,
		all:       newCounter[struct{}](),
		addrs:     newCounter[netip.Addr](),
		nets:      newCounter[netip.Prefix](),
		connects:  newMeter[netip.Addr](cfg.ConnectRate),
		messages:  newMeter[netip.Addr](cfg.MessageRate),
		netMsgs:   newMeter[netip.Prefix](cfg.MessageRateNet),
		octets:    newMeter[netip.Addr](cfg.ByteRate),
		refused:   newMeter[netip.Addr](cfg.RefusedRate),
		authFails: newMeter[netip.Prefix](cfg.AuthFailRate),
		accRcpts:  newMeter[string](cfg.AccountRecipientRate),
		accOctets: newMeter[string](cfg.AccountByteRate),
	}
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

// stressPatience is how long a client may take for a command while connections are scarce. Postfix
// has 10 seconds (STRESS_README); 30 are enough for a server that is far away and slow itself.
const stressPatience = 30 * time.Second

// patience returns how long a client may take for a command, zero for as long as ever. Where four
// fifths of all connections are taken those that only sit there have to go.
func (l *limiter) patience() time.Duration {
	if l.cfg.Connections > 0 && l.all.count(struct{}{}) > l.cfg.Connections/5*4 {
		return stressPatience
	}
	return 0
}

// message counts a message at MAIL. The octets it will have, if the client says so, must fit, too.
func (l *limiter) message(ip netip.Addr, account string, size int64) error {
	now := l.now()
	if account != "" {
		return l.accountSize(account, l.accOctets.peek(account, max(size, 1), now))
	}
	if l.exempt(ip) {
		return nil
	}
	if wait := l.octets.peek(ip, max(size, 1), now); wait > 0 {
		return l.addressSize(ip, wait)
	}
	if wait := l.messages.take(ip, 1, now); wait > 0 {
		return refuse(450, "4.7.1", "%s sends too many messages, try again in %s", ip, seconds(wait))
	}
	if wait := l.netMsgs.take(network(ip), 1, now); wait > 0 {
		return refuse(450, "4.7.1", "%s sends too many messages, try again in %s", network(ip),
			seconds(wait))
	}
	return nil
}

// recipient counts a recipient of an account.
func (l *limiter) recipient(account string) error {
	if account == "" {
		return nil
	}
	if wait := l.accRcpts.take(account, 1, l.now()); wait > 0 {
		return refuse(450, "4.7.1",
			"the account %s has reached its limit of %d recipients in %s, go on in %s", account,
			l.cfg.AccountRecipientRate.Count, period(l.cfg.AccountRecipientRate.Per), seconds(wait))
	}
	return nil
}

// refusal counts a recipient that was refused; too many end the connection.
func (l *limiter) refusal(ip netip.Addr) error {
	if l.exempt(ip) {
		return nil
	}
	if wait := l.refused.take(ip, 1, l.now()); wait > 0 {
		return busy("too many refused recipients from %s, try again in %s", ip, seconds(wait))
	}
	return nil
}

// size counts the octets of a message.
func (l *limiter) size(ip netip.Addr, account string, n int64) error {
	if account != "" {
		return l.accountSize(account, l.accOctets.take(account, n, l.now()))
	}
	if l.exempt(ip) {
		return nil
	}
	return l.addressSize(ip, l.octets.take(ip, n, l.now()))
}

func (l *limiter) accountSize(account string, wait time.Duration) error {
	if wait <= 0 {
		return nil
	}
	return refuse(450, "4.7.1", "the account %s has reached its limit of %d octets in %s, go on in %s",
		account, l.cfg.AccountByteRate.Count, period(l.cfg.AccountByteRate.Per), seconds(wait))
}

func (l *limiter) addressSize(ip netip.Addr, wait time.Duration) error {
	if wait <= 0 {
		return nil
	}
	return refuse(450, "4.7.1", "%s sends too much, try again in %s", ip, seconds(wait))
}

// authFailed counts a log-in that failed.
func (l *limiter) authFailed(ip netip.Addr) {
	// What is beyond the rate is not counted: then the wait would not grow shorter.
	l.authFails.take(network(ip), 1, l.now())
}

// mayAuth refuses log-ins from where too many have failed (RFC 4954, section 6: 454 is for now).
func (l *limiter) mayAuth(ip netip.Addr) error {
	if wait := l.authFails.peek(network(ip), 1, l.now()); wait > 0 {
		return refuse(454, "4.7.0", "too many failed log-ins from %s, try again in %s", network(ip),
			seconds(wait))
	}
	return nil
}

// period writes the time of a rate: "24h", "10m".
func period(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}
