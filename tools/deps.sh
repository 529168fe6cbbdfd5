#!/bin/sh
# SPDX-License-Identifier: MIT
# deps.sh -- what this machine lacks, found out by trying, and installed from
# the distribution's own packages. Says what it does and never asks.
#
#   deps.sh build    what the library and the examples need
#   deps.sh check    and what the tests need
#   deps.sh fuzz     and what the fuzz targets need
#   deps.sh ci       everything that .ci/run uses
#
# When nothing is missing it is one run of the compiler.
set -u
what=${1:-build}
CC=${CC:-cc}
MISSING=
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT

have() { command -v "$1" >/dev/null 2>&1; }
need() { MISSING="$MISSING $1"; }

# Does a program with these headers compile and link? An argument that begins
# with - goes to the compiler, any other is a header.
builds() {
    : >"$dir/t.c"
    set_flags=
    for a in "$@"; do
        case $a in
        -*) set_flags="$set_flags $a" ;;
        *) printf '#include <%s>\n' "$a" >>"$dir/t.c" ;;
        esac
    done
    echo 'int main(void) { return 0; }' >>"$dir/t.c"
    # shellcheck disable=SC2086
    $CC $pkg -o "$dir/t" "$dir/t.c" $set_flags >/dev/null 2>&1
}

pkg=
! have pkg-config || pkg=$(pkg-config --cflags-only-I libevent libcjson 2>/dev/null)

libevent='event2/event.h -levent'
cjson='cjson/cJSON.h -lcjson'
mbedtls='mbedtls/md.h mbedtls/ssl.h -lmbedtls -lmbedx509 -lmbedcrypto'
nanopb='pb.h pb_encode.h -l:libprotobuf-nanopb.a'
cmocka='stdarg.h stddef.h stdint.h setjmp.h cmocka.h -lcmocka'

look_build() {
    have "$CC" || need gcc
    # shellcheck disable=SC2086
    builds $libevent $cjson $mbedtls $nanopb && return
    builds $libevent || need libevent-dev
    builds $cjson || need libcjson-dev
    builds $mbedtls || need libmbedtls-dev
    builds $nanopb || need libnanopb-dev
}

look_check() {
    have pkg-config || need pkg-config
    # shellcheck disable=SC2086
    builds $cmocka || need libcmocka-dev
    have g++ || have clang++ || need g++
}

# The runtime of clang's sanitizers and of libFuzzer is a package of its own.
look_fuzz() {
    if ! have clang; then
        need clang
        need libclang-rt-dev
        return
    fi
    echo 'int LLVMFuzzerTestOneInput(const unsigned char *p, unsigned long n)
          { return p && n > 9 && *p == 1 ? -1 : 0; }' >"$dir/f.c"
    clang -fsanitize=fuzzer,address,undefined -o "$dir/f" "$dir/f.c" \
        >/dev/null 2>&1 && return
    major=$(clang -dumpversion | sed 's/\..*//')
    need "libclang-rt-$major-dev"
}

# Of Debian's prometheus only its promtool, out of the package: installed, that
# package would start a server.
promtool=${BUILD:-build}/deps/usr/bin/promtool
look_promtool() {
    have apt-get && have dpkg-deb || return
    echo "deps: promtool, out of the distribution's prometheus"
    (cd "$dir" && { apt-get -q download prometheus ||
        { apt-get -q update && apt-get -q download prometheus; }; } &&
        dpkg-deb -x prometheus_*.deb deps) >"$dir/log" 2>&1 &&
        mkdir -p "${promtool%/*}" && cp "$dir/deps/usr/bin/promtool" "$promtool" ||
        tail -n 3 "$dir/log"
}

look_ci() {
    have clang-format || need clang-format
    have valgrind || need valgrind
    have node || need nodejs
    have npm || need npm
    have openssl || need openssl
    have chromium || have chromium-browser || have google-chrome || need chromium
    have promtool || [ -x "$promtool" ] || look_promtool
}

case $what in
build) look_build ;;
check) look_build; look_check ;;
fuzz) look_build; look_fuzz ;;
ci) look_build; look_check; look_fuzz; look_ci ;;
*) echo "deps: build, check, fuzz or ci?" >&2; exit 2 ;;
esac

[ -n "$MISSING" ] || exit 0
MISSING=${MISSING# }

as_root=
if [ "$(id -u)" -ne 0 ]; then
    if have sudo && sudo -n true 2>/dev/null; then
        as_root='sudo -n'
    else
        as_root=no
    fi
fi
if ! have apt-get || [ "$as_root" = no ]; then
    echo "deps: this machine lacks what Debian calls: $MISSING"
    if have apt-get; then
        echo "deps: I may not install it here. As root: apt-get install $MISSING"
    else
        echo "deps: please install these, as your system calls them" \
            "(libevent 2.1, cJSON, mbedtls 2.28 or 3, nanopb 0.4; cmocka for the tests)."
    fi
    exit 1
fi

echo "deps: installing from the distribution: $MISSING"
export DEBIAN_FRONTEND=noninteractive
apt() {
    # shellcheck disable=SC2086
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q \
        -o DPkg::Lock::Timeout=120 "$@" </dev/null >"$dir/log" 2>&1
}
apt update || echo "deps: apt-get update failed; trying with the lists that are there"
# shellcheck disable=SC2086
if ! apt install -y --no-install-recommends $MISSING; then
    tail -n 20 "$dir/log"
    echo "deps: could not install: $MISSING"
    exit 1
fi
echo "deps: done."
