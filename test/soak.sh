#!/bin/sh
# SPDX-License-Identifier: MIT
# soak.sh -- a cluster under churn and kill -9 (test/bench/soak.c), for
# SOAK_SECONDS (20; `make proof` says 1200). One line every five seconds; ends
# with "N passed, N failed".
set -u
cd "$(dirname "$0")/.." || exit 1
. tools/tally.sh
BUILD=${BUILD:-build}
MAKE=${MAKE:-make}
seconds=${SOAK_SECONDS:-20}
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES 2>/dev/null
if ! "$MAKE" -s BUILD="$BUILD" CC="${CC:-cc}" CFLAGS="${CFLAGS--O2 -g}" \
    "$BUILD/test/bench/soak"; then
    fail 'the soak builds'
    total
    exit 1
fi
exec timeout -k 10 $((seconds + 120)) "$BUILD/test/bench/soak" --seconds "$seconds" \
    --kill-ms "${SOAK_KILL_MS:-3000}" --seed "${SOAK_SEED:-1}"
