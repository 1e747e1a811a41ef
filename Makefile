# What people type. Nothing has to be installed but Go and make: the tools are
# pinned in tools/ and run with go tool, which builds each one once.
SHELL := /bin/bash
.DEFAULT_GOAL := help

TOOL := go tool -modfile=tools/go.mod
LINT := go tool -modfile=tools/lint/go.mod golangci-lint

# A semantic version, as images and charts need one: of the last tag, or 0.0.0-gCOMMIT before the first. Empty in a tree
# without git, such as a source archive; main knows what to say then.
VERSION ?= $(shell git describe --tags --match 'v*' --always --dirty 2>/dev/null | sed -E 's/^v//; /^[0-9]+\.[0-9]+\.[0-9]+/!s/^/0.0.0-g/')
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null)
# The version of what is packaged.
PACKAGE_VERSION = $(or $(VERSION),0.0.0-devel)
# Where build, image and release put their results; GOOS and GOARCH select the platform of the first two.
PROGRAM ?= bin/eligibilityd
GOARCH  ?= $(shell go env GOARCH)
IMAGE   ?= bin/eligibilityd-$(PACKAGE_VERSION)-linux-$(GOARCH).oci.tar
RELEASE ?= bin/release
# More flags for acceptance-redis, such as -soak 3m, for acceptance-budget, such as -measured 5m, for
# acceptance-changes, such as -flips 1m, for acceptance-record, such as -questions 10000, and for acceptance-deploy and acceptance-console, such as -run AcceptanceDeployUnit.
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
build: ## Build bin/eligibilityd, static
	CGO_ENABLED=0 go build -trimpath -buildvcs=false \
		-ldflags '-s -w $(if $(VERSION),-X main.version=$(VERSION)) $(if $(COMMIT),-X main.commit=$(COMMIT))' \
		-o $(PROGRAM) ./cmd/eligibilityd

.PHONY: image
image: ## Build the container image as an OCI archive into bin/, without a container engine
	@scripts/debian-packages.sh buildah jq update-ca-certificates=ca-certificates
	@$(MAKE) --no-print-directory image-files GOOS=linux IMAGE_FILES=$(IMAGE).files/image
	scripts/image.sh $(IMAGE).files $(GOARCH) $(PACKAGE_VERSION) $(or $(COMMIT),unknown) $(IMAGE)
	@rm -rf $(IMAGE).files

