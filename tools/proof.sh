#!/bin/sh
# SPDX-License-Identifier: MIT
# proof.sh -- `make proof`: the long ones, for hours. PARTS="fuzz soak" runs
# only these; each part's output is kept in build/proof-NAME.log.
#
#   tests         every allocation fails once, all seeds are walked (PM_PROOF=1);
#                 plain, under the sanitizers, threads under ThreadSanitizer
#   differential  a hundred seeds of random inputs, Pomelo's packages and ours
#   fuzz          each target PROOF_FUZZ_SECONDS (600)
#   soak          a cluster under churn and kill -9, SOAK_SECONDS (1200)
#   overload      three times what a server can do, PROOF_OVERLOAD_SECONDS (5)
#                 a time
#   slowloris     a thousand slow clients of each kind
#   unread        5,000 clients of whom 500 never read, PROOF_UNREAD_SECONDS (120)
#                 with them and without
#   bench         the large benches: test/bench/proof.sh, when it is there
set -u
. tools/tally.sh
PM_PROOF=1
TEST_TIMEOUT=${TEST_TIMEOUT:-14400}
SECONDS_EACH=${PROOF_FUZZ_SECONDS:-600}
SOAK_SECONDS=${SOAK_SECONDS:-1200}
DIFFERENTIAL_SEEDS=${DIFFERENTIAL_SEEDS:-$(seq -s ' ' 100)}
export PM_PROOF TEST_TIMEOUT SECONDS_EACH SOAK_SECONDS DIFFERENTIAL_SEEDS
BUILD=${BUILD:-build}
mkdir -p "$BUILD"

part() { # NAME COMMAND...
    name=$1
    shift
    case " ${PARTS:-$name} " in *" $name "*) ;; *) return ;; esac
    echo "== $name"
    out=$BUILD/proof-$name.log
    { "$@" 2>&1; echo $? >"$out.status"; } | tee "$out"
    add_total "$name" "$(tail -n 1 "$out")" "$(cat "$out.status")"
}
fuzz() { CC=${CC:-cc} tools/deps.sh fuzz && tools/fuzz.sh; }
with_programs() { # NAME ARGS...: of test/bench
    program=$BUILD/test/bench/$1
    shift
    ${MAKE:-make} -s bench-programs && "$program" "$@"
}

part tests env FLAVOURS='plain asan tsan' tools/check.sh
part differential test/differential/run.sh
part fuzz fuzz
part soak test/soak.sh
part overload with_programs overload --secs "${PROOF_OVERLOAD_SECONDS:-5}"
part slowloris with_programs slowloris
part unread with_programs unread --secs "${PROOF_UNREAD_SECONDS:-120}"
[ ! -x test/bench/proof.sh ] || part bench test/bench/proof.sh
total
