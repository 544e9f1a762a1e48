package queue

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// reportPause is the wait before reports are tried again for which there was no room on the disk.
const reportPause = time.Minute

// reportIfOwed begins to write the reports of a message when no attempt of it is under way or waits
// in memory: so that one report tells of many recipients. mu is held.
func (q *Queue) reportIfOwed(m *message) {
	if m.owing == 0 || m.jobs > 0 || m.reporting || q.stopping || !q.started {
		return
	}
	m.reporting = true
	m.users++
	q.tasks.Go(func() { q.reportAll(m) })
}

// retryReports takes up the reports again for which there was no room. mu is held.
func (q *Queue) retryReports(now time.Time) {
	if q.reportsAt.IsZero() || now.Before(q.reportsAt) {
		return
	}
	q.reportsAt = time.Time{}
	for _, m := range q.unreported {
		q.reportIfOwed(m)
		q.let(m)
	}
	q.unreported = nil
}

// reportAll writes the reports that are owed about a message: one for each kind. Report and the end
// of what is owed are committed together, so that a crash leads to neither two reports nor none.
func (q *Queue) reportAll(m *message) {
	var err error
	for _, kind := range []struct {
		owed owed
		kind ReportKind
	}{{owesFailure, ReportFailure}, {owesDelay, ReportDelay}, {owesSuccess, ReportSuccess}} {
		if err == nil {
			err = q.reportOne(m, kind.owed, kind.kind)
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	m.reporting = false
	if err != nil {
		// Kept in memory until it works; should the process end before, the due index has it.
		q.log.Warn("report waits", "msg", m.id, "err", err)
		q.unreported = append(q.unreported, m)
		if q.reportsAt.IsZero() {
			q.reportsAt = q.clk.Now().Add(reportPause)
			q.wakeLoader()
		}
		return
	}
	q.reportIfOwed(m)
	q.let(m)
}

// reportOne reports on the recipients that are owed one kind of report. An error means that it must
// be tried again.
func (q *Queue) reportOne(m *message, owed owed, kind ReportKind) error {
	q.mu.Lock()
	which := m.all(func(t *recipient) bool { return t.owes == owed })
	r := q.newReport(m, kind, which)
	body := m.body
	q.mu.Unlock()
	if len(which) == 0 {
		return nil
	}
	dsn, o, err := q.writeReport(m, r, body)
	if errors.Is(err, ErrFull) {
		return err
	}
	if err != nil {
		q.log.Error("no report: the sender will not hear of it", "msg", m.id, "err", err)
		o = new(op)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	which = m.those(which, func(t *recipient) bool { return t.owes == owed })
	if len(which) == 0 { // delivered while we wrote that it is late
		for _, body := range o.bodies {
			body.Abort()
		}
		return nil
	}
	q.alter(o, m, which, func(_ int, t *recipient) { t.owes = owesNothing })
	if dsn != nil {
		q.admit(dsn)
		o.done = func(err error) {
			if err == nil {
				q.accepted(dsn)
			}
		}
	}
	q.commit(o, m, which)
	return nil
}

// newReport gathers what there is to say. mu is held.
func (q *Queue) newReport(m *message, kind ReportKind, which []int) *Report {
	r := &Report{
		Kind:     kind,
		ID:       m.id,
		Envelope: m.envelope,
		Arrived:  m.arrived,
		Now:      q.clk.Now(),
		Size:     m.size,
	}
	for _, i := range which {
		t := &m.rcpts[i]
		to := ReportedRecipient{
			Recipient: m.envelope.Recipients[i],
			Attempts:  int(t.attempts),
			Route:     t.stored,
		}
		if t.last != nil {
			to.Route, to.Result = t.last.route, t.last.result
			to.LastAttempt = fromMicros(t.last.last)
		}
		if kind == ReportDelay {
			to.WillRetryUntil = m.begun().Add(q.cfg.Expire)
		}
		r.Recipients = append(r.Recipients, to)
	}
	return r
}

// writeReport has a report written, and returns it as a message and the op by which it is accepted.
func (q *Queue) writeReport(m *message, r *Report, cached []byte) (*message, *op, error) {
	lent, err := q.lend(m.id, cached)
	if err != nil {
		q.log.Warn("report without the message", "msg", m.id, "err", err)
	} else {
		defer lent.takeBack()
		r.Body = lent
	}
	env, text, err := q.report.Report(r)
	if err != nil {
		return nil, nil, err
	}
	if !env.From.IsNull() || len(env.Recipients) == 0 {
		return nil, nil, fmt.Errorf("report from <%v> to %d recipients", env.From,
			len(env.Recipients))
	}
	id := q.ids.Next(q.clk.Now())
	body, err := q.writeBody(id, text)
	if err != nil {
		return nil, nil, err
	}
	sum := sha256.Sum256(text)
	header, _ := mail.ParseHeader(text)
	ev := mail.Event{
		Kind:      mail.SubmissionAcceptance,
		MessageID: header.Get("Message-ID"),
		Size:      int64(len(text)),
		SHA256:    hex.EncodeToString(sum[:]),
		Note:      "delivery status notification for " + m.id.String(),
	}
	dsn := q.compose(id, env, &ev, int64(len(text)))
	return dsn, dsn.accept(ev, body), nil
}

// writeBody puts a message that was made here into the store.
func (q *Queue) writeBody(id mail.ID, text []byte) (Body, error) {
	body, err := q.newBody(id)
	if err != nil {
		return nil, err
	}
	if _, err = body.Write(text); err == nil {
		err = body.Seal(nil)
	}
	if err != nil {
		body.Abort()
		return nil, err
	}
	return body, nil
}
