#!/usr/bin/env bash
# Runs every test of the project. Needs a Rust toolchain (rustup.rs) and a C linker; looks for both.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v cargo >/dev/null; then
    echo "test.sh: cargo is missing: install Rust from https://rustup.rs" >&2
    exit 1
fi
if ! command -v cc >/dev/null; then
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        echo "test.sh: installing gcc, which links Rust programs" >&2
        apt-get update -q && apt-get install -qy gcc libc6-dev
    else
        echo "test.sh: a C linker is missing: install gcc (Debian: apt-get install gcc libc6-dev)" >&2
        exit 1
    fi
fi

# Locked memory bounds the rings of all tests that run at once; take what the limit allows.
ulimit -l "$(ulimit -H -l)" 2>/dev/null || true

echo "== unit, integration and documentation tests"
cargo test --workspace --all-features --locked

echo "== the pool once more, as on an old kernel"
pool=(--test balance --test crash --test crash_loop --test hang --test lifecycle --test pressure
    --test reload --test scale --test upgrade)
TEST_MASK=all cargo test --all-features --locked "${pool[@]}" -- --skip on_an_old_kernel
