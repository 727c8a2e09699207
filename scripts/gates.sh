#!/usr/bin/env bash
# The gates that are exact: dependencies of the engine, and instructions per request.
# (Allocations and enters per request are tests: src/worker/tests/hot_path.rs.)
set -euo pipefail
cd "$(dirname "$0")/.."

readonly dependencies_max=40

if ! command -v valgrind >/dev/null; then
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        echo "gates.sh: installing valgrind, which counts instructions"
        apt-get update -q && apt-get install -qy --no-install-recommends valgrind
    else
        echo "gates.sh: valgrind is missing (Debian: apt-get install valgrind)" >&2
        exit 1
    fi
fi

echo "== dependencies of the engine and its program"
tree=$(cargo tree --locked --package uring-pool --no-default-features --features cli --edges normal --prefix none |
    sed 's/ (.*//' | sort -u | grep -vE '^uring-(pool|ring) ')
count=$(wc -l <<<"$tree")
echo "$count crates, at most $dependencies_max"
if [ "$count" -gt "$dependencies_max" ]; then
    echo "$tree"
    exit 1
fi
if grep -E '^(tokio|async-std|smol|mio|async-io|glommio|monoio|compio) ' <<<"$tree"; then
    echo "an async runtime is none of the engine's dependencies" >&2
    exit 1
fi

echo "== instructions per request"
cargo bench --quiet --locked --bench instructions
