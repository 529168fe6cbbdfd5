#!/bin/sh
# SPDX-License-Identifier: MIT
# run.sh -- TLS of examples/hello as openssl's client sees it: versions,
# ciphers, tickets, renegotiation, what is refused. Certificates are made here.
# One line a test; the last one is "N passed, N failed".
set -u
cd "$(dirname "$0")/../.." || exit 1
. tools/tally.sh
BUILD=${BUILD:-build}
MAKE=${MAKE:-make}
dir=$(mktemp -d) || exit 1
hello=
ended() {
    [ -z "$hello" ] || kill "$hello" 2>/dev/null
    rm -rf "$dir"
}
trap ended EXIT

give_up() { # SENTENCE
    fail "$1"
    total
    exit 1
}

command -v openssl >/dev/null || give_up 'there is no openssl (make deps)'
"$MAKE" -s BUILD="$BUILD" "$BUILD/examples/hello/hello" >"$dir/make" 2>&1 ||
    give_up "hello does not build: $(cat "$dir/make")"

# ---- Certificates ---------------------------------------------------------

make_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1" 2>/dev/null; }
make_ca() { # NAME
    make_key "$dir/$1.key" &&
        openssl req -x509 -new -key "$dir/$1.key" -days 2 -subj "/CN=$1" \
            -out "$dir/$1.pem" 2>/dev/null
}
make_leaf() { # NAME AUTHORITY KEY-COMMAND...
    name=$1 by=$2
    shift 2
    "$@" && openssl req -new -key "$dir/$name.key" -subj "/CN=$name" \
        -out "$dir/$name.csr" 2>/dev/null &&
        printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' >"$dir/ext" &&
        openssl x509 -req -in "$dir/$name.csr" -CA "$dir/$by.pem" \
            -CAkey "$dir/$by.key" -CAcreateserial -days 2 -extfile "$dir/ext" \
            -out "$dir/$name.pem" 2>/dev/null
}
make_ca authority && make_ca stranger &&
    make_leaf curve authority make_key "$dir/curve.key" &&
    make_leaf rsa authority openssl genrsa -out "$dir/rsa.key" 2048 2>/dev/null ||
    give_up 'openssl makes no certificates'

# ---- The server -------------------------------------------------------------

serve() { # CERTIFICATE
    [ -z "$hello" ] || { kill "$hello"; wait "$hello"; }
    : >"$dir/out" # what the one before has said is not this one's word
    "$BUILD/examples/hello/hello" --port 0 --web-port 0 \
        --tls-cert "$dir/$1.pem" --tls-key "$dir/$1.key" >"$dir/out" 2>&1 &
    hello=$!
    tries=0
    until grep -q '^open ' "$dir/out"; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] && kill -0 "$hello" 2>/dev/null ||
            give_up "hello does not start: $(cat "$dir/out")"
        sleep 0.1
    done
    port=$(sed -n 's/.*[?]port=\([0-9]*\).*/\1/p' "$dir/out")
}

# s_client with a bound on its time; what it has said is in $dir/said.
client() { # ARGUMENTS...
    timeout 20 openssl s_client -connect "127.0.0.1:$port" \
        -CAfile "$dir/authority.pem" -verify_return_error -verify_hostname localhost \
        "$@" >"$dir/said" 2>&1
}
said() { grep -aq "$1" "$dir/said"; }

good() { # WHAT PATTERN ARGUMENTS...
    what=$1 pattern=$2
    shift 2
    if client "$@" </dev/null && said "$pattern" && said 'Verification: OK'; then
        pass "$what"
    else
        fail "$what" "$(head -n 40 "$dir/said")"
    fi
}
bad() { # WHAT PATTERN ARGUMENTS...
    what=$1 pattern=$2
    shift 2
    if client "$@" </dev/null || ! said "$pattern"; then
        fail "$what" "$(head -n 40 "$dir/said")"
    else
        pass "$what"
    fi
}

serve curve
good 'a curve: TLS 1.2, ECDHE, ChaCha20' \
    'Cipher is ECDHE-ECDSA-CHACHA20-POLY1305' -tls1_2
good 'AES-GCM for who wants it' 'Cipher is ECDHE-ECDSA-AES128-GCM-SHA256' \
    -tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256
good 'no compression' '^Compression: NONE' -tls1_2
bad 'TLS 1.1 is refused' 'alert protocol version' \
    -tls1_1 -cipher 'ALL:@SECLEVEL=0'
bad 'TLS 1.0 is refused' 'alert protocol version' \
    -tls1 -cipher 'ALL:@SECLEVEL=0'
bad 'no CBC' 'alert handshake failure' -tls1_2 -cipher ECDHE-ECDSA-AES128-SHA
bad 'nobody else is believed' 'verify error' -CAfile "$dir/stranger.pem"

# A ticket makes the next handshake short; the second time it is the server who
# says so.
if client -tls1_2 -sess_out "$dir/session" </dev/null &&
    client -tls1_2 -sess_in "$dir/session" </dev/null && said '^Reused, TLSv1.2'; then
    pass 'a ticket resumes'
else
    fail 'a ticket resumes' "$(grep -a 'New\|Reused' "$dir/said")"
fi

# "R" asks for a new handshake within the session.
{ printf 'R\n'; sleep 1; } | client -tls1_2
if said 'no renegotiation\|ssl3_read_bytes\|handshake failure' &&
    ! said 'Secure Renegotiation IS NOT'; then
    pass 'no renegotiation'
else
    fail 'no renegotiation' "$(tail -n 20 "$dir/said")"
fi

# The handshake of Pomelo, by hand: a package of type 1 and its answer.
body='{"sys":{"type":"sh","version":"1"}}'
{ printf "\001\000\000$(printf '\\%03o' ${#body})%s" "$body"; sleep 1; } |
    client -tls1_2 -quiet
if said '"code":200'; then
    pass 'Pomelo over TLS over TCP'
else
    fail 'Pomelo over TLS over TCP' "$(cat "$dir/said")"
fi
key=dGhlIHNhbXBsZSBub25jZQ==
{ printf 'GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n' "$key"
    sleep 1; } | client -tls1_2 -quiet
if said 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='; then
    pass 'the upgrade over TLS: wss'
else
    fail 'the upgrade over TLS: wss' "$(cat "$dir/said")"
fi

serve rsa
good 'RSA: ECDHE, ChaCha20' 'Cipher is ECDHE-RSA-CHACHA20-POLY1305' -tls1_2
bad 'no key exchange without forward secrecy' 'alert handshake failure' \
    -tls1_2 -cipher AES128-GCM-SHA256

kill "$hello"
if wait "$hello"; then
    pass 'the server ends well'
else
    fail 'the server ends well' "$(cat "$dir/out")"
fi
hello=
total
