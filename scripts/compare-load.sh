#!/usr/bin/env bash
# Measures the load harness (`uring-pool bench`) against wrk, h2load and oha, side by side, in
# requests per second of the generator's own CPU. Installs and builds what it needs, then measures
# (scripts/compare-load.py --help).
#
#   scripts/compare-load.sh                           wrk and h2load, at the ceiling and nginx
#   scripts/compare-load.sh --loads uring-pool,wrk    only these; oha is used where it is installed
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

die() {
    echo "compare-load: $*" >&2
    exit 1
}

# A command, and the Debian package that has it.
need() {
    PATH=$PATH:/usr/sbin command -v "$1" > /dev/null && return
    [[ $(id -u) == 0 ]] || die "$1 is missing: apt-get install $2"
    echo "compare-load: installing $2 by apt-get"
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

build() {
    echo "compare-load: building $1"
    (cd "$root" && cargo build --release --quiet --locked --manifest-path "$1" --target-dir "$2")
}

case " $* " in
    *" -h "* | *" --help "*) exec python3 "$root/scripts/compare-load.py" --help ;;
esac
need wrk wrk
need h2load nghttp2-client
need nginx nginx-light
need taskset util-linux
build benches/ceiling/Cargo.toml target/peers
build Cargo.toml target
exec python3 "$root/scripts/compare-load.py" "$@"
