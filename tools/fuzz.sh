#!/bin/sh
# SPDX-License-Identifier: MIT
# fuzz.sh -- `make fuzz SECONDS=n`: builds each test/fuzz/fuzz_NAME.c with
# clang, libFuzzer and the sanitizers, and runs it n seconds from its corpus
# test/fuzz/corpus/NAME with the words of test/fuzz/NAME.dict. FUZZ_ONLY="a b"
# runs only these. New inputs stay in build/fuzz/corpus/NAME; an input
# that breaks something is kept in build/fuzz/found and its path is told.
set -u
. tools/tally.sh
BUILD=${BUILD:-build}/fuzz
MAKE=${MAKE:-make}
JOBS=${JOBS:-2}
SECONDS_EACH=${SECONDS_EACH:-60}
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES 2>/dev/null

san='-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined'
mk() {
    "$MAKE" -s -k -j"$JOBS" BUILD="$BUILD" CC="${FUZZ_CC:-clang}" SAN="$san" \
        CFLAGS='-O1 -g' LDFLAGS= WERROR= "$@"
}
NAMES=$(mk print-FUZZ)
if [ -n "${FUZZ_ONLY:-}" ]; then
    NAMES=$(for n in $FUZZ_ONLY; do echo "fuzz_${n#fuzz_}"; done)
fi
if [ -z "$NAMES" ]; then
    echo 'fuzz: there is no test/fuzz/fuzz_*.c yet.'
    exit 0
fi
mkdir -p "$BUILD/found" "$BUILD/logs"
if ! mk fuzzers >"$BUILD/logs/build" 2>&1; then
    fail 'fuzz targets build' "$(grep -E 'error|undefined|\*\*\*' "$BUILD/logs/build")"
fi

cat >"$BUILD/one.sh" <<'ONE'
set -u
name=$1 build=$2 seconds=$3
new=$build/corpus/${name#fuzz_}
seeds=test/fuzz/corpus/${name#fuzz_}
mkdir -p "$new"
[ -d "$seeds" ] || seeds=
dict=test/fuzz/${name#fuzz_}.dict
[ ! -f "$dict" ] || seeds="-dict=$dict $seeds"
ASAN_OPTIONS=handle_segv=2:detect_leaks=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export ASAN_OPTIONS UBSAN_OPTIONS
timeout --kill-after=10 $((seconds + 60)) "$build/fuzzers/$name" \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
    -artifact_prefix="$build/found/$name-" "$new" $seeds \
    >"$build/logs/$name" 2>&1 </dev/null
echo $? >"$build/logs/$name.status"
ONE
for name in $NAMES; do
    rm -f "$BUILD/logs/$name.status"
    [ ! -x "$BUILD/fuzzers/$name" ] || echo "$name"
done | xargs -P "$JOBS" -I '{}' sh "$BUILD/one.sh" '{}' "$BUILD" "$SECONDS_EACH"

for name in $NAMES; do
    runs=$(awk '/stat::number_of_executed_units/ { print $2 }' "$BUILD/logs/$name" 2>/dev/null)
    if [ "$(cat "$BUILD/logs/$name.status" 2>/dev/null)" = 0 ]; then
        pass "$name: ${runs:-0} inputs in $SECONDS_EACH s"
    else
        fail "$name" "$(grep -aE 'ERROR|runtime error|SUMMARY|Test unit written|^    #[0-7] ' \
            "$BUILD/logs/$name" 2>/dev/null || echo 'it does not build')"
    fi
done
total
