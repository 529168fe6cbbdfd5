#!/bin/sh
# SPDX-License-Identifier: MIT
# moved.sh -- is every number that a server tells moved by some test? Unites
# what the test programs have left in FOLDER (test/test.h) and lists what was
# told by one and moved by none. Ends with "N passed, N failed".
#
#   PM_STATS_DIR=FOLDER build/test/test_x ...; tools/moved.sh FOLDER
set -u
. tools/tally.sh
dir=${1:?which folder?}
cat "$dir"/* 2>/dev/null | sort -u >"$dir.all"
told=$(cut -d ' ' -f 2- "$dir.all" | sort -u | wc -l)
still=$(awk '{ key = substr($0, 3); told[key] = 1; if ($1) moved[key] = 1 }
    END { for (key in told) if (!(key in moved)) print key }' "$dir.all" | sort)
if [ "$told" -lt 100 ]; then
    fail 'the tests have told what they counted' "only $told numbers"
elif [ -n "$still" ]; then
    fail "each of $told numbers is moved by some test" "$still"
else
    pass "each of $told numbers is moved by some test"
fi
total
