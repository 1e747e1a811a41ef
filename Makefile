# What people type. Nothing has to be installed but Go and make: the tools are
# pinned in tools/ and run with go tool, which builds each one once.
SHELL := /bin/bash
.DEFAULT_GOAL := help

TOOL := go tool -modfile=tools/go.mod
LINT := go tool -modfile=tools/lint/go.mod golangci-lint

# Empty in a tree without git, such as a source archive; main knows what to say then.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null)
# More flags for acceptance-redis, such as -soak 3m, for acceptance-budget, such as -measured 5m, and for
# acceptance-changes, such as -flips 1m.
ARGS ?=
# How long each fuzz target runs.
FUZZTIME ?= 2m
# How often each Go benchmark runs; benchstat wants six or more.
BENCHCOUNT ?= 6

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## Run the service with simulated customers; needs no configuration
	go run ./cmd/eligibilityd dev

.PHONY: build
build: ## Build bin/eligibilityd
	go build -trimpath -buildvcs=false \
		-ldflags '-s -w $(if $(VERSION),-X main.version=$(VERSION)) $(if $(COMMIT),-X main.commit=$(COMMIT))' \
		-o bin/eligibilityd ./cmd/eligibilityd

.PHONY: test
test: ## Run every test, racing and shuffled; sees to redis-server, openssl and curl first
	@scripts/redis-server.sh >/dev/null
	@scripts/debian-packages.sh openssl curl
	go test -race -shuffle=on ./...
	go test -run '^TestAllocations' ./internal/...

.PHONY: acceptance
acceptance: ## Run the slow tests (9 minutes); needs chromium, chromedriver and node
	@scripts/redis-server.sh >/dev/null
	go test -race -tags acceptance -run Acceptance -skip 'Acceptance(Redis|Upgrade|Budget|Access|Changes)' -count 1 -parallel 8 -v -timeout 60m ./cmd/...

.PHONY: acceptance-redis
acceptance-redis: ## Let Redis fail under load (30 minutes): docs/cache-failures.md
	@scripts/redis-server.sh >/dev/null
	go test -tags acceptance -run AcceptanceRedis -count 1 -v -timeout 60m ./cmd/eligibilityd $(ARGS)

.PHONY: acceptance-upgrade
acceptance-upgrade: ## Run the previous release beside this one under load (4 minutes)
	@scripts/redis-server.sh >/dev/null
	go test -tags acceptance -run AcceptanceUpgrade -count 1 -v -timeout 20m ./cmd/eligibilityd

.PHONY: acceptance-budget
acceptance-budget: ## Spend Partner Center's budget in a fleet (16 minutes): docs/scaling.md
	@scripts/redis-server.sh >/dev/null
	go test -tags acceptance -run AcceptanceBudget -count 1 -parallel 8 -v -timeout 60m ./cmd/eligibilityd $(ARGS)

.PHONY: acceptance-access
acceptance-access: ## Attack the program over gRPC and REST (12 minutes): docs/security.md
	@scripts/redis-server.sh >/dev/null
	go test -tags acceptance -run AcceptanceAccess -count 1 -v -timeout 30m ./cmd/eligibilityd

.PHONY: acceptance-changes
acceptance-changes: ## Prove the feed of changes (40 minutes, a row up to 10): docs/changes.md
	@scripts/redis-server.sh >/dev/null
	@scripts/debian-packages.sh nginx=nginx-light chromium chromedriver=chromium-driver
	go test -tags acceptance -run AcceptanceChanges -count 1 -v -timeout 60m ./cmd/eligibilityd $(ARGS)

.PHONY: bench
bench: ## Run every Go benchmark BENCHCOUNT (6) times into bench.txt
	set -o pipefail; go test -run '^$$' -bench . -benchmem -count $(BENCHCOUNT) ./... | tee bench.txt

.PHONY: benchstat
benchstat: ## Sum up bench.txt, or compare it with OLD, another such file
	$(TOOL) benchstat $(if $(OLD),$(OLD)) bench.txt

.PHONY: bench-compare
bench-compare: build ## Measure service and floors in turn; SCENARIOS=grpc,rest and BENCHFLAGS narrow it
	@scripts/redis-server.sh >/dev/null
	go build -trimpath -o bin/bench ./bench
	bin/bench compare $(if $(SCENARIOS),--scenarios $(SCENARIOS)) $(BENCHFLAGS)

.PHONY: scaling
scaling: ## Compute the tables of docs/scaling.md
	go run ./bench/scaling

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (2m)
	scripts/fuzz.sh $(FUZZTIME)

.PHONY: lint
lint: ## Check formatting, code and contract
	@files=$$(gofmt -l .) && test -z "$$files" || { echo "gofmt these:"; echo "$$files"; exit 1; }
	go mod tidy -diff
	cd gen && go mod tidy -diff
	go vet -tags acceptance ./...
	$(LINT) run
	$(TOOL) buf format --diff --exit-code
	$(TOOL) buf lint
	scripts/breaking.sh

.PHONY: vulncheck
vulncheck: ## Look for known vulnerabilities; needs vuln.go.dev
	$(TOOL) govulncheck ./...

.PHONY: generate
generate: ## Generate gen/, internal/gateway, the OpenAPI description and docs/reference
	rm -rf gen/eligibility internal/gateway internal/rest/openapi
	$(TOOL) buf generate
	cd tools && go run ./openapi ../internal/rest/openapi
	$(TOOL) buf generate --template internal/rest/testdata/echo/buf.gen.yaml
	UPDATE_REFERENCE=1 go test -count 1 -run TestTheReference ./internal/config ./internal/app ./cmd/eligibilityd

.PHONY: check-generate
check-generate: ## Check that generating would change nothing
	scripts/check-generate.sh

.PHONY: clean
clean: ## Remove what the targets above leave behind
	rm -rf bin coverage.out bench.txt
