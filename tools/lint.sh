#!/bin/sh
# SPDX-License-Identifier: MIT
# lint.sh -- the house rules, as far as a machine can hold them. What a rule
# finds is listed under it; the last line is "N passed, N failed".
#
# Most of it looks at the objects, not at the text: what nm does not see is not
# there, whatever a macro makes of it.
set -u
. tools/tally.sh
export LC_ALL=C
BUILD=${BUILD:-build}
MAKE=${MAKE:-make}
CC=${CC:-cc}
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES 2>/dev/null
mk() { "$MAKE" -s BUILD="$BUILD" CC="$CC" WERROR="${WERROR-}" "$@"; }
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT

SRCS=$(mk print-SRCS)
# All that is C and ours, and the part of it that is the library.
if git rev-parse --git-dir >/dev/null 2>&1; then
    ALL=$(git ls-files -co --exclude-standard '*.c' '*.h')
else
    ALL=$(find . -name build -prune -o -name dist -prune -o -name '*.[ch]' -print | sed 's|^\./||')
fi
ALL=$(for f in $ALL; do [ ! -f "$f" ] || echo "$f"; done)
LIBRARY=$(printf '%s\n' $ALL | grep -E '^(core/)?[^/]*$')

# ---- Text ---------------------------------------------------------------------

# shellcheck disable=SC2086
{
verdict 'floors: includes go down' \
    "$(awk -v srcs="$SRCS" -f tools/floors.awk $LIBRARY)"
verdict 'the tour of docs/ARCHITECTURE.md is in the order of SRCS' "$(
    sed -n 's/^| \([a-z0-9_\/]*\.c\) |.*/\1/p' docs/ARCHITECTURE.md | awk -v srcs="$SRCS" '
        { at[$1] = NR }
        END { n = split(srcs, list, " "); last = 0
              for (i = 1; i <= n; i++) {
                  if (!(list[i] in at)) print list[i] ": not in the tour"
                  else if (at[list[i]] < last) print list[i] ": too early in the tour"
                  else last = at[list[i]]
              } }')"
verdict 'every function has at most 70 lines' "$(awk '
    FNR == 1 { open = 0 }
    /^\{/ { open = FNR }
    /^\}/ { if (open && FNR - open - 1 > 70)
                print FILENAME ":" open ": " FNR - open - 1 " lines"; open = 0 }' $ALL)"
verdict 'every file has at most 1000 lines, pomelo.h 2000' "$(wc -l $ALL |
    awk '$2 != "total" && $1 > ($2 == "pomelo.h" ? 2000 : 1000) {
        print $2 ": " $1 " lines" }')"
verdict 'no line is wider than 80 columns' "$(awk '
    { line = $0; gsub(/[\200-\277]/, "", line) } # a character is its first byte
    length(line) > 80 { print FILENAME ":" FNR ": " length(line) }' $LIBRARY)"
verdict 'every C file begins with its licence' "$(for f in $ALL; do
    [ "$(head -n 1 "$f")" = '/* SPDX-License-Identifier: MIT */' ] || echo "$f"; done)"
verdict 'every C file says what it is' "$(for f in $ALL; do
    sed -n 2p "$f" | grep -Eq '^/\* [^ ]*[a-z0-9_]+\.[ch] -- ' || echo "$f"; done)"
verdict 'every script carries the licence' "$(
    for f in Makefile .ci/run tools/*.sh tools/*.awk \
        $(git ls-files -co --exclude-standard '*.sh' '*.js' 2>/dev/null); do
        [ ! -f "$f" ] || head -n 5 "$f" | grep -q SPDX || echo "$f"
    done)"
verdict 'nothing is left for later' "$(grep -nE '\b(TO[D]O|FI[X]ME|X[X]X)\b' $ALL)"
verdict 'tests that the docs name exist' "$(
    grep -ohE '\b(test|fuzz)_[a-z0-9_]+' SECURITY.md docs/LIFETIMES.md | sort -u | while read -r t; do
        [ -f "test/$t.c" ] || [ -f "test/fuzz/$t.c" ] || grep -q "^static void $t(" test/test_*.c || echo "$t"
    done)"
verdict 'no code is commented out' "$(grep -nE '^ *(//|/\*) *[a-z_]+\(.*\); *(\*/)?$|^#if 0' $ALL)"
verdict 'no name of ours begins with _' "$(grep -nE \
    '^ *#define +_[A-Za-z]|^(static |const |struct |enum |typedef )+[a-z_0-9 *]*[ *]_[a-zA-Z0-9_]+ *[(;={]' \
    $LIBRARY)"
