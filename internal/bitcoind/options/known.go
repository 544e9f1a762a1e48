package options

import "strings"

// Bitcoind are the options that bitcoind knows, those of its wallet and those that are hidden included
// (Bitcoin Core init.cpp, SetupServerArgs; December 2025), and one of our own: headersonly.
func Bitcoind() []string {
	return strings.Fields(`headersonly
acceptnonstdtxn acceptstalefeeestimates addnode addresstype alertnotify allowignoredconf
asmap assumevalid avoidpartialspends bantime bind blockfilterindex blockmaxweight blockmintxfee
blocknotify blockreconstructionextratxn blockreservedweight blocksdir blocksonly blocksxor blockversion
bytespersigop capturemessages chain changetype checkaddrman checkblockindex checkblocks checklevel
checkmempool checkpoints choosedatadir cjdnsreachable coinstatsindex conf connect consolidatefeerate
daemon daemonwait datacarrier datacarriersize datadir dbbatchsize dbcache dbcrashratio debug
debugexclude debuglogfile deprecatedrpc disablewallet discardfee discover dns dnsseed dustrelayfee
externalip fallbackfee fastprune fixedseeds forcecompactdb forcednsseed h help help-debug i2pacceptincoming i2psam
includeconf incrementalrelayfee ipcbind keypool lang limitancestorcount limitancestorsize
limitclustercount limitclustersize limitdescendantcount limitdescendantsize listen listenonion
loadblock logips loglevel loglevelalways logratelimit logsourcelocations logthreadnames logtimemicros
logtimestamps maxapsfee maxconnections maxmempool maxreceivebuffer maxsendbuffer maxsigcachesize
maxtipage maxtxfee maxuploadtarget mempoolexpiry min minimumchainwork minrelaytxfee mintxfee mocktime
natpmp networkactive onion onlynet par paytxfee peerblockfilters peerbloomfilters peertimeout
permitbaremultisig persistmempool persistmempoolv1 pid port printpriority printtoconsole proxy
proxyrandomize prune regtest reindex reindex-chainstate resetguisettings rest rpcallowip rpcauth
rpcbind rpccookiefile rpccookieperms rpcdoccheck rpcpassword rpcport rpcservertimeout rpcthreads
rpcuser rpcwhitelist rpcwhitelistdefault rpcworkqueue seednode server settings shrinkdebugfile
shutdownnotify signer signet signetchallenge signetseednode spendzeroconfchange splash startupnotify
stopafterblockimport stopatheight test testactivationheight testnet testnet4 timeout
torcontrol torpassword txconfirmtarget txindex txreconciliation uacomment uiplatform
unsafesqlitesync v2transport vbparams version wallet walletbroadcast walletcrosschain walletdir
walletnotify walletrbf walletrejectlongchains whitebind whitelist whitelistforcerelay whitelistrelay
zmqpubhashblock zmqpubhashblockhwm zmqpubhashtx zmqpubhashtxhwm zmqpubrawblock zmqpubrawblockhwm
zmqpubrawtx zmqpubrawtxhwm zmqpubsequence zmqpubsequencehwm ?`)
}

// BitcoinCLI are the options that bitcoin-cli knows (Bitcoin Core bitcoin-cli.cpp).
func BitcoinCLI() []string {
	return strings.Fields(`
addrinfo chain color conf datadir generate getinfo h help includeconf named netinfo regtest
rpcclienttimeout rpcconnect rpccookiefile rpcpassword rpcport rpcuser rpcwait rpcwaittimeout rpcwallet
signet signetchallenge signetseednode stdin stdinrpcpass stdinwalletpassphrase testnet testnet4
version ?`)
}

// What Core says of some options by flags (Bitcoin Core common/args.h): that their values are not to be seen,
// that "-nofoo" makes no sense, and that "-foo" without a value does not.
var (
	sensitive  = []string{"rpcauth", "rpcpassword", "rpcuser", "torpassword"}
	notNegated = []string{"datadir", "loglevel", "signetchallenge", "signetseednode", "color", "rpcwaittimeout"}
	notElided  = []string{"loglevel", "proxy"}
)
