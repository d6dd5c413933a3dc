#!/usr/bin/env bash
# Installs the Claude Code command line for the tests that run it, in two versions, into tests/.claude/: the newest
# one, which is a program of its own, and the last 2.0, which runs under Node. Nothing is done where they are there.
#
# They are not ours to pass on, so they come from the npm registry. Where that is impossible this says so and
# succeeds: the tests that need them say so too, and pass, unless CC_REQUIRE_CLAUDE=1 is set.
set -euo pipefail

# The same versions are in tests/src/claude/mod.rs.
readonly packages=(
    "2.1.329 @anthropic-ai/claude-code-linux-x64"
    "2.0.77 @anthropic-ai/claude-code"
)
readonly seconds=300

directory=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/.claude

lacks() {
    echo "setup: WARNING: the tests with the Claude Code command line will not run: $*" >&2
    exit 0
}

# Arrives under its name only when it is complete, so that an interrupted installation is none.
install() {
    local version=$1 package=$2
    mkdir -p "$directory"
    partial=$(mktemp -d "$directory/partial.XXXXXX")
    chmod 755 "$partial"
    echo "setup: installing $package@$version from the npm registry"
    if timeout "$seconds" npm install --prefix "$partial" --ignore-scripts --no-save --no-package-lock --no-audit \
        --no-fund --loglevel=error --fetch-retries=1 "$package@$version" >"$partial/log" 2>&1; then
        # Somebody else may have been quicker.
        mv --no-target-directory "$partial" "$directory/$version" 2>/dev/null || rm -rf "$partial"
    else
        tail -n 5 "$partial/log" >&2
        lacks "npm failed to install $package@$version"
    fi
}

partial=
trap 'rm -rf "$partial"' EXIT

missing=()
for entry in "${packages[@]}"; do
    [ -d "$directory/${entry%% *}" ] || missing+=("$entry")
done
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi
case "$(uname -sm)" in
"Linux x86_64") ;;
*) lacks "they are pinned for Linux on x86-64, and this is $(uname -sm)" ;;
esac
for program in npm node; do
    command -v "$program" >/dev/null || lacks "$program is not installed"
done
for entry in "${missing[@]}"; do
    install "${entry%% *}" "${entry#* }"
done
