#!/bin/sh
# SPDX-License-Identifier: MIT
# check.sh -- `make check`: builds the library once per flavour, runs each test
# program in its own process, a few at a time, and ends with the line
# "N passed, N failed".
#
# FLAVOURS (all three by default; .ci/run asks for others):
#   plain   what an application links
#   asan    AddressSanitizer, leaks, UndefinedBehaviorSanitizer, our asserts
#   amalg   the public tests on the amalgamation
#   tsan    ThreadSanitizer, for the tests that start threads
#   header  pomelo.h, its program, README, install: tools/check_header.sh
# TESTS="test_a test_b" runs only these.
set -u
. tools/tally.sh
BUILD=${BUILD:-build}
MAKE=${MAKE:-make}
JOBS=${JOBS:-2}
CC=${CC:-cc}
FLAVOURS=${FLAVOURS:-plain asan amalg header}
LOGS=$BUILD/check
rm -rf "$LOGS"
mkdir -p "$LOGS"
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES 2>/dev/null

mk() { # BUILD-FOLDER SAN TARGETS...
    mk_build=$1
    mk_san=$2
    shift 2
    "$MAKE" -s -k -j"$JOBS" BUILD="$mk_build" SAN="$mk_san" CC="$CC" \
        CFLAGS="${CFLAGS--O2 -g}" LDFLAGS="${LDFLAGS-}" WERROR="${WERROR-}" "$@"
}

get() { mk "$BUILD" '' "print-$1"; }

wanted() { # PROGRAMS: those that TESTS lets through
    for w in "$@"; do
        case " ${TESTS:-$(basename "$w")} " in
        *" $(basename "$w") "*) echo "$w" ;;
        esac
    done
}

# A build that fails is one failed test, and shows its first lines; what was
# built runs all the same.
build() { # FLAVOUR BUILD-FOLDER SAN TARGETS...
    b_name=$1
    shift
    printf 'building %s ...\n' "$b_name"
    b_start=$(date +%s)
    if mk "$@" >"$LOGS/build-$b_name.log" 2>&1; then
        pass "build $b_name ($(($(date +%s) - b_start)) s)"
    else
        fail "build $b_name" "$(grep -aE 'error|undefined|\*\*\*|multiple' \
            "$LOGS/build-$b_name.log" || cat "$LOGS/build-$b_name.log")"
    fi
}

run() { # FLAVOUR BUILD-FOLDER PROGRAMS...
    r_flavour=$1
    r_build=$2
    shift 2
    # shellcheck disable=SC2046
    set -- $(wanted "$@")
    [ $# -gt 0 ] || return 0
    printf '%s\n' "$@" |
        xargs -P "$JOBS" -I '{}' tools/run_test.sh "$r_flavour" "$r_build" "$LOGS" '{}'
}

# Every number that the tests have seen is moved by one of them.
moved() {
    m_out=$(tools/moved.sh "$PM_STATS_DIR" 2>&1)
    m_status=$?
    printf '%s\n' "$m_out" | sed '$d'
    add_total numbers "$(printf '%s\n' "$m_out" | tail -n 1)" "$m_status"
}

flavour_plain() {
    build plain "$BUILD" '' all programs tests
    PM_STATS_DIR=$LOGS/stats
    mkdir -p "$PM_STATS_DIR"
    export PM_STATS_DIR
    # shellcheck disable=SC2046
    run plain "$BUILD" $(get TESTS)
    [ -n "${TESTS:-}" ] || moved
    unset PM_STATS_DIR
}

flavour_asan() {
    san='-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer'
    build asan "$BUILD/asan" "$san" "$BUILD/asan/libpomelo.a" programs tests
    # shellcheck disable=SC2046
    run asan "$BUILD/asan" $(mk "$BUILD/asan" "$san" print-TESTS)
    # shellcheck disable=SC2046
    run corpus "$BUILD/asan" $(mk "$BUILD/asan" "$san" print-CORPUS_TESTS)
}

flavour_tsan() {
    t_tests=
    for t in $(grep -El 'pthread_create|thrd_create' test/test_*.c 2>/dev/null); do
        t_tests="$t_tests $BUILD/tsan/${t%.c}"
    done
    [ -n "$t_tests" ] || return 0
    # shellcheck disable=SC2086
    build tsan "$BUILD/tsan" -fsanitize=thread $t_tests
    # shellcheck disable=SC2086
    run tsan "$BUILD/tsan" $t_tests
}

flavour_amalg() {
    build amalg "$BUILD" '' amalg-tests
    # shellcheck disable=SC2046
    run amalg "$BUILD" $(get AMALG_TESTS)
}

flavour_header() {
    h_out=$(BUILD="$BUILD" CC="$CC" MAKE="$MAKE" tools/check_header.sh 2>&1)
    h_status=$?
    printf '%s\n' "$h_out" | sed '$d'
    add_total header "$(printf '%s\n' "$h_out" | tail -n 1)" "$h_status"
}

start=$(date +%s)
for flavour in $FLAVOURS; do
    "flavour_$flavour"
done

# What the programs counted, by flavour.
printf '\n  %-8s %9s %8s %8s\n' flavour programs passed failed
for flavour in plain asan corpus tsan amalg; do
    cat "$LOGS/$flavour"-*.count 2>/dev/null | awk -v f="$flavour" '
        { n++; p += $1; b += $2 }
        END { if (n) printf "  %-8s %9d %8d %8d\n", f, n, p, b }'
done
for c in "$LOGS"/*.count; do
    [ -f "$c" ] || continue
    read -r p f <"$c"
    PASSED=$((PASSED + p))
    FAILED=$((FAILED + f))
done
for c in $(grep -l ' [1-9][0-9]*$' "$LOGS"/*.count 2>/dev/null); do
    printf '  failed: %s, see %s.out and .err\n' "$(basename "$c" .count)" "${c%.count}"
done
printf '  in %d s\n' $(($(date +%s) - start))
total
