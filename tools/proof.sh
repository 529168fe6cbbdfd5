#!/bin/sh
# SPDX-License-Identifier: MIT
# proof.sh -- `make proof`: the long ones, for hours. The tests are told by
# PM_PROOF=1 to fail every allocation and to walk all their seeds; the fuzz
# targets get an hour each; the large benches run when there are some.
set -u
. tools/tally.sh
PM_PROOF=1
TEST_TIMEOUT=${TEST_TIMEOUT:-14400}
SECONDS_EACH=${PROOF_FUZZ_SECONDS:-3600}
export PM_PROOF TEST_TIMEOUT SECONDS_EACH
part() {
    name=$1
    shift
    echo "== $name"
    out=${BUILD:-build}/proof-$name.log
    mkdir -p "${BUILD:-build}"
    { "$@" 2>&1; echo $? >"$out.status"; } | tee "$out"
    add_total "$name" "$(tail -n 1 "$out")" "$(cat "$out.status")"
}
part tests env FLAVOURS='plain asan tsan' tools/check.sh
CC=${CC:-cc} tools/deps.sh fuzz && part fuzz tools/fuzz.sh
for s in test/bench/proof.sh test/soak.sh; do
    [ ! -x "$s" ] || part "$(basename "$s" .sh)" "$s"
done
total
