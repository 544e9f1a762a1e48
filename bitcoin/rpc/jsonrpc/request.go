package jsonrpc

import (
	"encoding/json"
)

// Request is a call as it came, with params an []any or an Object.
type Request struct {
	ID     any
	HasID  bool
	V2     bool // JSON-RPC 2.0; else 1.0 or 1.1
	Method string
	Params any

	// User is who sent it, by the name of its credentials.
	User string
	// URI is the path of the HTTP request.
	URI string
}

// Notification reports whether no answer is wanted.
func (r *Request) Notification() bool { return r.V2 && !r.HasID }

// ParseRequest reads a request from the value that came. What could be read before an error is returned
// too, so that the answer has the id.
func ParseRequest(v any) (r Request, err error) {
	o, ok := v.(Object)
	if !ok {
		return r, Errorf(InvalidRequest, "Invalid Request object")
	}
	r.ID, r.HasID = o.Get("id"), o.Has("id")
	switch version := o.Get("jsonrpc").(type) {
	case nil:
	case string:
		if version != "1.0" && version != "2.0" {
			return r, Errorf(InvalidRequest, "JSON-RPC version not supported")
		}
		r.V2 = version == "2.0"
	default:
		return r, Errorf(InvalidRequest, "jsonrpc field must be a string")
	}
	switch method := o.Get("method").(type) {
	case nil:
		return r, Errorf(InvalidRequest, "Missing method")
	case string:
		r.Method = method
	default:
		return r, Errorf(InvalidRequest, "Method must be a string")
	}
	switch params := o.Get("params").(type) {
	case nil:
		r.Params = []any{}
	case []any, Object:
		r.Params = params
	default:
		return r, Errorf(InvalidRequest, "Params must be an array or object")
	}
	return r, nil
}

// reply returns the answer to a request.
func (r *Request) reply(result any, err *Error) Object {
	var o Object
	if r.V2 {
		o.Set("jsonrpc", "2.0")
	}
	switch {
	case err == nil:
		o.Set("result", result)
		if !r.V2 {
			o.Set("error", nil)
		}
	default:
		if !r.V2 {
			o.Set("result", nil)
		}
		o.Set("error", err.object())
	}
	if r.HasID {
		o.Set("id", r.ID)
	}
	return o
}

// number returns v as an int64; ok is false where it is none.
func number(v any) (int64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	i, err := n.Int64()
	return i, err == nil
}
