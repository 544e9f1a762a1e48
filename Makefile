# The two commands that do everything: make demo, make test.
GO ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 5s
BENCHTIME ?= 1s

.PHONY: build demo demo-up test check fmt vet lint race oracle interop fuzz vuln \
	functional bench bench-smtp bench-rules bench-chain bench-footprint clean

build:
	$(GO) build -o tallypost ./cmd/tallypost

demo: build
	./tallypost demo

demo-up: build
	./tallypost demo --stay

# Everything that can be tested here: units, stories of the real binary, oracles, and the peers that are
# installed (Postfix, swaks, Python, OpenSSL); a peer that is missing is skipped with a line.
test:
	$(GO) test ./...
	cd test/oracle && $(GO) test ./...

check: fmt vet lint race

fmt:
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "not gofmt'ed: $$out"; exit 1; }

vet:
	$(GO) vet ./...
	cd test/oracle && $(GO) vet ./...

lint:
	$(GO) run $(STATICCHECK) ./...

# The race detector needs a C compiler. test/interop runs a program of its own, which it does not see.
race:
	CGO_ENABLED=1 $(GO) test -race -short $$($(GO) list ./... | grep -v /test/)

vuln:
	$(GO) run golang.org/x/vuln/cmd/govulncheck@latest ./...

# Each fuzz target for a short while.
fuzz:
	@set -e; for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	    echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p; \
	  done; done

bench:
	$(GO) test -run '^$$' -bench . -benchtime $(BENCHTIME) ./...

# The mail half beside Postfix, about eight minutes on a machine that does nothing else. BENCHFLAGS is for
# "-rounds 1 -seconds 0.5" and the like. What the checks of a message cost has no peer to be compared with.
bench-smtp: build
	$(GO) run ./test/bench/smtp $(BENCHFLAGS)
	$(GO) test -run '^$$' -bench 'Verdict|Signing' -benchtime $(BENCHTIME) ./mail/intake

bench-rules:
	cd test/oracle && $(GO) test -run '^$$' -bench 'Parse|Merkle|Script|Verify' -benchmem -count 3 .

# BENCHFLAGS=-quick is for a short look.
bench-chain:
	$(GO) run ./test/bench/chain $(BENCHFLAGS)

# Memory of a node at rest, against the budgets: mail alone, and beside it the headers of a chain as long as
# the main network's.
bench-footprint: build
	$(GO) run ./test/bench/footprint $(BENCHFLAGS)

# Bitcoin Core's own functional tests against our binary: make functional CORE=<source tree of Bitcoin Core>
functional: build
	$(GO) run ./test/functional -core "$(CORE)"

clean:
	rm -rf tallypost bitcoind bitcoin-cli out
