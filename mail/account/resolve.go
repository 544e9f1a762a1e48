package account

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tallypost/tallypost/mail"
)

// Target is where a message for an address goes in the end.
type Target struct {
	Address mail.Address // mailbox here, or address on another server
	// Account is the mailbox's owner; nil where the address is on another server.
	Account *Account
	// Detail is the sub-address that was asked for: "lists" of ada+lists@example.org.
	Detail string
}

// Limits on aliases that lead to aliases.
const (
	maxAliasDepth   = 10
	maxAliasTargets = 1000
)

// ErrAliasLoop says that aliases lead in a circle, too deep or to too many.
var ErrAliasLoop = errors.New("aliases lead in a circle, more than 10 deep or to more than 1000 targets")

// Resolver answers questions about addresses for a set of local domains.
type Resolver struct {
	*Accounts
	// Local domains: mail for any other goes elsewhere.
	Local map[mail.Domain]bool
	// Separator starts a sub-address (RFC 5233); "" for none.
	Separator string
}

// IsLocal reports whether mail for the domain ends here.
func (r Resolver) IsLocal(d mail.Domain) bool { return r.Local[d] }

// Resolve returns where mail for an address goes: none and ErrUnknown where a local address leads nowhere.
// An address of another domain leads to itself.
func (r Resolver) Resolve(addr mail.Address) ([]Target, error) {
	w := walk{r: r, dir: r.current(), seen: make(map[string]bool)}
	if err := w.follow(addr, 0); err != nil {
		return nil, err
	}
	return w.out, nil
}

// walk follows aliases, each once.
type walk struct {
	r    Resolver
	dir  *directory
	seen map[string]bool
	out  []Target
}

func (w *walk) follow(addr mail.Address, depth int) error {
	if depth > maxAliasDepth || len(w.seen) > maxAliasTargets {
		return ErrAliasLoop
	}
	if w.seen[key(addr)] {
		return nil
	}
	w.seen[key(addr)] = true
	if !w.r.IsLocal(addr.Domain) {
		w.out = append(w.out, Target{Address: addr})
		return nil
	}
	acc, alias, detail := w.find(addr)
	switch {
	case acc != nil:
		w.out = append(w.out, Target{Address: acc.Address, Account: acc, Detail: detail})
		return nil
	case alias != nil:
		for _, to := range alias.Targets {
			if err := w.follow(to, depth+1); err != nil {
				return fmt.Errorf("%s: %w", alias.Address, err)
			}
		}
		return nil
	}
	return fmt.Errorf("%w: %s", ErrUnknown, addr)
}

// find tries the whole local part, then the part before the separator, then the domain's catch-all. Mail
// to postmaster (RFC 5321, section 4.5.1) and abuse (RFC 2142) is never refused where there is an account
// at all: without an alias of its own it goes to the first.
func (w *walk) find(addr mail.Address) (*Account, *Alias, string) {
	if acc, alias := w.exact(addr); acc != nil || alias != nil {
		return acc, alias, ""
	}
	if sep := w.r.Separator; sep != "" {
		if base, detail, ok := strings.Cut(addr.Local, sep); ok && base != "" {
			acc, alias := w.exact(mail.Address{Local: base, Domain: addr.Domain})
			if acc != nil || alias != nil {
				return acc, alias, detail
			}
		}
	}
	if _, alias := w.exact(mail.Address{Local: catchAll, Domain: addr.Domain}); alias != nil {
		return nil, alias, ""
	}
	if l := strings.ToLower(addr.Local); (l == "postmaster" || l == "abuse") && len(w.dir.Accounts) > 0 {
		return &w.dir.Accounts[0], nil, ""
	}
	return nil, nil, ""
}

func (w *walk) exact(addr mail.Address) (*Account, *Alias) {
	if i, ok := w.dir.byAddress[key(addr)]; ok {
		return &w.dir.Accounts[i], nil
	}
	if i, ok := w.dir.aliases[key(addr)]; ok {
		return nil, &w.dir.Aliases[i]
	}
	return nil, nil
}

// Login returns the account that may log in under a name, which is any of its addresses.
func (r Resolver) Login(name string) (*Account, bool) {
	addr, err := mail.ParseAddress(name)
	if err != nil {
		return nil, false
	}
	acc, _ := (&walk{r: r, dir: r.current()}).exact(addr)
	if acc == nil || acc.Disabled {
		return nil, false
	}
	return acc, true
}

// MaySendAs reports whether the account may use an address as its sender: one of its own, with any
// sub-address, or an alias that leads to its mailbox.
func (r Resolver) MaySendAs(acc *Account, from mail.Address) bool {
	if !r.IsLocal(from.Domain) {
		return false
	}
	w := walk{r: r, dir: r.current(), seen: make(map[string]bool)}
	owner, alias, _ := w.find(from)
	if owner != nil {
		return key(owner.Address) == key(acc.Address)
	}
	if alias == nil || alias.Address.Local == catchAll {
		return false
	}
	for _, t := range alias.Targets {
		if key(t) == key(acc.Address) {
			return true
		}
	}
	return false
}
