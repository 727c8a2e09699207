#!/usr/bin/env bash
# Slow clients against normal ones: slowhttptest in its four modes, then 5,000 clients that drip heads,
# drip bodies or don't read. Compares what normal clients wait (p99) with and without them, and looks at
# the server's memory. Installs slowhttptest and wrk, builds the server, needs 3 minutes.
#
#   scripts/slow.sh                    all of it, three rounds
#   scripts/slow.sh --rounds 1 drip    one of: slowloris, slow-body, range, slow-read, drip
#   URING_POOL=path scripts/slow.sh    a binary that is there
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
case ${1:-} in -h | --help) exec python3 "$root/scripts/slow.py" --help ;; esac

need() {
    command -v "$1" > /dev/null && return
    [[ $(id -u) == 0 ]] || {
        echo "slow: $1 is missing: apt-get install $1" >&2
        exit 1
    }
    apt-get update -q && apt-get install -qy --no-install-recommends "$1"
}
need slowhttptest
need wrk
if [[ -z ${URING_POOL:-} ]]; then
    (cd "$root" && cargo build --quiet --locked --release)
    URING_POOL=$root/target/release/uring-pool
fi
ulimit -n "$(ulimit -Hn)"
exec python3 "$root/scripts/slow.py" --server "$URING_POOL" "$@"
