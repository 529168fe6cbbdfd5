#!/bin/sh
# SPDX-License-Identifier: MIT
# check_header.sh -- what a user meets first: pomelo.h on its own in C and C++,
# the program that opens it, the same program in README.md, and an installed
# copy found through pkg-config.
set -u
. tools/tally.sh
BUILD=${BUILD:-build}
MAKE=${MAKE:-make}
CC=${CC:-cc}
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES 2>/dev/null
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT

# The program in the header's first comment, and the first C block of README.
sed -n '/^ \*     #include <pomelo.h>/,/^ \* [A-Z]/p' pomelo.h | sed '$d' |
    sed 's/^ \* \{0,5\}//' | sed -e :a -e '/^\n*$/{$d;N;ba' -e '}' >"$dir/header.c"
sed -n '/^```c$/,/^```$/p' README.md | sed -e 1d -e '/^```$/,$d' >"$dir/readme.c"

pedantic='-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -I.'
echo '#include <pomelo.h>
int main(void) { pm_app_opts o = pm_app_opts_default(); return (int)o.size == 0; }' >"$dir/alone.c"
cp "$dir/alone.c" "$dir/alone.cc"
# shellcheck disable=SC2086
{
    try 'pomelo.h alone as C99' "$CC" -std=c99 $pedantic -fsyntax-only "$dir/alone.c"
    try 'pomelo.h alone as C11' "$CC" -std=c11 $pedantic -fsyntax-only "$dir/alone.c"
    cxx=
    for c in g++ clang++; do
        ! command -v "$c" >/dev/null || cxx=${cxx:-$c}
    done
    if [ -n "$cxx" ]; then
        try 'pomelo.h alone as C++11' "$cxx" -std=c++11 $pedantic -fsyntax-only "$dir/alone.cc"
    else
        echo '  skip  pomelo.h as C++11: no C++ compiler here'
    fi
    try "the header's program compiles" "$CC" -std=c99 $pedantic -fsyntax-only "$dir/header.c"
    try "README's program is the header's" diff "$dir/header.c" "$dir/readme.c"
}
lines=$(grep -c . "$dir/header.c")
verdict 'it has at most 25 lines' \
    "$([ "$lines" -gt 10 ] && [ "$lines" -le 25 ] || echo "it has $lines")"

# Installed below a folder, compiled from elsewhere, gone after uninstall.
installed() {
    "$MAKE" -s BUILD="$BUILD" CC="$CC" PREFIX="$dir/usr" install
}
with_pc() { # FLAGS...: the header's program against what is installed
    (cd "$dir" && PKG_CONFIG_PATH=$dir/usr/lib/pkgconfig &&
        export PKG_CONFIG_PATH &&
        flags=$(pkg-config "$@" --cflags --libs pomelo) &&
        eval "$CC" -std=c99 -o server header.c "$flags")
}
try 'make install' installed
if command -v pkg-config >/dev/null; then
    try 'the program links through pkg-config' with_pc
    soname=$("$MAKE" -s print-SOVERSION)
    try "it asks for libpomelo.so.$soname" \
        sh -c "readelf -d '$dir/server' | grep -q 'libpomelo.so.$soname\\]'"
    rm -f "$dir"/usr/lib/libpomelo.so*
    try 'the program links with libpomelo.a' with_pc --static
else
    echo '  skip  pkg-config is not here'
fi
"$MAKE" -s BUILD="$BUILD" PREFIX="$dir/usr" uninstall >/dev/null 2>&1
verdict 'make uninstall leaves nothing' "$(find "$dir/usr" ! -type d 2>/dev/null)"
total
