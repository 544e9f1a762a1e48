package jsonrpc

import (
	"errors"
	"fmt"
)

// Code is the number of an error (Bitcoin Core rpc/protocol.h).
type Code int

// The codes that the node uses.
const (
	InvalidRequest Code = -32600 // HTTP status 400
	MethodNotFound Code = -32601 // HTTP status 404
	InternalError  Code = -32603
	ParseError     Code = -32700

	MiscError            Code = -1
	TypeError            Code = -3
	InvalidAddressOrKey  Code = -5
	InvalidParameter     Code = -8
	ClientNotConnected   Code = -9
	InInitialDownload    Code = -10
	DatabaseError        Code = -20
	DeserializationError Code = -22
	NodeAlreadyAdded     Code = -23
	NodeNotAdded         Code = -24
	VerifyError          Code = -25
	VerifyRejected       Code = -26
	VerifyAlreadyInUTXO  Code = -27
	InWarmup             Code = -28
	NodeNotConnected     Code = -29
	InvalidIPOrSubnet    Code = -30
	P2PDisabled          Code = -31
	MethodDeprecated     Code = -32
	MempoolDisabled      Code = -33
	NodeCapacityReached  Code = -34
)

// Error is what a failed call answers.
type Error struct {
	Code    Code
	Message string
	Data    any // another member, where a method has one; else nil
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Errorf returns an *Error.
func Errorf(code Code, format string, args ...any) error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

func (e *Error) object() Object {
	o := Object{{"code", int(e.Code)}, {"message", e.Message}}
	if e.Data != nil {
		o.Set("data", e.Data)
	}
	return o
}

// asError returns err as an *Error; one of another type is a MiscError, as an exception is in Core.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: MiscError, Message: err.Error()}
}
