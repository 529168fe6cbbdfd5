#!/bin/sh
# SPDX-License-Identifier: MIT
# run.sh -- the example programs as a browser sees them. Drives the Chromium of
# this machine, without a window, through the pages of hello and chat and
# through the page that npm's pomelo gives to each new project. What it needs
# from npm goes to build/browser, never into the tree. One line a test; the
# last one is "N passed, N failed". Screenshots: build/browser/shots.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tools/tally.sh
BUILD=${BUILD:-build}
MAKE=${MAKE:-make}
cache=$BUILD/browser
here=test/browser

# The classic page is taken from this very tarball, and left as it is.
template=pomelo@2.2.7
template_file=pomelo-2.2.7.tgz
template_sha512=413f6a4eb04937ca548c85e88ce76a33ba60d196b1aa36ac2cb307e1872ddd80\
e6c96c209aaeb5cead5f2605c3a87348f81e6bbc5d71ef7dc32e1f8fe39364ed

give_up() { # SENTENCE
    fail "$1"
    total
    exit 1
}

packages() {
    if [ -d "$cache/node_modules" ] &&
        cmp -s "$here/package-lock.json" "$cache/package-lock.json"; then
        return
    fi
    cp "$here/package.json" "$here/package-lock.json" "$cache/" &&
        (cd "$cache" && npm ci --ignore-scripts --no-audit --no-fund)
}

template_is_whole() {
    echo "$template_sha512  $cache/$template_file" | sha512sum -c --status
}

template_page() {
    template_is_whole 2>/dev/null ||
        (cd "$cache" && npm pack --silent --ignore-scripts "$template") ||
        return
    template_is_whole || return
    rm -rf "$cache/template"
    mkdir -p "$cache/template"
    tar -xzf "$cache/$template_file" -C "$cache/template" \
        --strip-components=4 package/template/web-server/public
}

mkdir -p "$cache" || exit 1
cache=$(cd "$cache" && pwd)
command -v node >/dev/null || give_up 'there is no node (make deps)'
packages >"$cache/npm.log" 2>&1 || give_up "npm ci failed: $cache/npm.log"
template_page >>"$cache/npm.log" 2>&1 ||
    give_up "npm pack $template failed: $cache/npm.log"
"$MAKE" -s BUILD="$BUILD" examples >"$cache/make.log" 2>&1 ||
    give_up "the examples do not build: $cache/make.log"
BUILD=$BUILD NODE_PATH=$cache/node_modules \
    exec timeout -k 10 300 node "$here/run.js"
