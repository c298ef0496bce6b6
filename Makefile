# Everything here needs Go, make and the package manager only; `image` needs Docker.
GOLANGCI_VERSION := v2.15.0
LINT             := .tools/golangci-lint-$(GOLANGCI_VERSION)

.PHONY: demo test check format bench recovery soak chaos image

demo: ## real servers, load, a link cut and healed; ARGS=--keep leaves it running
	@CGO_ENABLED=0 go build -trimpath -o bin/replicator ./cmd/replicator
	@bin/replicator demo $(ARGS)

test: ## every test, on real servers; FAIL_ON_SKIP=1 counts a skip as a failure
	@build/test.sh

check: $(LINT) ## format, lint, vet, go.mod
	go mod tidy -diff
	go vet ./...
	$(LINT) fmt --diff
	$(LINT) run ./...

format: $(LINT)
	$(LINT) fmt

bench: ## speed beside the servers' own replication; ARGS=-h shows the flags
	@CGO_ENABLED=0 go run ./integration/bench -rounds 3 -out docs/benchmarks.md $(ARGS)

recovery: ## clone and verify beside the tools that people use for that; ROWS of the table
	@CGO_ENABLED=0 go run ./integration/bench -only recovery -many $(or $(ROWS),10000000) -out docs/recovery.md $(ARGS)

soak: ## all scenarios on all meshes; convergence under faults, DURATION for each mesh; SEEDS of random conflicts for each; ENTRIES of the change index; ROWS that are recovered
	ALL_MESHES=1 go test -v -count=1 -timeout 60m -run 'TestScenarios|TestVerify$$|TestResync$$|TestTransactionOfAMillionRows' ./integration
	REPLICATOR_SOAK=$(or $(DURATION),5m) go test -v -count=1 -timeout 120m -run 'TestConvergesUnderFaults|TestHotRow' ./integration
	REPLICATOR_ENTRIES=$(or $(ENTRIES),10000000) go test -v -count=1 -timeout 120m -run TestIndexOfManyRows ./integration
	ALL_MESHES=1 REPLICATOR_ROWS=$(or $(ROWS),10000000) go test -v -count=1 -timeout 300m -parallel 1 -run TestRecoveryOfManyRows ./integration
	ALL_MESHES=1 REPLICATOR_VERIFIES=100 go test -v -count=1 -timeout 120m -parallel 1 -run TestRecoveryOfManyRows ./integration
	ALL_MESHES=1 go test -v -count=10 -timeout 120m -run 'TestCloneIsKilled|TestResyncGoesOn|TestVerifyIsKilled' ./integration
	REPLICATOR_SEEDS=$(or $(SEEDS),125) go test -v -count=1 -timeout 600m -run TestRandomConflicts ./integration

chaos: ## servers and the process killed, COUNT times
	go test -v -count=$(or $(COUNT),10) -timeout 120m -run 'TestServersAreKilled|TestConvergesUnderFaults' ./integration

image: ## the replicator's own container image; IMAGE names it
	@build/image.sh

# The linter comes through the module proxy and is built here, once.
$(LINT):
	GOBIN=$(CURDIR)/.tools go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv .tools/golangci-lint $@
