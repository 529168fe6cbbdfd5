# SPDX-License-Identifier: MIT
# floors.awk -- the order of floors, from the list of sources alone.
#
#   awk -v srcs="core/base.c ... pomelo_run.c" -f tools/floors.awk FILES...
#
# A source's floor is its place in the list. A header has the floor of the
# source with its name (core/buf.h: core/buf.c; pomelo_rpc_internal.h:
# pomelo_rpc.c); one without such a source has the highest floor that it
# includes. A file may include what is not above it. The files of one module
# share its headers: those with the name before the underscore in common
# (loop.c, loop_run.c), and those that define what one header declares. Prints
# each include that goes up, each circle, and each source that the list does
# not know.
#
# With -v modules=1 prints the pairs of sources that are one module instead.

function folder(path) { return match(path, /.*\//) ? substr(path, 1, RLENGTH) : "" }
function tidy(path) {
    while (sub(/[a-z_]+\/\.\.\//, "", path)) {}
    return path
}
function stem(path) {
    sub(/\.[ch]$/, "", path)
    sub(/_internal$/, "", path)
    return path
}
# The floor of a file; -1 in a circle.
function floor_of(path,   i, best, f) {
    if (stem(path) in place)
        return place[stem(path)]
    if (path in known)
        return known[path]
    if (path in walking)
        return -1
    walking[path] = 1
    best = 0
    for (i = 1; i <= count[path]; i++) {
        f = floor_of(includes[path, i])
        if (f < 0)
            best = -1
        else if (best >= 0 && f > best)
            best = f
    }
    delete walking[path]
    return known[path] = best
}
# Does a source define something that a header declares?
function defines(source, header,   i, name) {
    if (header == "pomelo_app_internal.h") # the getters: pomelo.c's, for all
        return 0
    for (i = 1; i <= defined[source]; i++)
        if ((header, definition[source, i]) in declares)
            return 1
    return 0
}
function same_module(file, header,   a, b, t) {
    a = stem(file)
    b = stem(header)
    # Everything would be one module with pomelo.c.
    if (a == b || (a != "pomelo" && b != "pomelo" && (index(a, b "_") == 1 || index(b, a "_") == 1)))
        return 1
    if (defines(a ".c", header))
        return 1
    # Both belong to a third header.
    for (t = 1; t <= total; t++)
        if (files[t] ~ /\.h$/ && defines(a ".c", files[t]) && defines(b ".c", files[t]))
            return 1
    return 0
}

BEGIN {
    n = split(srcs, list, " ")
    for (i = 1; i <= n; i++)
        place[stem(list[i])] = i
    # The public header stands below everything, not beside pomelo.c.
    known["pomelo.h"] = 0
}
FNR == 1 { files[++total] = FILENAME; exists[FILENAME] = 1 }
/^[ \t]*#[ \t]*include[ \t]*"/ {
    name = $0
    sub(/^[^"]*"/, "", name)
    sub(/".*/, "", name)
    raw[FILENAME, ++count[FILENAME]] = name
}
# Names with a parenthesis behind them: declared in headers, defined where the
# line begins at the margin and is no prototype.
FILENAME ~ /\.h$/ && FILENAME != "pomelo.h" && /^[a-z]/ && !/^static/ {
    line = $0
    while (match(line, /pmi_[a-z0-9_]+\(/)) {
        declares[FILENAME, substr(line, RSTART, RLENGTH - 1)] = 1
        line = substr(line, RSTART + RLENGTH)
    }
}
FILENAME ~ /\.c$/ && /^[a-z].*pmi_[a-z0-9_]+\(/ && !/;$/ && !/^static/ {
    match($0, /pmi_[a-z0-9_]+\(/)
    definition[FILENAME, ++defined[FILENAME]] = substr($0, RSTART, RLENGTH - 1)
}
END {
    if (modules) {
        for (i = 1; i <= n; i++)
            for (t = 1; t <= n; t++)
                if (i != t && same_module(list[i], list[t]))
                    print stem(list[i]), stem(list[t])
        exit
    }
    for (t = 1; t <= total; t++) {
        file = files[t]
        for (i = 1; i <= count[file]; i++) {
            path = tidy(folder(file) raw[file, i])
            includes[file, i] = (path in exists) ? path : raw[file, i]
        }
    }
    for (t = 1; t <= total; t++) {
        file = files[t]
        if (file == "pomelo.h")
            continue
        if (file ~ /\.c$/ && !(stem(file) in place))
            print file ": not in SRCS"
        mine = floor_of(file)
        if (mine < 0)
            print file ": its includes run in a circle"
        for (i = 1; i <= count[file]; i++) {
            header = includes[file, i]
            if (header == "pomelo.h")
                continue
            if (!(header in exists))
                print file ": includes " header ", which is not there"
            else if (floor_of(header) > mine && !same_module(file, header))
                print file ": includes " header ", which is above it"
        }
    }
}
