# SPDX-License-Identifier: MIT
# tally.sh -- how every script of ours reports: one line a check, the failing
# one with what it had to say, and last of all "N passed, N failed". Sourced.

PASSED=0
FAILED=0

pass() { # NAME
    PASSED=$((PASSED + 1))
    printf '  ok    %s\n' "$1"
}

fail() { # NAME [TEXT]
    FAILED=$((FAILED + 1))
    printf '  FAIL  %s\n' "$1"
    [ -z "${2:-}" ] || printf '%s\n' "$2" | head -n 20 | sed 's/^/          /'
}

# Passes when TEXT is empty: what is wrong is listed in it.
verdict() { # NAME TEXT
    if [ -z "$2" ]; then pass "$1"; else fail "$1" "$2"; fi
}

# Runs a command; passes when it says yes.
try() { # NAME COMMAND...
    try_name=$1
    shift
    if try_out=$("$@" 2>&1 </dev/null); then
        pass "$try_name"
    else
        fail "$try_name" "$try_out"
    fi
}

# Adds the totals of a script whose output ended with our last line.
add_total() { # NAME LINE STATUS
    case $2 in
    *[0-9]" passed, "[0-9]*" failed")
        add_ok=${2%% passed*}
        add_bad=${2##*passed, }
        add_bad=${add_bad%% failed*}
        PASSED=$((PASSED + add_ok))
        FAILED=$((FAILED + add_bad))
        [ "$3" -eq 0 ] || [ "$add_bad" -gt 0 ] ||
            fail "$1" "it ended with status $3"
        ;;
    *)
        if [ "$3" -eq 0 ]; then pass "$1"; else fail "$1" "status $3"; fi
        ;;
    esac
}

total() {
    printf '%s passed, %s failed\n' "$PASSED" "$FAILED"
    [ "$FAILED" -eq 0 ] && [ "$PASSED" -gt 0 ]
}
