package node

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

// handOver gives a message to the relay: on its way to other servers, or to the mailbox server for
// our own domains. Recipients that an alias of ours sent elsewhere get it from a sender of ours,
// for the sender's own domain does not allow us to send in its name.
func (d *deliverer) handOver(ctx context.Context, m *queue.Delivery) []queue.Result {
	looped := d.looped(m)
	if len(looped) == 0 && !slices.ContainsFunc(m.Envelope.Recipients, d.forwarded) {
		return d.relay.Deliver(ctx, m)
	}
	from := d.reversePaths(m)
	results := make([]queue.Result, len(from))
	done := make([]bool, len(from))
	for i := range looped {
		results[i], done[i] = loopResult(m.Envelope.Recipients[i].Address), true
	}
	tried := len(looped) > 0
	for i := range from {
		if done[i] {
			continue
		}
		part := *m
		part.Envelope.From, part.Envelope.Recipients = from[i], nil
		var which []int
		for j := i; j < len(from); j++ {
			if !done[j] && from[j] == from[i] {
				which, done[j] = append(which, j), true
				part.Envelope.Recipients = append(part.Envelope.Recipients, m.Envelope.Recipients[j])
			}
		}
		for k, r := range d.relay.Deliver(ctx, &part) {
			results[which[k]] = r
			tried = tried || !r.Busy
		}
	}
	for i := range results {
		results[i].Busy = results[i].Busy && !tried // all of an attempt, or none
	}
	return results
}

// reversePaths returns the reverse path for each recipient.
func (d *deliverer) reversePaths(m *queue.Delivery) []mail.Address {
	from := make([]mail.Address, len(m.Envelope.Recipients))
	for i, to := range m.Envelope.Recipients {
		from[i] = m.Envelope.From
		if d.srs == nil || !d.forwarded(to) {
			continue
		}
		rewritten, err := d.srs.Forward(m.Envelope.From, d.clock.Now())
		if err != nil {
			// Mail that SPF may fail is better than none.
			d.log.Warn("sender of a forwarded message stays as it is", "msg", m.ID, "from", m.Envelope.From,
				"to", to.Address, "err", err)
			continue
		}
		from[i] = rewritten
	}
	return from
}

// forwarded reports whether an address is on another server and was not the one that was written
// to: an alias led there, ours or that of a server before us which forwards through us.
func (d *deliverer) forwarded(to mail.Recipient) bool {
	if to.ORcpt == "" || d.accounts.IsLocal(to.Address.Domain) {
		return false
	}
	kind, was, _ := strings.Cut(to.ORcpt, ";")
	if kind = strings.ToLower(strings.TrimSpace(kind)); kind != "rfc822" && kind != "utf-8" {
		return false
	}
	original, err := mail.ParseAddress(strings.TrimSpace(was))
	if err != nil {
		return false
	}
	return original.Domain != to.Address.Domain || !strings.EqualFold(original.Local, to.Address.Local)
}

// looped returns the recipients on the mailbox server that have had the message already.
func (d *deliverer) looped(m *queue.Delivery) map[int]bool {
	if !m.Route.Local() {
		return nil
	}
	top := readTop(m)
	var out map[int]bool
	for i, to := range m.Envelope.Recipients {
		if top.loops(to.Address) {
			if out == nil {
				out = make(map[int]bool)
			}
			out[i] = true
		}
	}
	return out
}

// loopResult is the end of a message that came back to a mailbox it has been delivered to.
func loopResult(box mail.Address) queue.Result {
	return queue.Result{Outcome: queue.Failed, Status: "5.4.6", Class: "mail loop",
		Reply: fmt.Sprintf("554 5.4.6 <%s>: mail loop: this mailbox has had the message before", box)}
}

// toServer delivers to one mailbox that is on a server of its own.
func (d *deliverer) toServer(ctx context.Context, m *queue.Delivery,
	to mail.Recipient) queue.Result {
	part := *m
	part.Route = d.relay.Route(to.Address)
	part.Envelope.Recipients = []mail.Recipient{to}
	return d.relay.Deliver(ctx, &part)[0]
}
