# What one types. `make` alone says what there is.

CARGO ?= cargo
export CARGO_TERM_COLOR ?= auto

.PHONY: help run test check fmt lint docs openapi bench soak setup deployment-test clean

help: ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 26

run: ## Build and start cc-executor on this machine, with nothing to install
	$(CARGO) run --quiet --release --locked -p cc-executor -- serve

test: setup ## Install what the tests need, and run every test
	tests/run.sh

check: fmt lint docs test ## What CI runs

fmt:
	$(CARGO) fmt --all --check

lint:
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

docs:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --quiet

openapi: ## Write openapi/openapi.json anew
	UPDATE_OPENAPI=1 $(CARGO) test --quiet --locked -p cc-executor-api openapi

bench: setup ## Measure against the limits of this machine (release build)
	$(CARGO) run --quiet --release --locked -p cc-executor-bench

soak: setup ## Run everything at once for ten minutes (CC_SOAK_SECONDS) and see that nothing grows
	$(CARGO) test --release --locked -p cc-executor-tests --test soak -- --ignored --nocapture

deployment-test: ## Build the images and try them, where there is a Docker engine
	tests/deployment.sh

setup: ## Install what the tests need
	@tests/setup.sh

clean:
	$(CARGO) clean
