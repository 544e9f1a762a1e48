package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/account"
	"github.com/tallypost/tallypost/mail/mailbox"
	"github.com/tallypost/tallypost/mail/queue"
)

// local is the route of everything that ends in a mailbox here.
const local queue.Route = "local"

// deliverer is the queue's Deliverer: mailboxes for our own domains, the relay for all others.
type deliverer struct {
	accounts account.Resolver
	boxes    *mailbox.Maildirs
	relay    queue.Deliverer
	log      *slog.Logger
}

// Route is as queue.Deliverer has it.
func (d *deliverer) Route(to mail.Address) queue.Route {
	if d.accounts.IsLocal(to.Domain) {
		return local
	}
	return d.relay.Route(to)
}

// Deliver is as queue.Deliverer has it.
func (d *deliverer) Deliver(ctx context.Context, m *queue.Delivery) []queue.Result {
	if m.Route != local {
		return d.relay.Deliver(ctx, m)
	}
	results := make([]queue.Result, len(m.Envelope.Recipients))
	for i, to := range m.Envelope.Recipients {
		results[i] = d.deliverLocal(ctx, m, to)
	}
	return results
}

// deliverLocal puts one copy into one mailbox. The account may have gone since the message was accepted.
func (d *deliverer) deliverLocal(ctx context.Context, m *queue.Delivery, to mail.Recipient) queue.Result {
	targets, err := d.accounts.Resolve(to.Address)
	if err != nil || len(targets) != 1 || targets[0].Account == nil {
		return queue.Result{Outcome: queue.Failed, Status: "5.1.1",
			Reply: fmt.Sprintf("550 5.1.1 <%s>: no such mailbox here any more", to.Address)}
	}
	owner := targets[0].Account
	path, err := d.boxes.Deliver(ctx, mailbox.Letter{
		Box: owner.Address, ID: m.ID, Body: m.Body, Size: m.Size, Quota: owner.Quota,
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
