#!/bin/sh
# SPDX-License-Identifier: MIT
# coverage.sh -- `make coverage`: runs the tests on an instrumented build and
# prints how much of each source they ran through (lines, branches taken).
set -u
BUILD=${BUILD:-build}/coverage
MAKE=${MAKE:-make}
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES 2>/dev/null
find "$BUILD" -name '*.gcda' -exec rm -f {} + 2>/dev/null
BUILD="$BUILD" CFLAGS='-O0 -g --coverage' FLAVOURS=plain tools/check.sh |
    grep -E 'FAIL|^[0-9]+ passed'
echo
printf '%-28s %10s %10s\n' source lines branches
for s in $("$MAKE" -s print-SRCS); do
    o=$BUILD/${s%.c}.o
    [ -f "${o%.o}.gcda" ] || { printf '%-28s %10s %10s\n' "$s" 0% 0%; continue; }
    gcov -b -n -o "$o" "$s" 2>/dev/null | awk -v s="$s" '
        /^File / { mine = index($0, s) > 0 }
        mine && /^Lines executed/ { sub(/.*:/, ""); split($0, a, "%"); l = a[1]; n = $NF }
        mine && /^Taken at least once/ { sub(/.*:/, ""); split($0, a, "%"); b = a[1] }
        END { printf "%-28s %9.1f%% %9.1f%%\t%d\n", s, l, b, n }'
done | awk -F '\t' '
    { print $1; split($1, a, " "); lines += $2; hit += $2 * a[2] / 100 }
    END { if (lines) printf "%-28s %9.1f%%   of %d lines\n", "in all", 100 * hit / lines, lines }'
