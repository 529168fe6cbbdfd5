# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154
# run.sh -- the rows with Pomelo on Node; a part of ../run.sh, which sources it.
# Pomelo comes by npm into build/pomelo; without npm or network the rows are
# left out. It runs as shipped, and in its best tuning: TCP_NODELAY between its
# servers, which it leaves off, and its own bufferMsg.

pomelo_dir=$BUILD/pomelo

pomelo_install() {
    command -v npm >/dev/null && command -v node >/dev/null || return
    mkdir -p "$pomelo_dir"/app/servers/{connector/handler,chat/handler,chat/remote} "$pomelo_dir/config" "$pomelo_dir/logs"
    cp test/bench/pomelo/app.js "$pomelo_dir"
    cp test/bench/pomelo/entryHandler.js "$pomelo_dir/app/servers/connector/handler"
    cp test/bench/pomelo/chatHandler.js "$pomelo_dir/app/servers/chat/handler"
    cp test/bench/pomelo/chatRemote.js "$pomelo_dir/app/servers/chat/remote"
    cd "$pomelo_dir" || return
    [ -f package.json ] || echo '{"name":"bench","version":"1.0.0","private":true}' >package.json
    echo "{\"id\":\"master-1\",\"host\":\"127.0.0.1\",\"port\":$((BASE + 4905))}" >config/master.json
    echo "{\"connector\":[{\"id\":\"connector-1\",\"host\":\"127.0.0.1\",\"port\":$((BASE + 4950)),\"clientPort\":$POMELO,\"frontend\":true}],\"chat\":[{\"id\":\"chat-1\",\"host\":\"127.0.0.1\",\"port\":$((BASE + 4960))}]}" >config/servers.json
    echo '{"appenders":[{"type":"console"}],"levels":{"[all]":"ERROR"},"replaceConsole":false}' >config/log4js.json
    echo '[{"id":"user-1","username":"admin","password":"admin","level":1}]' >config/adminUser.json
    echo '[{"type":"connector","token":"bench"},{"type":"chat","token":"bench"}]' >config/adminServer.json
    echo '["onChat"]' >config/dictionary.json
    [ -d node_modules/pomelo ] || npm install --no-audit --no-fund pomelo@2.2.7 >npm.log 2>&1
}

pomelo_pids() { cat "$pomelo_dir"/{master-1,connector-1,chat-1}.pid 2>/dev/null | tr '\n' ' '; }

pomelo_start() { # TUNED(0|1)
    rm -f "$pomelo_dir"/*.pid "$pomelo_dir"/*.up
    (cd "$pomelo_dir" && TUNED=$1 NODE_ENV=production exec node app.js env=production >out.log 2>&1 </dev/null) &
    for _ in $(seq 200); do
        [ -e "$pomelo_dir/connector-1.up" ] && [ -e "$pomelo_dir/chat-1.up" ] && break
        sleep 0.1
    done
    [ -e "$pomelo_dir/chat-1.up" ] || return
    sleep 3 # its servers learn of each other a moment later
    pids="$pids $(pomelo_pids)"
    pomelo_front=$(cat "$pomelo_dir/connector-1.pid")
    pomelo_both=$pomelo_front,$(cat "$pomelo_dir/chat-1.pid")
}

# They are nobody's children here: looked at until they are gone.
pomelo_stop() {
    local p left
    for _ in $(seq 50); do
        left=
        for p in $(pomelo_pids); do
            [ -d "/proc/$p" ] && kill "$p" 2>/dev/null && left=$p
        done
        [ -z "$left" ] && break
        sleep 0.1
    done
    # shellcheck disable=SC2046
    [ -z "$left" ] || kill -9 $(pomelo_pids) 2>/dev/null
    for p in $(pomelo_pids); do pids=$(printf '%s' "$pids" | sed "s/\b$p\b//"); done
    rm -f "$pomelo_dir"/*.pid
}

cheaper() { # NAME AT-LEAST POMELO-PIDS OUR-PIDS ARGS
    local a b r line
    : >"$dir/ours"
    : >"$dir/base"
    for i in $(seq "$RUNS"); do
        progress "$1: $i of $RUNS"
        # shellcheck disable=SC2086
        load "$dir/ours" $5 --port "$FRONT" --pid "$4" --secs "$SECS" || return
        # shellcheck disable=SC2086
        load "$dir/base" $5 --port "$POMELO" --pid "$3" --secs 3 || return
    done
    progress ''
    a=$(field cpu_us <"$dir/ours" | median)
    b=$(field cpu_us <"$dir/base" | median)
    r=$(div "$b" "$a")
    line=$(printf '%8.3f us, Pomelo %8.3f us: %.0f times cheaper' "$a" "$b" "$r")
    [ "$2" = 0 ] || line="$line (at least $2)"
    plain "$1" "$(at_most "$2" "$r")" "$line"
}

pomelo_rows() { # LABEL LIMIT
    cheaper "forwarded JSON, 16 outstanding, Pomelo $1" "$2" "$pomelo_both" "$both" \
        'echo --window 16 --route chat.chatHandler.echo'
    cheaper "echo JSON, 16 outstanding, Pomelo $1" 0 "$pomelo_front" "$front" 'echo --window 16'
    cheaper "push to 1,000 members, Pomelo $1" 0 "$pomelo_both" "$both" 'fanout --conns 1000 --window 4'
}

POMELO=$((BASE + 4910))
if (pomelo_install); then
    say ''
    say "Pomelo 2.2.7 on Node $(node --version), CPU of connector and chat, per unit"
    for tuned in 0 1; do
        if pomelo_start "$tuned"; then
            cluster
            [ "$tuned" = 0 ] && pomelo_rows 'as shipped' 30 || pomelo_rows 'best tuned' 12
            # shellcheck disable=SC2046
            gone $(echo "$both" | tr , ' ')
        else
            say "Pomelo does not start; see $pomelo_dir/out.log"
        fi
        pomelo_stop
    done
else
    say "Pomelo could not be brought by npm: its rows are left out ($pomelo_dir/npm.log)"
fi
