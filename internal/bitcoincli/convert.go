package bitcoincli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
)

// format says what a word of the command line becomes.
type format byte

const (
	asText   format = iota
	asJSON          // it must be JSON
	asEither        // JSON if it is that, else text
)

// converted is a parameter that is not plainly text.
type converted struct {
	pos    int
	name   string
	format format
	listed bool // as text that may have an equals sign in it
}

// conversions says of each method which parameters are no text, and of some that they are text which may have
// an equals sign in it (Bitcoin Core rpc/client.cpp). A line that is indented goes on with the one before it;
// behind the position and the name, "~" stands for text and "?" for either.
const conversions = `
addconnection 2:v2transport
addnode 2:v2transport
addpeeraddress 1:port 2:tried
analyzepsbt 0:psbt~
backupwallet 0:destination~
bumpfee 1:options 1:conf_target 1:fee_rate 1:replaceable 1:outputs 1:original_change_index
combinepsbt 0:txs
combinerawtransaction 0:txs
converttopsbt 1:permitsigdata 2:iswitness
createmultisig 0:nrequired 1:keys
createpsbt 0:inputs 1:outputs 2:locktime 3:replaceable 4:version
createrawtransaction 0:inputs 1:outputs 2:locktime 3:replaceable 4:version
createwallet 0:wallet_name~ 1:disable_private_keys 2:blank 3:passphrase~ 4:avoid_reuse 5:descriptors
	6:load_on_startup 7:external_signer
createwalletdescriptor 1:options 1:internal
decodepsbt 0:psbt~
decoderawtransaction 1:iswitness
deriveaddresses 1:range
descriptorprocesspsbt 0:psbt~ 1:descriptors 2:sighashtype~ 3:bip32derivs 4:finalize
disconnectnode 1:nodeid
dumptxoutset 0:path~ 1:type~ 2:options 2:rollback?
echoipc 0:arg~
echojson 0:arg0 1:arg1 2:arg2 3:arg3 4:arg4 5:arg5 6:arg6 7:arg7 8:arg8 9:arg9
encryptwallet 0:passphrase~
estimaterawfee 0:conf_target 1:threshold
estimatesmartfee 0:conf_target
finalizepsbt 0:psbt~ 1:extract
fundrawtransaction 1:options 1:add_inputs 1:include_unsafe 1:minconf 1:maxconf 1:changePosition
	1:includeWatching 1:lockUnspents 1:fee_rate 1:feeRate 1:subtractFeeFromOutputs 1:input_weights
	1:conf_target 1:replaceable 1:solving_data 1:max_tx_weight 2:iswitness
generateblock 1:transactions 2:submit
generatetoaddress 0:nblocks 2:maxtries
generatetodescriptor 0:num_blocks 2:maxtries
getaddressesbylabel 0:label~
getbalance 1:minconf 2:include_watchonly 3:avoid_reuse
getblock 1:verbosity 1:verbose
getblockfrompeer 1:peer_id
getblockhash 0:height
getblockheader 1:verbose
getblockstats 0:hash_or_height? 1:stats
getblocktemplate 0:template_request
getchaintxstats 0:nblocks
getdescriptoractivity 0:blockhashes 1:scanobjects 2:include_mempool
gethdkeys 0:active_only 0:options 0:private
getmempoolancestors 1:verbose
getmempooldescendants 1:verbose
getnetworkhashps 0:nblocks 1:height
getnewaddress 0:label~ 1:address_type~
getnodeaddresses 0:count
getorphantxs 0:verbosity
getrawmempool 0:verbose 1:mempool_sequence
getrawtransaction 1:verbosity 1:verbose
getreceivedbyaddress 1:minconf 2:include_immature_coinbase
getreceivedbylabel 0:label~ 1:minconf 2:include_immature_coinbase
gettransaction 1:include_watchonly 2:verbose
gettxout 1:n 2:include_mempool
gettxoutproof 0:txids
gettxoutsetinfo 1:hash_or_height? 2:use_index
gettxspendingprevout 0:outputs
importdescriptors 0:requests
importmempool 0:filepath~ 1:options 1:apply_fee_delta_priority 1:use_current_time 1:apply_unbroadcast_set
joinpsbts 0:txs
keypoolrefill 0:newsize
listdescriptors 0:private
listreceivedbyaddress 0:minconf 1:include_empty 2:include_watchonly 4:include_immature_coinbase
listreceivedbylabel 0:minconf 1:include_empty 2:include_watchonly 3:include_immature_coinbase
listsinceblock 0:blockhash~ 1:target_confirmations 2:include_watchonly 3:include_removed 4:include_change
	5:label~
listtransactions 0:label~ 1:count 2:skip 3:include_watchonly
listunspent 0:minconf 1:maxconf 2:addresses 3:include_unsafe 4:query_options 4:minimumAmount
	4:maximumAmount 4:maximumCount 4:minimumSumAmount 4:include_immature_coinbase
loadtxoutset 0:path~
loadwallet 0:filename~ 1:load_on_startup
lockunspent 0:unlock 1:transactions 2:persistent
logging 0:include 1:exclude
migratewallet 0:wallet_name~ 1:passphrase~
mockscheduler 0:delta_time
prioritisetransaction 1:dummy 2:fee_delta
pruneblockchain 0:height
psbtbumpfee 1:options 1:conf_target 1:fee_rate 1:replaceable 1:outputs 1:original_change_index
rescanblockchain 0:start_height 1:stop_height
restorewallet 0:wallet_name~ 1:backup_file~ 2:load_on_startup
scanblocks 1:scanobjects 2:start_height 3:stop_height 5:options 5:filter_false_positives
scantxoutset 1:scanobjects
send 0:outputs 1:conf_target 3:fee_rate 4:options 4:add_inputs 4:include_unsafe 4:minconf 4:maxconf
	4:add_to_wallet 4:change_position 4:fee_rate 4:include_watching 4:inputs 4:locktime 4:lock_unspents 4:psbt
	4:subtract_fee_from_outputs 4:conf_target 4:replaceable 4:solving_data 4:max_tx_weight 5:version
sendall 0:recipients 1:conf_target 3:fee_rate 4:options 4:add_to_wallet 4:fee_rate 4:include_watching
	4:inputs 4:locktime 4:lock_unspents 4:psbt 4:send_max 4:minconf 4:maxconf 4:conf_target 4:replaceable
	4:solving_data 4:version
sendmany 0:dummy~ 1:amounts 2:minconf 3:comment~ 4:subtractfeefrom 5:replaceable 6:conf_target
	7:estimate_mode~ 8:fee_rate 9:verbose
sendmsgtopeer 0:peer_id
sendrawtransaction 1:maxfeerate 2:maxburnamount
sendtoaddress 0:address~ 1:amount 2:comment~ 3:comment_to~ 4:subtractfeefromamount 5:replaceable
	6:conf_target 7:estimate_mode~ 8:avoid_reuse 9:fee_rate 10:verbose
setban 2:bantime 3:absolute
setlabel 1:label~
setmocktime 0:timestamp
setnetworkactive 0:state
settxfee 0:amount
setwalletflag 1:value
signmessage 1:message~
signmessagewithprivkey 1:message~
signrawtransactionwithkey 1:privkeys 2:prevtxs
signrawtransactionwithwallet 1:prevtxs
simulaterawtransaction 0:rawtxs 1:options 1:include_watchonly
stop 0:wait
submitpackage 0:package 1:maxfeerate 2:maxburnamount
testmempoolaccept 0:rawtxs 1:maxfeerate
unloadwallet 0:wallet_name~ 1:load_on_startup
utxoupdatepsbt 0:psbt~ 1:descriptors
verifychain 0:checklevel 1:nblocks
verifymessage 1:signature~ 2:message~
waitforblock 1:timeout
waitforblockheight 0:height 1:timeout
waitfornewblock 0:timeout
walletcreatefundedpsbt 0:inputs 1:outputs 2:locktime 3:options 3:add_inputs 3:include_unsafe 3:minconf
	3:maxconf 3:changePosition 3:includeWatching 3:lockUnspents 3:fee_rate 3:feeRate 3:subtractFeeFromOutputs
	3:conf_target 3:replaceable 3:solving_data 3:max_tx_weight 4:bip32derivs 5:version
walletpassphrase 0:passphrase~ 1:timeout
walletpassphrasechange 0:oldpassphrase~ 1:newpassphrase~
walletprocesspsbt 0:psbt~ 1:sign 2:sighashtype~ 3:bip32derivs 4:finalize`

