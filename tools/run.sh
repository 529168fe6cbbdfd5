#!/bin/sh
# SPDX-License-Identifier: MIT
# run.sh -- `make run`: builds the examples, starts hello (and chat), says what
# to open, and serves until Ctrl-C, which ends all that it started.
set -u
BUILD=${BUILD:-build}
MAKE=${MAKE:-make}
CC=${CC:-cc}
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES 2>/dev/null
mkdir -p "$BUILD"

echo 'run: building (the first time takes a minute) ...'
if ! "$MAKE" -s -j"${JOBS:-2}" BUILD="$BUILD" CC="$CC" \
    CFLAGS="${CFLAGS--O2 -g}" LDFLAGS="${LDFLAGS-}" WERROR="${WERROR-}" examples \
    >"$BUILD/run.log" 2>&1; then
    cat "$BUILD/run.log"
    echo "run: the build failed; its output is above and in $BUILD/run.log"
    exit 1
fi

PIDS=
finish() {
    trap '' INT TERM
    for p in $PIDS; do
        kill -TERM "$p" 2>/dev/null
    done
    wait
}
trap 'echo; echo "run: stopping ..."; finish; exit 0' INT TERM HUP

start() { # NAME
    [ -x "$BUILD/examples/$1/$1" ] || return 1
    "$BUILD/examples/$1/$1" &
    PIDS="$PIDS $!"
}

start hello || { echo 'run: there is no examples/hello yet.'; exit 1; }
chat=
! start chat || chat=yes

# A port that is taken, or a wrong file, shows within a moment.
sleep 1
for p in $PIDS; do
    if ! kill -0 "$p" 2>/dev/null; then
        echo 'run: an example ended at once; what it said is above.'
        finish
        exit 1
    fi
done

echo
echo '  hello   http://localhost:3001   press "Test Game Server"'
[ -z "$chat" ] ||
    echo '  chat    http://localhost:3002   open it in two windows, same channel'
echo
echo '  Ctrl-C ends it.'

# Until a signal comes, or one of them ends by itself.
while :; do
    for p in $PIDS; do
        if ! kill -0 "$p" 2>/dev/null; then
            wait "$p"
            status=$?
            echo "run: an example ended by itself (status $status)."
            finish
            exit 1
        fi
    done
    sleep 1 &
    wait $!
done
