package rpc

import "github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"

// Notifier is something that is published by ZeroMQ.
type Notifier struct {
	Type    string // "pubhashblock" and the like
	Address string
	HWM     int // messages that are kept for a subscriber
}

func (a *API) zmqMethods() []jsonrpc.Method {
	return []jsonrpc.Method{
		{Category: "zmq", Name: "getzmqnotifications", Run: run(a.getZMQNotifications),
			Doc: "Returns information about the active ZeroMQ notifications."},
	}
}

func (a *API) getZMQNotifications(call) (any, error) {
	out := []any{}
	for _, n := range a.cfg.Notifiers {
		out = append(out, object{{"type", n.Type}, {"address", n.Address}, {"hwm", n.HWM}})
	}
	return out, nil
}
