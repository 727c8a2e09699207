#!/usr/bin/env bash
# Runs every fuzz target for a minute each, or for the seconds given: scripts/fuzz.sh [SECONDS [TARGET...]]
# Ends with 1 at the first finding, which cargo-fuzz then explains. Corpora stay in fuzz/corpus/.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly seconds=${1:-60}
shift || true

if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "fuzz.sh: installing cargo-fuzz" >&2
    cargo install --locked cargo-fuzz
fi

# Without a sanitizer, which safe code has little use for, any toolchain will do: coverage is LLVM's.
readonly options=(--sanitizer none --fuzz-dir fuzz)

mapfile -t targets < <(if [ $# -gt 0 ]; then printf '%s\n' "$@"; else cargo fuzz list --fuzz-dir fuzz; fi)
for target in "${targets[@]}"; do
    cargo fuzz build "${options[@]}" "$target"
done
for target in "${targets[@]}"; do
    echo "== $target, $seconds s"
    mkdir -p "fuzz/corpus/$target"
    cargo fuzz run "${options[@]}" "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1
done
echo "no finding"
