#!/usr/bin/env bash
# Runs every test: with nextest where it is installed, else with what comes with cargo.
set -euo pipefail
cd "$(dirname "$0")/.."

if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --workspace --profile "${NEXTEST_PROFILE:-default}"
else
    cargo test --locked --workspace
fi
tests/deployment.sh
