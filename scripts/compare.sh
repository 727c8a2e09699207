#!/usr/bin/env bash
# Measures this server against the bare ring (benches/ceiling) and other servers, side by side,
# in requests per second of server CPU. Installs and builds what it needs, then measures
# (scripts/compare.py --help).
#
#   scripts/compare.sh                                  plaintext, pipelined, json
#   scripts/compare.sh --servers ceiling,nginx churn    only these, only that
#   scripts/compare.sh modes                            this server's accept modes, side by side
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

servers=ceiling,uring-pool,nginx,hyper,may
measure=(python3 "$root/scripts/compare.py")
if [[ ${1:-} == modes ]]; then
    shift
    servers=uring-pool
    measure=(python3 "$root/scripts/modes.py")
fi
args=("$@")
for i in "${!args[@]}"; do
    case ${args[i]} in
        -h | --help) exec "${measure[@]}" --help ;;
        --servers) servers=${args[i + 1]:-} ;;
        --servers=*) servers=${args[i]#*=} ;;
    esac
done

die() {
    echo "compare: $*" >&2
    exit 1
}

wanted() {
    [[ ,$servers, == *",$1,"* ]]
}

# A command, and the Debian package that has it.
need() {
    PATH=$PATH:/usr/sbin command -v "$1" > /dev/null && return
    [[ $(id -u) == 0 ]] || die "$1 is missing: apt-get install $2"
    echo "compare: installing $2 by apt-get"
    (
        # Debian starts a service when its package is installed, unless a policy says no (101).
        policy=/usr/sbin/policy-rc.d
        if [[ ! -e $policy ]]; then
            trap 'rm -f "$policy"' EXIT
            printf '#!/bin/sh\nexit 101\n' > "$policy"
            chmod +x "$policy"
        fi
        export DEBIAN_FRONTEND=noninteractive
        apt-get -qq update && apt-get -qq install --no-install-recommends "$2" > /dev/null
    ) || die "apt-get can't install $2"
}

# All are built from the same directory, so that the same compiler flags hold for all.
build() {
    echo "compare: building $1"
    (cd "$root" && cargo build --release --quiet --locked --manifest-path "$1" --target-dir "$2")
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
[[ ${measure[1]} == */modes.py ]] || measure+=(--servers "$servers")
exec "${measure[@]}" "$@"
