#!/bin/sh
# SPDX-License-Identifier: MIT
# public_tests.sh -- names of the tests that need nothing but pomelo.h: those
# called test_api_* and test_flow_* which include no header of ours besides
# pomelo.h and the tests' own. They also run on the amalgamation.
for f in test/test_api_*.c test/test_flow_*.c; do
    [ -f "$f" ] || continue
    if sed -n 's/^#include "\(.*\)"/\1/p' "$f" |
        grep -Eqv '^((\.\./)?pomelo\.h|(test[a-z_]*|ports)\.h)$'; then
        continue
    fi
    basename "$f" .c
done
