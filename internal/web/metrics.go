package web

import "github.com/prometheus/client_golang/prometheus"

// metrics tells Prometheus how a node is, as of when it asks.
type metrics struct {
	queue   Queue
	bitcoin Bitcoin

	messages, recipients, oldest                       *prometheus.Desc
	mode, state, height, headers, progress, tip, peers *prometheus.Desc
}

func newMetrics(q Queue, b Bitcoin) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("tallypost_"+name, help, labels, nil)
	}
	return &metrics{
		queue: q, bitcoin: b,
		messages:   desc("queue_messages", "Messages in the queue."),
		recipients: desc("queue_recipients", "Recipients that are not settled, by state.", "state"),
		oldest:     desc("queue_oldest_timestamp_seconds", "When the oldest message in the queue arrived; 0: none."),
		mode:       desc("bitcoin_mode", "1 for the mode of the Bitcoin half and its network.", "mode", "network"),
		state:      desc("bitcoin_state", "1 for the state of the Bitcoin half, 0 for the others.", "state"),
		height:     desc("bitcoin_height", "Height of the tip."),
		headers:    desc("bitcoin_headers", "Height of the best header."),
		progress:   desc("bitcoin_progress_ratio", "How much is done of what the Bitcoin half is at, 1 when it is ready."),
		tip:        desc("bitcoin_tip_timestamp_seconds", "Time of the tip; 0: none."),
		peers:      desc("bitcoin_peers", "Peers of the Bitcoin half."),
	}
}

// Describe is as prometheus.Collector has it.
func (m *metrics) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, to) }

// Collect is as prometheus.Collector has it.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	q := m.queue.Stats()
	gauge(m.messages, float64(q.Messages))
	for state, n := range q.States {
		gauge(m.recipients, float64(n), string(state))
	}
	oldest := 0.0
	if !q.Oldest.IsZero() {
		oldest = float64(q.Oldest.Unix())
	}
	gauge(m.oldest, oldest)

	b := m.bitcoin.Status()
	gauge(m.mode, 1, b.Mode, b.Network)
	for _, state := range []string{BitcoinOff, BitcoinStarting, BitcoinSyncing, BitcoinReady, BitcoinFailed} {
		on := 0.0
		if state == b.State {
			on = 1
		}
		gauge(m.state, on, state)
	}
	if b.State == BitcoinOff {
		return
	}
	gauge(m.height, float64(b.Height))
	gauge(m.headers, float64(b.Headers))
	gauge(m.progress, b.Progress)
	gauge(m.peers, float64(b.Peers))
	tip := 0.0
	if !b.TipTime.IsZero() {
		tip = float64(b.TipTime.Unix())
	}
	gauge(m.tip, tip)
}
