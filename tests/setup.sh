#!/usr/bin/env bash
# Installs what the tests need and this machine lacks, from Debian's packages if that is possible:
# redis-server, and openssl for the certificates of the TLS tests. Then the Claude Code command line, where it can be had.
set -euo pipefail

"$(dirname "$0")/setup-claude.sh"

missing=()
for program in redis-server openssl; do
    command -v "$program" >/dev/null || missing+=("$program")
done
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi

if [ "$(id -u)" -eq 0 ]; then
    as_root=()
elif sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
else
    echo "setup: missing: ${missing[*]}; install them (Debian: sudo apt-get install ${missing[*]}) and try again" >&2
    exit 1
fi

if ! command -v apt-get >/dev/null; then
    echo "setup: missing: ${missing[*]}, and there is no apt-get; install them (Redis 7 or later) and try again" >&2
    exit 1
fi

echo "setup: installing ${missing[*]} from Debian's packages"
"${as_root[@]}" apt-get update --quiet=2
# The tests start servers of their own; the package's is not wanted.
"${as_root[@]}" env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
    apt-get install --quiet=2 --yes --no-install-recommends "${missing[@]}"
