#!/usr/bin/env bash
# Installs what the tests need and this machine lacks: redis-server, from Debian's packages if that is possible.
set -euo pipefail

if command -v redis-server >/dev/null; then
    exit 0
fi

if [ "$(id -u)" -eq 0 ]; then
    as_root=()
elif sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
else
    echo "setup: redis-server is missing; install it (Debian: sudo apt-get install redis-server) and try again" >&2
    exit 1
fi

if ! command -v apt-get >/dev/null; then
    echo "setup: redis-server is missing and there is no apt-get; install Redis 7 or later and try again" >&2
    exit 1
fi

echo "setup: installing redis-server from Debian's packages"
"${as_root[@]}" apt-get update --quiet=2
# The tests start servers of their own; the package's is not wanted.
"${as_root[@]}" env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
    apt-get install --quiet=2 --yes --no-install-recommends redis-server
