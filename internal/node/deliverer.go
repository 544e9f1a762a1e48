package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/account"
	"github.com/tallypost/tallypost/mail/mailbox"
	"github.com/tallypost/tallypost/mail/queue"
	"github.com/tallypost/tallypost/mail/reporting"
	"github.com/tallypost/tallypost/mail/srs"
)

// local is the route of everything that ends in a mailbox here.
const local queue.Route = "local"

// deliverer is the queue's Deliverer: mailboxes for our own domains, the relay for all others.
type deliverer struct {
	accounts account.Resolver
	boxes    *mailbox.Maildirs
	relay    queue.Deliverer
	// lmtp says that the mailboxes are on a server of their own, to which the relay has routes.
	lmtp  bool
	srs   *srs.Rewriter // of the senders of forwarded mail; nil: they stay as they are
	clock clock.Clock
	// since is when this process began: it does not know what became of earlier attempts that were cut short.
	since time.Time
	inbox *reporting.Inbox
	// takesReports says which addresses are for the reports of others.
	takesReports func(mail.Address) bool
	log          *slog.Logger
}

// Route is as queue.Deliverer has it.
func (d *deliverer) Route(to mail.Address) queue.Route {
	if d.accounts.IsLocal(to.Domain) && (!d.lmtp || d.takesReports(to)) {
		return local
	}
	return d.relay.Route(to)
}

// Deliver is as queue.Deliverer has it.
func (d *deliverer) Deliver(ctx context.Context, m *queue.Delivery) []queue.Result {
	if m.Route != local {
		return d.handOver(ctx, m)
	}
	top := readTop(m)
	results := make([]queue.Result, len(m.Envelope.Recipients))
	for i, to := range m.Envelope.Recipients {
		results[i] = d.deliverLocal(ctx, m, to, top)
	}
	return results
}

// deliverLocal puts one copy into one mailbox. The account may have gone since the message was accepted.
func (d *deliverer) deliverLocal(ctx context.Context, m *queue.Delivery, to mail.Recipient, top letterTop) queue.Result {
	var kept *queue.Result
	if d.takesReports(to.Address) {
		r := d.keepReport(m, to.Address)
		if r.Outcome != queue.Delivered {
			return r
		}
		kept = &r
	}
	targets, err := d.accounts.Resolve(to.Address)
	if kept != nil && (err != nil || len(targets) != 1 || targets[0].Account == nil) {
		return *kept // the address is no mailbox, too
	}
	if err != nil || len(targets) != 1 || targets[0].Account == nil {
		return queue.Result{Outcome: queue.Failed, Status: "5.1.1",
			Reply: fmt.Sprintf("550 5.1.1 <%s>: no such mailbox here any more", to.Address)}
	}
	if top.loops(to.Address) {
		return loopResult(to.Address)
	}
	if d.lmtp {
		return d.toServer(ctx, m, to)
	}
	owner := targets[0].Account
	path, err := d.boxes.Deliver(ctx, mailbox.Letter{
		Box: owner.Address, ID: m.ID, Body: m.Body, Size: m.Size, Quota: owner.Quota, Folder: top.folder(),
		Again:  m.Arrived.Before(d.since),
		Prefix: fmt.Appendf(nil, "Return-Path: <%s>\r\nDelivered-To: %s\r\n", m.Envelope.From, to.Address),
	})
	switch {
	case errors.Is(err, mailbox.ErrQuota):
		return queue.Result{Outcome: queue.Deferred, Status: "4.2.2",
			Reply: fmt.Sprintf("452 4.2.2 <%s>: mailbox is full", to.Address)}
	case err != nil:
		d.log.Error("mailbox cannot be written", "msg", m.ID, "box", owner.Address, "err", err)
		return queue.Result{Outcome: queue.Deferred, Status: "4.3.0",
			Reply: fmt.Sprintf("451 4.3.0 <%s>: the mailbox cannot be written: %v", to.Address, err)}
	}
	return queue.Result{Outcome: queue.Delivered, Status: "2.0.0",
		Reply: fmt.Sprintf("250 2.0.0 %s saved as %s", m.ID, path)}
}

// keepReport reads a report of another server about our mail. One that cannot be read is kept with the reason
// and counts as delivered: its sender, a program, could do nothing about it.
func (d *deliverer) keepReport(m *queue.Delivery, to mail.Address) queue.Result {
	r, err := d.inbox.Add(m.ID, to, m.Body, m.Size)
	if err != nil {
		d.log.Error("report cannot be written", "msg", m.ID, "to", to, "err", err)
		return queue.Result{Outcome: queue.Deferred, Status: "4.3.0",
			Reply: fmt.Sprintf("451 4.3.0 <%s>: the report cannot be written: %v", to, err)}
	}
	if r.Error != "" {
		d.log.Warn("report received that cannot be read", "msg", m.ID, "to", to, "err", r.Error)
		return queue.Result{Outcome: queue.Delivered, Status: "2.0.0",
			Reply: fmt.Sprintf("250 2.0.0 %s kept, though it is %s", m.ID, r.Error)}
	}
	return queue.Result{Outcome: queue.Delivered, Status: "2.0.0",
		Reply: fmt.Sprintf("250 2.0.0 %s kept as a report of %s about %s", m.ID, r.Org, r.Domain)}
}
