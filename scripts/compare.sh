#!/usr/bin/env bash
# Measures this server against the bare ring (benches/ceiling) and other servers, side by side,
# in requests per second of server CPU. Installs and builds what it needs, then measures
# (scripts/compare.py --help).
#
#   scripts/compare.sh                                  plaintext, pipelined, json
#   scripts/compare.sh --servers ceiling,nginx churn    only these, only that
#   scripts/compare.sh modes                            this server's accept modes, side by side
#   scripts/compare.sh features                         what its protections and its log cost
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
name=compare
# shellcheck source=scripts/install.sh
. "$root/scripts/install.sh"

servers=ceiling,uring-pool,nginx,hyper,may
measure=(python3 "$root/scripts/compare.py")
is_alone=false
if [[ ${1:-} == modes || ${1:-} == features ]]; then
    is_alone=true
    servers=uring-pool
    measure=(python3 "$root/scripts/$1.py")
    shift
fi
args=("$@")
for i in "${!args[@]}"; do
    case ${args[i]} in
        -h | --help) exec "${measure[@]}" --help ;;
        --servers) servers=${args[i + 1]:-} ;;
        --servers=*) servers=${args[i]#*=} ;;
    esac
done

wanted() {
    [[ ,$servers, == *",$1,"* ]]
}

need wrk wrk
need taskset util-linux
if wanted nginx; then need nginx nginx-light; fi
if wanted h2o; then need h2o h2o; fi
if wanted ceiling; then build benches/ceiling/Cargo.toml target/peers; fi
if wanted hyper; then build benches/peers/hyper/Cargo.toml target/peers; fi
if wanted may; then build benches/peers/may/Cargo.toml target/peers; fi
if wanted uring-pool; then
    if ! build Cargo.toml target || [[ ! -x $root/target/release/uring-pool ]]; then
        die "uring-pool doesn't build; leave it out: --servers ceiling,nginx,hyper,may"
    fi
fi
$is_alone || measure+=(--servers "$servers")
exec "${measure[@]}" "$@"
