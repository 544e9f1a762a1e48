package chain

import "sync"

// wakes are functions to be called when something has changed.
type wakes struct {
	mu    sync.Mutex
	funcs map[int]func() // guarded by mu
	next  int            // guarded by mu
}

// OnTip has wake called after every change of the tip or of the best header, with no lock held and
// no data: who is woken asks for what it needs. It must not block; a send on a channel of one place
// that is full already is the usual form. cancel ends it; a call that has begun may still run.
func (c *Chain) OnTip(wake func()) (cancel func()) { return c.tipWakes.add(wake) }

// OnTx is OnTip for transactions that entered or left the mempool; see TxEventsSince.
func (c *Chain) OnTx(wake func()) (cancel func()) { return c.txWakes.add(wake) }

func (w *wakes) add(f func()) (cancel func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.funcs == nil {
		w.funcs = make(map[int]func())
	}
	id := w.next
	w.next++
	w.funcs[id] = f
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.funcs, id)
	}
}

func (w *wakes) wake() {
	w.mu.Lock()
	funcs := make([]func(), 0, len(w.funcs))
	for _, f := range w.funcs {
		funcs = append(funcs, f)
	}
	w.mu.Unlock()
	for _, f := range funcs {
		f()
	}
}