verdict 'what is file-local is called neither pm_ nor pmi_' "$(
    grep -nE '^static [^=;(]*\bpmi?_[a-z0-9_]+\(' $(printf '%s\n' $LIBRARY | grep '\.c$'))"

# One door a library.
door() { # WHAT PATTERN ALLOWED-FILES
    verdict "one door: $1" "$(grep -nE "^ *# *include *($2)" $LIBRARY |
        grep -vE "^($3):")"
}
door libevent '<(event2/|event\.h|evdns|evhttp)' 'core/loop[a-z_]*\.[ch]'
door mbedtls '<(mbedtls|psa)/' 'core/(crypto|tls)[a-z_]*\.[ch]'
door nanopb '<pb[a-z_]*\.h|"[^"]*\.pb\.h' 'core/pb[a-z_.]*\.[ch]'
# Trees are built and read where they are handed to the application.
door cJSON '<(cjson/)?cJSON\.h' \
    'core/json[a-z_]*\.[ch]|pomelo_(dialect|handshake|session|request|filter|handler|resume|connector|client|config|cron|rpc|call|admin|module|facts|master|monitor|console|run)[a-z_]*\.c'
verdict 'core/ has never heard of Pomelo' "$(grep -nE \
    '^ *# *include *"(\.\./)?pomelo_|\bpm_(app|session|request|channel|call|client|server)\b' \
    $(printf '%s\n' $LIBRARY | grep '^core/') | grep -v 'pomelo.h')"
}

if command -v clang-format >/dev/null; then
    # shellcheck disable=SC2086
    verdict 'clang-format has nothing to say' \
        "$(clang-format --dry-run -Werror $ALL 2>&1 | grep -E 'error|warning' | head -n 20)"
else
    echo '  skip  clang-format is not here'
fi

# ---- Objects --------------------------------------------------------------------

if ! mk -k -j"${JOBS:-2}" all objects >"$dir/build" 2>&1; then
    fail 'the library builds' "$(grep -E 'error|\*\*\*|undefined' "$dir/build")"
fi
OBJS=
for s in $SRCS; do
    o=$BUILD/${s%.c}.o
    [ ! -f "$o" ] || OBJS="$OBJS $o"
done

# name <tab> kind <tab> object, one a symbol; FORTIFY's names are the plain ones.
for o in $OBJS; do
    nm "$o" | awk -v o="${o#"$BUILD"/}" '{ kind = $(NF - 1); name = $NF
        if (kind == "U") { sub(/^__isoc99_|^__isoc23_/, "", name)
            if (name ~ /_chk$/) { sub(/^__/, "", name); sub(/_chk$/, "", name) } }
        print name "\t" kind "\t" o }'
done >"$dir/symbols"

uses() { # NAMES EXCEPT-PATTERN: objects that reference one of the names
    awk -F '\t' -v names="$1" -v except="$2" '
        BEGIN { n = split(names, a, " "); for (i = 1; i <= n; i++) bad[a[i]] = 1 }
        $2 == "U" && ($1 in bad) && ($3 " " $1) !~ except { print $3 ": " $1 }' \
        "$dir/symbols"
}
never='^$'
verdict 'nothing ends, forks or signals the process' "$(uses \
    'exit _exit _Exit abort atexit signal sigaction sigprocmask pthread_sigmask raise kill fork vfork system popen execv execve execvp __assert_fail' \
    '^pomelo_spawn\.o kill$|^pomelo_run[a-z_]*\.o (sigaction|raise)$')"
verdict 'processes are started by pm_run alone' "$(uses \
    'posix_spawn posix_spawnp waitpid waitid wait wait4 syscall' '^pomelo_spawn\.o ')$(
    uses 'pmi_spawn_new pmi_spawn_start pmi_spawn_kill' '^pomelo_run[a-z_]*\.o ')"
verdict 'signals are asked for by pm_run alone' \
    "$(uses 'pmi_loop_signal' '^pomelo_run[a-z_]*\.o ')"
verdict 'nothing prints' "$(uses \
    'printf vprintf puts putchar fprintf vfprintf fputs fputc fwrite perror stdout stderr' \
    '^pomelo_run[a-z_]*\.o (fprintf|fputs|fputc|fwrite|vfprintf|stderr)$')"
verdict 'sockets are written by sendmsg alone' \
    "$(uses 'write writev send sendto dprintf' "$never")"
verdict 'no call without a bound' "$(uses \
    'strcpy strcat sprintf vsprintf strtok gets stpcpy scanf sscanf alloca strdup strndup asprintf vasprintf' "$never")"
verdict 'no call that hides state or follows the locale' "$(uses \
    'strtok_r setlocale localtime gmtime asctime ctime strerror rand srand random srandom setenv putenv getenv tmpnam gethostbyname inet_ntoa' \
    '^pomelo_run[a-z_]*\.o getenv$')"
