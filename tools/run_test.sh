#!/bin/sh
# SPDX-License-Identifier: MIT
# run_test.sh -- runs one test program in a process of its own, under a time
# limit, and reports it on one line.
#
#   run_test.sh FLAVOUR BUILD LOGS PROGRAM
#
# LOGS/FLAVOUR-NAME.count gets "PASSED FAILED"; .out and .err what it said. A
# program that dies, hangs, leaks or tests nothing counts as one failed test.
set -u
flavour=$1
PM_BUILD=$2
logs=$3
program=$4
export PM_BUILD
name=$(basename "$program")
log=$logs/$flavour-$name
limit=${TEST_TIMEOUT:-120}

if [ ! -x "$program" ]; then
    echo '0 1' >"$log.count"
    printf '  FAIL  %-7s %-28s does not build\n' "$flavour" "$name"
    exit 0
fi

# cmocka catches SIGSEGV; with 2 the sanitizer keeps it for itself.
ASAN_OPTIONS=handle_segv=2:detect_leaks=1:detect_stack_use_after_return=1
UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
export ASAN_OPTIONS UBSAN_OPTIONS TSAN_OPTIONS
unset CMOCKA_MESSAGE_OUTPUT CMOCKA_XML_FILE 2>/dev/null

# A corpus is given to its target as arguments.
set -- "$program"
case $program in
*/fuzz/*) set -- "$program" "test/fuzz/corpus/${name#fuzz_}" ;;
esac
# ThreadSanitizer can not place its memory on a kernel that randomises widely.
if [ "$flavour" = tsan ] && setarch "$(uname -m)" -R true 2>/dev/null; then
    set -- setarch "$(uname -m)" -R "$@"
fi

began=$(date +%s%N)
timeout --kill-after=5 "$limit" "$@" >"$log.out" 2>"$log.err" </dev/null
status=$?
took=$((($(date +%s%N) - began) / 10000000))

passed=$(grep -ac '^\[       OK \] ' "$log.out")
failed=$(awk '/^\[  (FAILED|ERROR ) *\] [0-9]+ test\(s\)/ {
                  sub(/^[^\]]*\] /, ""); n += $1 } END { print n + 0 }' \
    "$log.out" "$log.err")
why=
if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
    why="not done in $limit s"
elif [ "$status" -ge 128 ]; then
    why="died of signal $((status - 128))"
elif [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
    why="ended with status $status"
elif [ $((passed + failed)) -eq 0 ]; then
    why="tests nothing"
fi
[ -z "$why" ] || failed=$((failed + 1))

echo "$passed $failed" >"$log.count"
word=ok
[ "$failed" -eq 0 ] || word=FAIL
line=$(printf '  %-5s %-7s %-28s %4d passed %4d failed %4d.%02d s  %s' "$word" \
    "$flavour" "$name" "$passed" "$failed" $((took / 100)) $((took % 100)) "$why")
if [ "$failed" -gt 0 ]; then
    # One write, so that parallel tests do not mix their lines.
    line="$line
$({
        grep -av '^\[ RUN      \] \|^\[       OK \] \|^\[=====' "$log.out"
        sed '/^Shadow bytes around/,/==ABORTING/d' "$log.err"
    } | head -n 60 | sed 's/^/          /')"
fi
printf '%s\n' "$line"
exit 0
