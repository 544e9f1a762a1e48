// Package jsonrpc is the door by which programs ask the node: JSON-RPC 1.1 and 2.0 over HTTP as bitcoind
// speaks it, with its error codes, status codes, credentials and ways to pass arguments.
//
// A Server has Methods. It checks who asks, finds the method, brings arguments by name into their order,
// holds them against the kinds that the method declares, runs it, and writes the answer. In JSON-RPC 1.1
// an error is an HTTP status too; in 2.0 it is not (Bitcoin Core httprpc.cpp, rpc/server.cpp).
//
// What the methods do is not here; nor is TLS, which Core does not have either: keep the port to oneself.
package jsonrpc