verdict 'malloc only in core/base' "$(uses \
    'malloc calloc realloc reallocarray free aligned_alloc posix_memalign' '^core/base\.o ')"
verdict "nobody's process-wide switches are set" "$(uses \
    'event_set_mem_functions event_set_log_callback event_set_fatal_callback event_enable_debug_mode evthread_use_pthreads evthread_set_lock_callbacks libevent_global_shutdown cJSON_InitHooks mbedtls_platform_set_calloc_free mbedtls_platform_set_printf mbedtls_debug_set_threshold' "$never")"
verdict "cJSON's own parser and printer are not used" \
    "$(awk -F '\t' '$2 == "U" && $1 ~ /^cJSON_(Parse|Print|Minify)/ { print $3 ": " $1 }' "$dir/symbols")"
verdict 'bufferevents and evhttp are not used' \
    "$(awk -F '\t' '$2 == "U" && $1 ~ /^(bufferevent_|evhttp_|evbuffer_|evconnlistener_)/ { print $3 ": " $1 }' "$dir/symbols")"
verdict 'no writable globals' "$(for o in $OBJS; do
    size -A "$o" | awk -v o="$o" '$2 > 0 && $1 ~ /^\.(t?data|t?bss)/ &&
        $1 !~ /^\.data\.rel\.ro/ { print o ": " $1 " holds " $2 " bytes" }'; done)"
verdict 'what other files see is called pm_ or pmi_' "$(awk -F '\t' '
    $2 ~ /^[A-TV-Z]$/ && $1 !~ /^pmi?_/ { print $3 ": " $1 }' "$dir/symbols")"
verdict 'every symbol of ours is defined once' "$(awk -F '\t' '
    $2 ~ /^[TDRB]$/ { if ($1 in at) print $1 ": " at[$1] " and " $3; at[$1] = $3 }' "$dir/symbols")"
# shellcheck disable=SC2086
awk -v srcs="$SRCS" -v modules=1 -f tools/floors.awk $LIBRARY >"$dir/modules"
verdict 'floors: calls go down' "$(awk -F '\t' -v objs="$SRCS" '
    function stem(o) { sub(/\.[oc]$/, "", o); return o }
    BEGIN { n = split(objs, a, " "); for (i = 1; i <= n; i++) place[stem(a[i])] = i }
    FILENAME ~ /modules$/ { one[$0] = 1; next }
    $2 ~ /^[TDR]$/ { home[$1] = stem($3) }
    $2 == "U" && $1 ~ /^pmi?_/ && $1 !~ /^pmi?_app_/ { want[++w] = $1; from[w] = stem($3) }
    END { for (i = 1; i <= w; i++) {
        h = home[want[i]]; f = from[i]
        if (h == "") { print f ": " want[i] ", which nobody defines"; continue }
        if (place[h] > place[f] && !((f " " h) in one))
            print f ": " want[i] " of " h
    } }' "$dir/modules" "$dir/symbols")"

# ---- The public face ---------------------------------------------------------------

# Names that pomelo.h declares as PM_API.
grep -v '^ *#' pomelo.h | tr '\n' ' ' | sed 's|/\*|\n/*|g; s|\*/|*/\n|g' |
    grep -v '^/\*' | tr '\n' ' ' | tr ';{}' '\n\n\n' | grep PM_API |
    sed -E 's/.*PM_API//; s/^[^(]*[ *](pm_[a-z0-9_]+) *\(.*/\1/' | sort >"$dir/declared"
awk -F '\t' '$2 == "T" && $1 ~ /^pm_/ { print $1 }' "$dir/symbols" | sort -u >"$dir/defined"
verdict 'what pomelo.h declares is defined' "$(comm -23 "$dir/declared" "$dir/defined")"
verdict 'what is public is declared in pomelo.h' "$(comm -13 "$dir/declared" "$dir/defined")"
verdict 'nothing is declared twice' "$(uniq -d "$dir/declared")"
so=$BUILD/libpomelo.so
if [ -f "$so" ]; then
    nm -D --defined-only "$so" | awk '{ print $3 }' | sort >"$dir/exported"
    verdict 'the shared library exports pomelo.h and nothing else' \
        "$(comm -3 "$dir/exported" "$dir/defined")"
    verdict 'the shared library hides nanopb' "$(grep '^pb_' "$dir/exported")"
    verdict 'the shared library knows its name' \
        "$(readelf -d "$so" | grep -q 'SONAME.*libpomelo\.so\.' || echo 'it has no soname')"
else
    fail 'the shared library is there' "$so was not built"
fi
total
