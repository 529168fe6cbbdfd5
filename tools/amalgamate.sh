#!/bin/sh
# SPDX-License-Identifier: MIT
# amalgamate.sh -- the library as two files.
#
#   amalgamate.sh DIR SRCS...
#
# writes DIR/pomelo.h, which is pomelo.h, and DIR/pomelo.c: the sources in
# their order, each of our own headers put in once, where it is first asked
# for. File-local names must differ between files; the compiler tells.
set -eu
dir=$1
shift
mkdir -p "$dir"
cp pomelo.h "$dir/pomelo.h"
version=$(sed -n 's/^.define PM_VERSION "\(.*\)"/\1/p' pomelo.h)
awk -v version="$version" '
function folder(path) { return match(path, /.*\//) ? substr(path, 1, RLENGTH) : "" }
function exists(path,   line, got) {
    got = (getline line < path) >= 0
    close(path)
    return got
}
# "core/../pomelo.h" to "pomelo.h"
function tidy(path) {
    while (sub(/[a-z_]+\/\.\.\//, "", path)) {}
    sub(/^\.\//, "", path)
    return path
}
function emit(path,   line, name, found) {
    if (path in seen)
        return
    seen[path] = 1
    if (path == "pomelo.h") {
        print "#include \"pomelo.h\""
        return
    }
    print "\n/* ######## " path " */"
    while ((getline line < path) > 0) {
        if (line ~ /^[ \t]*#[ \t]*include[ \t]*"/) {
            name = line
            sub(/^[^"]*"/, "", name)
            sub(/".*/, "", name)
            found = tidy(folder(path) name)
            if (!exists(found))
                found = name
            if (!exists(found)) {
                print "amalgamate: " path ": no " name > "/dev/stderr"
                bad = 1
            }
            emit(found)
        } else if (line !~ /SPDX-License-Identifier/)
            print line
    }
    close(path)
}
BEGIN {
    print "/* SPDX-License-Identifier: MIT */"
    print "/* pomelo.c -- pomelo for C " version " in one file, made by `make"
    print " * amalgamate` from its sources: change them, not this. */"
    print "#ifndef _GNU_SOURCE"
    print "#define _GNU_SOURCE"
    print "#endif"
    print "/* In one file clang takes the inline functions of headers for its own. */"
    print "#if defined(__clang__)"
    print "#pragma clang diagnostic ignored \"-Wunused-function\""
    print "#endif"
    for (i = 1; i < ARGC; i++)
        emit(tidy(ARGV[i]))
    exit bad
}' "$@" >"$dir/pomelo.c"