// conversionsOf returns the parameters of a method that the table has.
func conversionsOf(method string) (list []converted) {
	found := false
	for line := range strings.Lines(conversions) {
		fields := strings.Fields(line)
		if !strings.HasPrefix(line, "\t") && len(fields) > 0 {
			found = fields[0] == method
			fields = fields[1:]
		}
		if !found {
			continue
		}
		for _, f := range fields {
			pos, name, _ := strings.Cut(f, ":")
			c := converted{format: asJSON}
			c.pos, _ = strconv.Atoi(pos)
			if c.name, c.listed = strings.CutSuffix(name, "~"); c.listed {
				c.format = asText
			} else if either, ok := strings.CutSuffix(name, "?"); ok {
				c.name, c.format = either, asEither
			}
			list = append(list, c)
		}
	}
	return list
}

func byPosition(list []converted, pos int) (converted, bool) {
	for _, c := range list {
		if c.pos == pos {
			return c, true
		}
	}
	return converted{}, false
}

func byName(list []converted, name string) (converted, bool) {
	for _, c := range list {
		if c.name == name {
			return c, true
		}
	}
	return converted{}, false
}

func (c converted) value(word string) (any, error) {
	if c.format == asText {
		return word, nil
	}
	v, err := jsonrpc.ParseValue([]byte(word))
	switch {
	case err == nil:
		return v, nil
	case c.format == asEither:
		return word, nil
	}
	return nil, fmt.Errorf("Error parsing JSON: %s", word)
}

