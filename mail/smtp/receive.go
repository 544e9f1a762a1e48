package smtp

import (
	"errors"
	"fmt"
)

// prepareBody sets what every message of this server has in common.
func (c *Conn) prepareBody() {
	b, cfg := &c.body, &c.v.cfg
	b.x, b.stray, b.limit = &c.x, cfg.Stray, cfg.MaxSize
	b.spare = cfg.MaxSize + 1<<20
	c.beginBody()
}

// beginBody and endBody enclose the time in which octets of a message are awaited.
func (c *Conn) beginBody() {
	c.x.bulk = true
	c.x.demand(int64(c.v.cfg.MinRate), c.v.cfg.DataTimeout)
}

func (c *Conn) endBody() {
	c.x.bulk = false
	c.x.noDemand()
}

// receive lets the session read the message and answers for it, at its true end.
func (c *Conn) receive() {
	c.prepareBody()
	var replies []Reply
	var err error
	if each, ok := c.session.(EachSession); ok && c.v.cfg.LMTP {
		replies, err = each.DataEach(c.v.ctx, &c.body)
		if err == nil && len(replies) != c.tx.rcpts {
			err = fmt.Errorf("%d replies for %d recipients", len(replies), c.tx.rcpts)
		}
	} else {
		var r Reply
		r, err = c.session.Data(c.v.ctx, &c.body)
		replies = []Reply{r}
	}
	if !c.readOver(err != nil || c.body.refusal != nil) {
		return
	}
	if c.body.refusal != nil {
		err = c.body.refusal
	}
	c.answer(replies, err)
	c.resetSession()
}

// readOver reads what the session left of the message, so that the next command begins where the
// client thinks it does. Of a message in chunks that is refused only the chunk at hand is read: the
// client has yet to hear of it. It reports whether there is an answer to give.
func (c *Conn) readOver(refused bool) bool {
	err := c.body.finish(refused)
	c.endBody()
	switch {
	case err == nil:
		return true
	case errors.Is(err, errAborted):
		c.resetSession()
		return false
	}
	c.lost(err)
	return false
}

// answer gives the reply to a message: one, or in LMTP one for each recipient (RFC 2033, section
// 4.2).
func (c *Conn) answer(replies []Reply, err error) {
	if err != nil {
		r := c.refusalOf(err, "DATA")
		replies = []Reply{*r}
	} else {
		c.idling = 0
	}
	n := 1
	if c.v.cfg.LMTP && (c.body.dots || c.body.last) {
		n = c.tx.rcpts
	}
	for i := range n {
		r := replies[min(i, len(replies)-1)]
		if r.Code == 0 {
			r.Code, r.Text = 250, "OK"
		}
		if r.Enhanced == "" {
			r.Enhanced = defaultEnhanced(r.Code)
		}
		if r.Code == 421 {
			c.closing, c.linger = true, true
		}
		c.say(r.Code, r.Enhanced, r.Text)
	}
}
