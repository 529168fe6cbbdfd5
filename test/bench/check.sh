#!/bin/sh
# SPDX-License-Identifier: MIT
# check.sh -- `make bench-check`: instructions, not seconds. callgrind counts
# what each codec and each whole request executes, and compares with counts.txt:
# more than 3 % above it fails, and more than 3 % below asks for a new table
# (make bench-check UPDATE=1), so that what was won is not lost unseen.
#
# The numbers belong to one compiler and one set of libraries; with others
# there is nothing to compare, and this says so and is content.
set -u
. tools/tally.sh
export LC_ALL=C
BUILD=${BUILD:-build}
CC=${CC:-cc}
table=test/bench/counts.txt
out=$BUILD/bench-check
unset MAKEFLAGS MFLAGS MAKELEVEL

skip() {
    printf 'bench-check: skipped: %s\n' "$1"
    exit 0
}

library() { # PACKAGE: its version
    pkg-config --modversion "$1" 2>/dev/null || echo unknown
}

command -v valgrind >/dev/null || skip 'valgrind is not here'
have="$($CC --version | head -n 1), $(uname -m), $(getconf GNU_LIBC_VERSION), libcjson $(library libcjson), libevent $(library libevent), CFLAGS=${CFLAGS:-}"
want=$(sed -n 's/^# made with: //p' "$table" 2>/dev/null)
if [ -z "${UPDATE:-}" ] && [ "$have" != "$want" ]; then
    printf 'the table:   %s\nthis system: %s\n' "${want:-none}" "$have"
    skip 'counts of another compiler or other libraries say nothing here'
fi

rm -rf "$out"
mkdir -p "$out"
# The same memcpy and strlen on every machine, whatever its processor can do.
GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX,-AVX2,-AVX512F,-AVX512VL,-ERMS,-FSRM,-BMI1,-BMI2,-LZCNT,-MOVBE,-SSE4_1,-SSE4_2,-SSSE3,-RTM
export GLIBC_TUNABLES

measure() { # PROGRAM: lines "PROGRAM<tab>NAME<tab>instructions a unit"
    printf '%s: under callgrind ...\n' "$1" >&2
    valgrind -q --tool=callgrind --toggle-collect=measure_collected \
        --dump-after=measure_collected --callgrind-out-file="$out/$1.part" \
        "$BUILD/test/bench/$1" --count >"$out/$1.names" 2>"$out/$1.log" || {
        cat "$out/$1.log" >&2
        return 1
    }
    m_part=0
    while IFS='	' read -r m_name m_units; do
        m_part=$((m_part + 1))
        m_sum=$(sed -n 's/^summary: //p' "$out/$1.part.$m_part")
        printf '%s\t%s\t%s\n' "$1" "$m_name" \
            "$(((m_sum + m_units / 2) / m_units))"
    done <"$out/$1.names"
}

: >"$out/now"
for program in codec counted; do
    measure "$program" >>"$out/now" || fail "$program runs under callgrind" "$(cat "$out/$program.log")"
done

if [ -n "${UPDATE:-}" ] && [ "$FAILED" -eq 0 ]; then
    {
        echo '# Instructions a message, by callgrind: test/bench/check.sh makes this'
        echo '# table (make bench-check UPDATE=1) and compares with it.'
        echo "# made with: $have"
        cat "$out/now"
    } >"$out/table" && mv "$out/table" "$table"
    echo "$table is new."
fi

awk -F '\t' -v table="$table" '
    BEGIN {
        while ((getline line < table) > 0)
            if (line !~ /^#/ && split(line, f, "\t") == 3)
                old[f[1] "\t" f[2]] = f[3]
    }
    {
        key = $1 "\t" $2
        if (!(key in old)) {
            printf "?\t%s\t%d\t0\t0\n", $1 ": " $2, $3
            next
        }
        off = ($3 - old[key]) * 100 / (old[key] > 0 ? old[key] : 1)
        slack = 3 * (old[key] > 100 ? old[key] : 100) / 100
        way = $3 > old[key] + slack ? "+" : $3 < old[key] - slack ? "-" : "="
        printf "%s\t%s\t%d\t%d\t%+.1f\n", way, $1 ": " $2, $3, old[key], off
        delete old[key]
    }
    END { for (key in old) { sub(/\t/, ": ", key); printf "!\t%s\t0\t0\t0\n", key } }
' "$out/now" >"$out/verdicts"

while IFS='	' read -r way name now old off; do
    line=$(printf '%-46s %7d instructions (%s %%)' "$name" "$now" "$off")
    case $way in
    =) pass "$line" ;;
    +) fail "$line" "the table says $old" ;;
    -) fail "$line" "better than the table's $old: make bench-check UPDATE=1" ;;
    \?) fail "$line" 'not in the table: make bench-check UPDATE=1' ;;
    *) fail "$name" 'in the table, and not measured' ;;
    esac
done <"$out/verdicts"
total
