# What the scripts that measure need, sourced by them: `name` is theirs, `root` the project's root.
# shellcheck shell=bash disable=SC2154

die() {
    echo "$name: $*" >&2
    exit 1
}

# A command, and the Debian package that has it.
need() {
    PATH=$PATH:/usr/sbin command -v "$1" > /dev/null && return
    if ! command -v apt-get > /dev/null || [[ $(id -u) != 0 ]]; then
        die "$1 is missing (Debian: apt-get install $2)"
    fi
    echo "$name: installing $2 by apt-get"
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
    echo "$name: building $1"
    (cd "$root" && cargo build --release --quiet --locked --manifest-path "$1" --target-dir "$2")
}