# The files of the image, which deploy/Dockerfile copies. Not the certificates of /etc/ssl: those may hold a company's own.
.PHONY: image-files
image-files:
	rm -rf $(IMAGE_FILES)
	install -d -m 755 $(IMAGE_FILES)/root/etc/ssl/certs $(IMAGE_FILES)/root/var/lib
	install -d -m 700 $(IMAGE_FILES)/state/eligibilityd
	cat /usr/share/ca-certificates/mozilla/*.crt >$(IMAGE_FILES)/root/etc/ssl/certs/ca-certificates.crt
	@$(MAKE) --no-print-directory build PROGRAM=$(IMAGE_FILES)/root/eligibilityd
	chmod -R go=rX $(IMAGE_FILES)/root

.PHONY: release
release: ## Build everything that a release has, with checksums, into bin/release
	@scripts/debian-packages.sh buildah jq zip update-ca-certificates=ca-certificates
	scripts/release.sh $(PACKAGE_VERSION) $(RELEASE)

.PHONY: test
test: shop-node ## Run every test, shuffled and, but for bench and cmd, racing; sees to redis-server, openssl, curl, promtool, node and npm first
	@scripts/redis-server.sh >/dev/null
	@scripts/debian-packages.sh openssl curl promtool=prometheus
	go test -vet=off -race -shuffle=on -ldflags=-w -p $$(($$(getconf _NPROCESSORS_ONLN) + 1)) $$(go list ./... | grep -v -e /bench -e /cmd/) # one more than cores: many wait; lint vets
	go test -vet=off -shuffle=on ./bench/... ./cmd/... # racing, whole services would take minutes more
	cd client && go test -vet=off -race -shuffle=on ./...
	go test -vet=off -run '^TestAllocations' $$(grep -rl '^func TestAllocations' --include=*_test.go internal | sed 's|^|./|; s|/[^/]*$$||' | sort -u)

# What examples/shop-node needs, once for each of its lock files.
.PHONY: shop-node
shop-node:
	@scripts/debian-packages.sh node=nodejs npm
	@cd examples/shop-node && { [[ node_modules/.package-lock.json -nt package-lock.json ]] || npm ci --prefer-offline --no-audit --no-fund --ignore-scripts; }

.PHONY: acceptance
acceptance: ## Run the slow tests (10 minutes); needs chromium, chromedriver and node
	@scripts/redis-server.sh >/dev/null
	go test -race -tags acceptance -run Acceptance -skip 'Acceptance(Redis|Upgrade|Budget|Access|Changes|Record|Deploy|Console)' -count 1 -parallel 8 -v -timeout 60m ./cmd/...
	go test -tags acceptance -run Acceptance -count 1 -v ./bench

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

.PHONY: acceptance-record
acceptance-record: ## Prove the decision log and the history (10 minutes): docs/record.md
	@scripts/redis-server.sh >/dev/null
	@scripts/debian-packages.sh prometheus
	go test -tags acceptance -run AcceptanceRecord -count 1 -parallel 8 -v -timeout 60m ./cmd/eligibilityd $(ARGS)

# The packages with such tests are found, as building all the others would take minutes.
.PHONY: acceptance-deploy
acceptance-deploy: shop-node ## Prove image, unit, chart, Compose and release (20 minutes); needs root: docs/install.md
	@scripts/redis-server.sh >/dev/null
	@scripts/debian-packages.sh buildah curl jq prometheus zip systemd-analyze=systemd ip=iproute2 update-ca-certificates=ca-certificates chromium chromedriver=chromium-driver
	go test -tags acceptance -run AcceptanceDeploy -count 1 -v -timeout 60m \
		$$(grep -rl '^func TestAcceptanceDeploy' --include=*_test.go cmd deploy examples internal | sed 's|^|./|; s|/[^/]*$$||' | sort -u) $(ARGS)

# What the tests of the console need, once for each of its lock files.
.PHONY: console-tests
console-tests:
	@scripts/debian-packages.sh node=nodejs npm chromium chromedriver=chromium-driver
	@cd cmd/eligibilityd/testdata/console && { [[ node_modules/.package-lock.json -nt package-lock.json ]] || npm ci --prefer-offline --no-audit --no-fund --ignore-scripts; }

.PHONY: acceptance-console
acceptance-console: console-tests ## Prove the console in Chromium, with axe-core (6 minutes); keeps screenshots in bin/console: docs/console.md
	@scripts/redis-server.sh >/dev/null
	@mkdir -p bin/console
	go test -tags acceptance -run AcceptanceConsole -count 1 -v -timeout 40m -artifacts -outputdir $(CURDIR)/bin/console ./cmd/eligibilityd $(ARGS)

.PHONY: bench
bench: ## Run every Go benchmark BENCHCOUNT (6) times into bench.txt
	set -o pipefail; go test -run '^$$' -bench . -benchmem -count $(BENCHCOUNT) ./... | tee bench.txt

.PHONY: benchstat
benchstat: ## Sum up bench.txt, or compare it with OLD, another such file
	$(TOOL) benchstat $(if $(OLD),$(OLD)) bench.txt

.PHONY: bench-compare
bench-compare: build ## Measure service and floors in turn; SCENARIOS=grpc,rest and BENCHFLAGS="--baseline FILE" change it
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
	cd client && go mod tidy -diff
	$(LINT) run
	cd client && go tool -modfile=../tools/lint/go.mod golangci-lint run
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
	UPDATE_REFERENCE=1 go test -count 1 -run TestTheReference ./internal/config ./internal/app ./internal/rest ./cmd/eligibilityd

.PHONY: chart
chart: ## Check, render and package the Helm chart into bin/
	@scripts/chart.sh $(PACKAGE_VERSION)

.PHONY: check-generate
check-generate: ## Check that generating would change nothing
	scripts/check-generate.sh

.PHONY: clean
clean: ## Remove what the targets above leave behind
	rm -rf bin coverage.out bench.txt
