#!/bin/sh
# SPDX-License-Identifier: MIT
# replay.sh -- `make replay`: plays recordings of the real Pomelo against the
# conformance programs. The recordings and their runners are not part of this
# tree; REPLAY names their folder.
set -u
. tools/tally.sh
BUILD=${BUILD:-build}
MAKE=${MAKE:-make}
REPLAY=${REPLAY:-../shared/replay}
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES 2>/dev/null
if [ ! -f "$REPLAY/replay.js" ]; then
    echo "replay: no recordings in $REPLAY: nothing to play."
    exit 0
fi
if ! "$MAKE" -s -j"${JOBS:-2}" BUILD="$BUILD" CC="${CC:-cc}" \
    CFLAGS="${CFLAGS--O2 -g}" conformance; then
    fail 'conformance programs build'
fi
play() { # NAME PROGRAM RUNNER ARGUMENTS...
    p_name=$1
    p_program=$BUILD/test/conformance/$2
    shift 2
    if [ ! -x "$p_program" ]; then
        fail "$p_name" "there is no $p_program"
        return
    fi
    p_out=$(node "$@" "$p_program" 2>&1 </dev/null)
    p_status=$?
    printf '%s\n' "$p_out" | grep -E '^(FAIL|SKIP)' | head -n 60
    p_last=$(printf '%s\n' "$p_out" | tail -n 1)
    printf '  %s: %s, %s skipped\n' "$p_name" "$p_last" \
        "$(printf '%s\n' "$p_out" | grep -c '^SKIP')"
    add_total "$p_name" "$p_last" "$p_status"
}
play sessions server "$REPLAY/replay.js" --server
play codec codec "$REPLAY/codec.js" --quiet --codec
total
