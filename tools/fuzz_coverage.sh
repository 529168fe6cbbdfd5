#!/bin/sh
# SPDX-License-Identifier: MIT
# fuzz_coverage.sh -- `make fuzz-coverage`: how far each fuzz target reaches
# into the files that it is for, by its corpus and by what `make fuzz` has found
# since (build/fuzz/corpus): lines run, branches taken.
set -u
FOUND=${BUILD:-build}/fuzz/corpus
BUILD=${BUILD:-build}/fuzz-coverage
MAKE=${MAKE:-make}
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES 2>/dev/null

files_of() {
    case $1 in
    admin) echo core/mqtt.c pomelo_admin.c pomelo_module.c pomelo_master.c pomelo_master_console.c \
        pomelo_master_spawn.c pomelo_master_round.c pomelo_master_words.c pomelo_monitor.c pomelo_console.c \
        pomelo_facts.c ;;
    client) echo pomelo_client.c pomelo_client_lore.c pomelo_dialect.c pomelo_dialect_decode.c core/frames.c ;;
    config) echo pomelo_config.c pomelo_config_run.c ;;
    dialect) echo pomelo_dialect.c pomelo_dialect_decode.c pomelo_dialect_encode.c ;;
    frame) echo pomelo_frame.c core/pb.c ;;
    handshake) echo pomelo_handshake.c ;;
    http) echo core/http.c core/ws.c ;;
    json) echo core/json.c core/json_print.c core/json_number.c core/json_keys.c core/utf8.c ;;
    mqtt) echo core/mqtt.c ;;
    package) echo pomelo_proto.c ;;
    proxy) echo core/proxy.c ;;
    tls) echo core/tls.c core/tls_realm.c ;;
    queue) echo core/queue.c ;;
    peer) echo pomelo_peer.c pomelo_rpc.c pomelo_call.c pomelo_remote.c pomelo_session_far.c \
        pomelo_presence.c pomelo_presence_far.c pomelo_push.c ;;
    rsa) echo core/crypto.c ;;
    server) echo pomelo_connector.c pomelo_downlink.c pomelo_meter.c pomelo_request.c pomelo_handler.c \
        pomelo_proto.c core/conn_read.c core/frames.c ;;
    ws) echo core/ws.c ;;
    esac
}

# `lines` and `branches` of one source, in percent, and its count of lines.
measured() { # SOURCE
    gcov -b -n -o "$BUILD/${1%.c}.o" "$1" 2>/dev/null | awk -v s="$1" '
        /^File / { mine = index($0, s) > 0 }
        mine && /^Lines executed/ { sub(/.*:/, ""); split($0, a, "%"); l = a[1]; n = $NF }
        mine && /^Taken at least once/ { sub(/.*:/, ""); split($0, a, "%"); b = a[1] }
        END { printf "%s %s %d\n", l, b, n }'
}

for name in $("$MAKE" -s print-FUZZ); do
    name=${name#fuzz_}
    program=$BUILD/test/fuzz/fuzz_$name
    "$MAKE" -s -j"${JOBS:-2}" BUILD="$BUILD" CC="${CC:-cc}" CFLAGS='-O0 -g --coverage' \
        LDFLAGS= WERROR= "$program" || exit 1
    find "$BUILD" -name '*.gcda' -exec rm -f {} +
    set -- "test/fuzz/corpus/$name"
    [ ! -d "$FOUND/$name" ] || set -- "$@" "$FOUND/$name"
    "$program" "$@" >/dev/null 2>&1 || { echo "fuzz-coverage: $name fails on its corpus"; exit 1; }
    printf '%s, %d inputs\n' "$name" "$(find "$@" -type f | wc -l)"
    for f in $(files_of "$name"); do
        # shellcheck disable=SC2046
        printf '    %-28s %7.1f%% of the lines %7.1f%% of the branches\t%d\n' "$f" $(measured "$f")
    done
done | awk -F '\t' '{ print $1 }'
