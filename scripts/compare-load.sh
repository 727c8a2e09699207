#!/usr/bin/env bash
# Measures the load harness (`uring-pool bench`) against wrk, h2load and oha, side by side, in
# requests per second of the generator's own CPU. Installs and builds what it needs, then measures
# (scripts/compare-load.py --help).
#
#   scripts/compare-load.sh                           all, at the ceiling and nginx
#   scripts/compare-load.sh --loads uring-pool,wrk    only these (oha takes minutes to build)
#   scripts/compare-load.sh --depths 16 --rounds 5    16 requests in flight on a connection
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
name=compare-load
# shellcheck source=scripts/install.sh
. "$root/scripts/install.sh"

loads=uring-pool,wrk,h2load,oha
servers=ceiling,nginx
args=("$@")
for i in "${!args[@]}"; do
    case ${args[i]} in
        -h | --help) exec python3 "$root/scripts/compare-load.py" --help ;;
        --loads) loads=${args[i + 1]:-} ;;
        --loads=*) loads=${args[i]#*=} ;;
        --servers) servers=${args[i + 1]:-} ;;
        --servers=*) servers=${args[i]#*=} ;;
    esac
done

wanted() {
    [[ ,$loads,$servers, == *",$1,"* ]]
}

need taskset util-linux
if wanted wrk; then need wrk wrk; fi
if wanted h2load; then need h2load nghttp2-client; fi
if wanted nginx; then need nginx nginx-light; fi
if wanted ceiling; then build benches/ceiling/Cargo.toml target/peers; fi
if wanted uring-pool; then build Cargo.toml target; fi
# Debian has no package of it.
if wanted oha && ! command -v oha > /dev/null && [[ ! -x $root/target/peers/bin/oha ]]; then
    echo "$name: building oha (cargo install), which takes some minutes"
    cargo install --quiet --locked --root "$root/target/peers" oha ||
        die "oha doesn't build; leave it out: --loads uring-pool,wrk,h2load"
fi
exec python3 "$root/scripts/compare-load.py" "$@"
