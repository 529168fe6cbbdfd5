#!/bin/sh
# SPDX-License-Identifier: MIT
# run.sh -- inputs made at random, by Pomelo's own npm packages and by us: the
# same bytes, the same values. What it needs from npm goes to
# build/differential, never into the tree.
#
#   DIFFERENTIAL_SEEDS="1 2 3"   which inputs (1)
set -u
cd "$(dirname "$0")/../.." || exit 1
. tools/tally.sh
BUILD=${BUILD:-build}
MAKE=${MAKE:-make}
cache=$BUILD/differential
here=test/differential

packages() {
    if [ -d "$cache/node_modules" ] &&
        cmp -s "$here/package-lock.json" "$cache/package-lock.json"; then
        return
    fi
    cp "$here/package.json" "$here/package-lock.json" "$cache/" &&
        (cd "$cache" && npm ci --ignore-scripts --no-audit --no-fund)
}

mkdir -p "$cache" || exit 1
cache=$(cd "$cache" && pwd)
try 'node is there' command -v node
try 'npm brings the packages' packages
try 'the codec program builds' "$MAKE" -s BUILD="$BUILD" conformance
for seed in ${DIFFERENTIAL_SEEDS:-1}; do
    [ "$FAILED" -eq 0 ] || break
    out=$(NODE_PATH=$cache/node_modules timeout -k 10 300 node "$here/differential.js" \
        --codec "$BUILD/test/conformance/codec" --seed "$seed" 2>&1)
    status=$?
    printf '%s\n' "$out" | sed '$d' | cut -c 1-2000
    add_total "seed $seed" "$(printf '%s\n' "$out" | tail -n 1)" "$status"
done
total
