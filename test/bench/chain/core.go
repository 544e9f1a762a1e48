package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/test/bench/chainfile"
)

var childCore = flag.String("child.core", "", "")

// coreArguments are what every bitcoind runs with.
func coreArguments(file, dir, assumed string, cache int) []string {
	return []string{"-regtest", "-datadir=" + dir, "-loadblock=" + file, "-connect=0", "-listen=0",
		"-printtoconsole=0", "-checkblockindex=0", "-checkmempool=0", "-minimumchainwork=0",
		"-persistmempool=0", "-dbcache=" + strconv.Itoa(cache), "-assumevalid=" + assumed}
}

// bitcoind is a bitcoind that is asked by RPC.
type bitcoind struct {
	cmd  *exec.Cmd
	url  string
	done chan error
}

// connectByCore has a bitcoind take in a file and then, by submitblock, the blocks of its tail, as
// connectChild has us do. What it takes has the way of a block's octets through JSON in it.
func connectByCore() (err error) {
	b, err := startBitcoind()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	var l latencies
	count := 0
	err = chainfile.Blocks(*childTail, func(raw []byte) error {
		block, err := bitcoin.ParseBlock(raw)
		if err != nil {
			return err
		}
		known := count%2 == 1
		if count++; count == 1 {
			if err := b.await(block.Header.PrevBlock.String()); err != nil {
				return err
			}
		}
		if known {
			took, err := b.know(block)
			if err != nil {
				return err
			}
			l.Accepts = append(l.Accepts, took)
		}
		took, err := b.connect(raw)
		if known {
			l.Known = append(l.Known, took)
		} else {
			l.Unknown = append(l.Unknown, took)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := b.call(&l.Tip, "getbestblockhash"); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(l)
}

func startBitcoind() (*bitcoind, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	at := l.Addr().(*net.TCPAddr)
	l.Close()
	b := &bitcoind{done: make(chan error, 1)}
	b.url = "http://bench:bench@" + at.String()
	b.cmd = exec.Command(*childCore, append(coreArguments(*childFile, *childDir, *childAssume, *cache),
		"-server=1", "-rpcuser=bench", "-rpcpassword=bench", "-rpcport="+strconv.Itoa(at.Port))...)
	b.cmd.Stderr = os.Stderr
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { b.done <- b.cmd.Wait() }()
	return b, nil
}

func (b *bitcoind) stop() error {
	var text string
	if err := b.call(&text, "stop"); err != nil {
		b.cmd.Process.Kill()
		<-b.done
		return err
	}
	return <-b.done
}

// await waits until the tip is a block.
func (b *bitcoind) await(tip string) error {
	var last error
	for range 3000 {
		var now string
		if last = b.call(&now, "getbestblockhash"); last == nil && now == tip {
			return nil
		}
		select {
		case err := <-b.done:
			b.done <- err
			return fmt.Errorf("bitcoind ended: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("bitcoind has not come to %s: %w", tip, last)
}

// connect takes the time of submitblock.
func (b *bitcoind) connect(raw []byte) (time.Duration, error) {
	start := time.Now()
	var refused *string
	err := b.call(&refused, "submitblock", hex.EncodeToString(raw))
	if err == nil && refused != nil {
		err = fmt.Errorf("submitblock: %s", *refused)
	}
	return time.Since(start), err
}

// know puts the transactions of a block into the mempool.
func (b *bitcoind) know(block *bitcoin.Block) (time.Duration, error) {
	start := time.Now()
	for i := range block.Txs[1:] {
		var txid string
		err := b.call(&txid, "sendrawtransaction", hex.EncodeToString(block.Txs[i+1].Append(nil)), 0)
		if err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}

// call calls a method and reads its result.
func (b *bitcoind) call(result any, method string, params ...any) error {
	if params == nil {
		params = []any{}
	}
	body, err := json.Marshal(map[string]any{"id": 1, "method": method, "params": params})
	if err != nil {
		return err
	}
	answer, err := http.Post(b.url, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	var reply struct {
		Result json.RawMessage
		Error  *struct{ Message string }
	}
	if err := json.NewDecoder(answer.Body).Decode(&reply); err != nil {
		return fmt.Errorf("%s: %s: %w", method, answer.Status, err)
	}
	if reply.Error != nil {
		return fmt.Errorf("%s: %s", method, reply.Error.Message)
	}
	return json.Unmarshal(reply.Result, result)
}