// positional turns words into arguments.
func positional(method string, words []string) ([]any, error) {
	list, params := conversionsOf(method), make([]any, 0, len(words))
	for i, w := range words {
		c, _ := byPosition(list, i)
		v, err := c.value(w)
		if err != nil {
			return nil, err
		}
		params = append(params, v)
	}
	return params, nil
}

// named turns words of the form name=value into arguments by name, and others into some by position. A word
// with an equals sign whose name is not known is taken for one by position where that can be: where the next
// parameter is JSON, and the word is, or where it is text that may have such a sign (Bitcoin Core
// rpc/client.cpp, RPCConvertNamedValues). Of two with the same name the last one counts.
func named(method string, words []string) (jsonrpc.Object, error) {
	list := conversionsOf(method)
	params, others := jsonrpc.Object{}, []any{}
	for _, w := range words {
		next, listed := byPosition(list, len(others))
		name, text, ok := strings.Cut(w, "=")
		if !ok {
			v, err := next.value(w)
			if err != nil {
				return nil, err
			}
			others = append(others, v)
			continue
		}
		c, known := byName(list, name)
		if !known && listed {
			if v, err := jsonrpc.ParseValue([]byte(w)); next.format == asJSON && err == nil {
				others = append(others, v)
				continue
			} else if next.format == asText {
				others = append(others, w)
				continue
			}
		}
		v, err := c.value(text)
		if err != nil {
			return nil, err
		}
		set(&params, name, v)
	}
	if len(others) > 0 { // besides what the user may have called so: the server will complain
		params = append(params, jsonrpc.Member{Name: "args", Value: others})
	}
	return params, nil
}

// set gives a member a value, a new one where there is one of the name.
func set(o *jsonrpc.Object, name string, v any) {
	for i := range *o {
		if (*o)[i].Name == name {
			(*o)[i].Value = v
			return
		}
	}
	o.Set(name, v)
}
