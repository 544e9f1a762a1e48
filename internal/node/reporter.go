package node

import (
	"strings"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/dkim"
	"github.com/tallypost/tallypost/mail/dsn"
	"github.com/tallypost/tallypost/mail/queue"
	"github.com/tallypost/tallypost/mail/relay"
)

// reporter writes the queue's reports as delivery status notifications.
type reporter struct {
	host mail.Domain
	sign func(mail.Domain) *dkim.Signer
}

// Report is as queue.Reporter has it.
func (r reporter) Report(q *queue.Report) (mail.Envelope, []byte, error) {
	d := dsn.Report{Host: r.host, Now: q.Now, Arrived: q.Arrived, Envelope: q.Envelope, Message: q.Body, Size: q.Size,
		Contact: "postmaster@" + string(r.host)}
	for _, to := range q.Recipients {
		d.Recipients = append(d.Recipients, dsn.Recipient{
			Recipient: to.Recipient, Action: action(q.Kind, to), Status: to.Result.Status, Remote: remote(to.Result.Peer),
			Ours: relay.Ours(&to.Result), Reply: to.Result.Reply, LastAttempt: to.LastAttempt, RetryUntil: to.WillRetryUntil,
		})
	}
	env, text, err := d.Build()
	if signer := r.sign(r.host); err == nil && signer != nil {
		fields, err := signer.Sign(text, q.Now)
		return env, append(fields, text...), err
	}
	return env, text, err
}

func action(kind queue.ReportKind, to queue.ReportedRecipient) dsn.Action {
	switch {
	case kind == queue.ReportFailure:
		return dsn.Failed
	case kind == queue.ReportDelay:
		return dsn.Delayed
	case strings.HasPrefix(string(to.Route), string(local)):
		return dsn.Delivered
	}
	return dsn.Relayed
}

func remote(p *mail.Peer) string {
	if p == nil {
		return ""
	}
	return p.Name
}
