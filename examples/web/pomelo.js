/* SPDX-License-Identifier: MIT */
/* pomelo.js -- a small Pomelo client for browsers, without dependencies.
 *
 *     const client = new Pomelo();
 *     await client.init({ host: 'localhost', port: 3010 });
 *     const answer = await client.request('connector.entryHandler.entry', {});
 *     client.on('onChat', (msg) => show(msg));
 *
 * A WebSocket frame carries packages, and a data package carries a message:
 *
 *     | type | length (3) | flag | id (varint)? | route? | body ... |
 *                          \________________ message ______________/
 *
 * The file is in that order: packages, messages, the protobuf dialect that
 * bodies may be written in, and last the client with its states:
 *
 *     closed -> connecting -> handshake -> working -> closed
 *
 * Start reading at Pomelo.init(). Plain ES2017, one global: Pomelo (and
 * `pomelo`, one client made in advance, as Pomelo's users are used to). */
(function (root) {
'use strict';

const PACKAGE = { HANDSHAKE: 1, ACK: 2, HEARTBEAT: 3, DATA: 4, KICK: 5 };
const MESSAGE = { REQUEST: 0, NOTIFY: 1, RESPONSE: 2, PUSH: 3 };
const HEAD_BYTES = 4;
const BODY_BYTES_MAX = 0xffffff;
const ROUTE_BYTES_MAX = 255;
const DEPTH_MAX = 32;

const encoder = new TextEncoder();
/* A leading U+FEFF is part of the text. */
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
const EMPTY = new Uint8Array(0);

function has(object, key) {
    return Object.prototype.hasOwnProperty.call(object, key);
}

/* ---- Packages ---------------------------------------------------------- */

function encodePackage(type, body) {
    if (body.length > BODY_BYTES_MAX) {
        throw new RangeError('the package is longer than 16 MiB');
    }
    const bytes = new Uint8Array(HEAD_BYTES + body.length);
    bytes[0] = type;
    bytes[1] = body.length >> 16;
    bytes[2] = body.length >> 8;
    bytes[3] = body.length;
    bytes.set(body, HEAD_BYTES);
    return bytes;
}

/* A server may put several packages into one frame. Each `body` and `bytes`
 * is a view of the frame, not a copy. */
function decodePackages(frame) {
    const packages = [];
    let at = 0;
    while (at < frame.length) {
        if (frame.length - at < HEAD_BYTES) {
            throw new Error('a package head is cut');
        }
        const start = at + HEAD_BYTES;
        const end = start +
            (frame[at + 1] << 16 | frame[at + 2] << 8 | frame[at + 3]);
        if (end > frame.length) {
            throw new Error('a package body is cut');
        }
        packages.push({
            type: frame[at],
            body: frame.subarray(start, end),
            bytes: frame.subarray(at, end)
        });
        at = end;
    }
    return packages;
}

/* ---- Messages ---------------------------------------------------------- */

/* `code` is the route's number in the dictionary; undefined sends the route
 * as text. Only requests carry an id. */
function encodeMessage(type, id, route, code, body) {
    const head = [type << 1 | (code === undefined ? 0 : 1)];
    if (type === MESSAGE.REQUEST) {
        writeVarint(head, id);
    }
    let name = EMPTY;
    if (code !== undefined) {
        head.push(code >> 8 & 0xff, code & 0xff);
    } else {
        name = encoder.encode(route);
        if (name.length > ROUTE_BYTES_MAX) {
            throw new RangeError('the route is longer than 255 bytes');
        }
        head.push(name.length);
    }
    const bytes = new Uint8Array(head.length + name.length + body.length);
    bytes.set(head, 0);
    bytes.set(name, head.length);
    bytes.set(body, head.length + name.length);
    return bytes;
}

/* `codes` maps dictionary numbers back to routes. */
function decodeMessage(bytes, codes) {
    const cursor = { bytes: bytes, at: 0 };
    const flag = readByte(cursor);
    const message = { type: flag >> 1 & 7, id: 0, route: null, body: EMPTY };
    if (message.type === MESSAGE.REQUEST || message.type === MESSAGE.RESPONSE) {
        message.id = readVarint(cursor);
    }
    if (message.type !== MESSAGE.RESPONSE) {
        if (flag & 1) {
            const code = readByte(cursor) << 8 | readByte(cursor);
            message.route = codes.get(code);
            if (message.route === undefined) {
                throw new Error('no route has the code ' + code);
            }
        } else {
            const length = readByte(cursor);
            const name = readBytes(cursor, length);
            if (name.length < length) {
                throw new Error('a route is cut');
            }
            message.route = decoder.decode(name);
        }
    }
    message.body = bytes.subarray(cursor.at);
    return message;
}

/* ---- Bytes ------------------------------------------------------------- */

/* Varints here are doubles: exact up to 2^53, never cut to 32 bits. */
function writeVarint(out, value) {
    while (value >= 128) {
        out.push(value % 128 | 128);
        value = Math.floor(value / 128);
    }
    out.push(value);
}

function readByte(cursor) {
    if (cursor.at >= cursor.bytes.length) {
        throw new Error('the data is cut');
    }
    return cursor.bytes[cursor.at++];
}

/* At the end there may be less: the dialect cuts strings there. */
function readBytes(cursor, count) {
    const bytes = cursor.bytes.subarray(cursor.at, cursor.at + count);
    cursor.at += bytes.length;
    return bytes;
}

function readVarint(cursor) {
    let value = 0;
    let scale = 1;
    let byte = 0;
    do {
        byte = readByte(cursor);
        value += (byte & 127) * scale;
        scale *= 128;
    } while (byte & 128);
    return value;
}

function readReal(cursor, size) {
    const view = new DataView(new ArrayBuffer(size));
    for (let i = 0; i < size; i++) {
        view.setUint8(i, readByte(cursor));
    }
    return size === 4 ? view.getFloat32(0, true) : view.getFloat64(0, true);
}

function writeReal(out, value, size) {
    const view = new DataView(new ArrayBuffer(size));
    if (size === 4) {
        view.setFloat32(0, value, true);
    } else {
        view.setFloat64(0, value, true);
    }
    for (let i = 0; i < size; i++) {
        out.push(view.getUint8(i));
    }
}

/* ---- Pomelo's protobuf dialect ----------------------------------------- */

/* Wire types of the scalars; strings and messages are 2. */
const WIRE = { uInt32: 0, int32: 0, sInt32: 0, float: 5, double: 1 };

/* Looks like protobuf, and is not: int32 is zig-zag, repeated numbers are
 * "key, COUNT, elements", and a reader goes by the schema, never by the wire
 * type (the classic browser client writes it wrongly). `schema` is the parsed
 * form that the handshake brings: route -> { field: {option, type, tag},
 * __messages, __tags }. */
class Dialect {
    constructor(schema) {
        this.schema = schema || {};
    }

    knows(route) {
        return has(this.schema, route);
    }

    encode(route, msg) {
        const out = [];
        this.writeMessage(out, this.schema[route], msg);
        return Uint8Array.from(out);
    }

    decode(route, bytes) {
        const cursor = { bytes: bytes, at: 0 };
        return this.readMessage(cursor, bytes.length, this.schema[route], 0);
    }

    /* A type's own inner messages come first, then the shared ones; the
     * messages around it are not searched. */
    find(schema, type) {
        const inner = schema.__messages || {};
        return has(inner, type) ? inner[type] : this.schema['message ' + type];
    }

    writeMessage(out, schema, msg) {
        if (msg === null || typeof msg !== 'object') {
            throw new TypeError('a message must be an object');
        }
        for (const name of Object.keys(schema)) {
            if (schema[name].option === 'required' && msg[name] === undefined) {
                throw new TypeError('the field ' + name + ' is required');
            }
        }
        for (const name of Object.keys(msg)) {
            const field = has(schema, name) ? schema[name] : {};
            if (field.tag !== undefined && msg[name] !== undefined) {
                this.writeField(out, schema, field, msg[name]);
            }
        }
    }

    writeField(out, schema, field, value) {
        const wire = has(WIRE, field.type) ? WIRE[field.type] : 2;
        const key = field.tag * 8 + wire;
        const packed = wire !== 2;
        if (field.option !== 'repeated') {
            writeVarint(out, key);
            this.writeValue(out, schema, field.type, value);
            return;
        }
        if (packed && value.length > 0) {
            writeVarint(out, key);
            writeVarint(out, value.length);
        }
        for (let i = 0; i < value.length; i++) {
            if (!packed) {
                writeVarint(out, key);
            }
            this.writeValue(out, schema, field.type, value[i]);
        }
    }

    writeValue(out, schema, type, value) {
        if (type === 'uInt32' || type === 'int32' || type === 'sInt32') {
            const n = parseInt(value);
            if (isNaN(n) || (type === 'uInt32' && n < 0)) {
                throw new TypeError(value + ' is not of type ' + type);
            }
            const zigzag = n < 0 ? -2 * n - 1 : 2 * n;
            writeVarint(out, type === 'uInt32' ? n : zigzag);
        } else if (type === 'float' || type === 'double') {
            writeReal(out, Number(value), type === 'float' ? 4 : 8);
        } else if (type === 'string') {
            if (typeof value !== 'string') {
                throw new TypeError(value + ' is not a string');
            }
            this.writeSized(out, encoder.encode(value));
        } else if (this.find(schema, type)) {
            const inner = [];
            this.writeMessage(inner, this.find(schema, type), value);
            this.writeSized(out, inner);
        }
    }

    writeSized(out, bytes) {
        writeVarint(out, bytes.length);
        for (let i = 0; i < bytes.length; i++) {
            out.push(bytes[i]);
        }
    }

    readMessage(cursor, end, schema, depth) {
        if (depth > DEPTH_MAX) {
            throw new RangeError('the message is nested too deep');
        }
        const msg = {};
        while (cursor.at < end) {
            const tag = Math.floor(readVarint(cursor) / 8);
            if (!has(schema.__tags, tag)) {
                throw new Error('no field has the tag ' + tag);
            }
            const name = schema.__tags[tag];
            const field = schema[name];
            if (field.option !== 'repeated') {
                msg[name] = this.readValue(cursor, schema, field.type, depth);
                continue;
            }
            msg[name] = has(msg, name) ? msg[name] : [];
            let count = has(WIRE, field.type) ? readVarint(cursor) : 1;
            for (; count > 0; count--) {
                msg[name].push(
                    this.readValue(cursor, schema, field.type, depth));
            }
        }
        return msg;
    }

    readValue(cursor, schema, type, depth) {
        if (type === 'uInt32') {
            return readVarint(cursor);
        }
        if (type === 'int32' || type === 'sInt32') {
            const n = readVarint(cursor);
            return n % 2 ? -(n + 1) / 2 : n / 2;
        }
        if (type === 'float' || type === 'double') {
            return readReal(cursor, type === 'float' ? 4 : 8);
        }
        if (type === 'string') {
            return decoder.decode(readBytes(cursor, readVarint(cursor)));
        }
        const inner = this.find(schema, type);
        if (!inner) {
            return undefined;
        }
        const end = readVarint(cursor) + cursor.at;
        return this.readMessage(cursor, Math.min(end, cursor.bytes.length),
            inner, depth + 1);
    }
}

/* ---- The client -------------------------------------------------------- */

/* Events: every push arrives under its route, and besides
 *
 *   disconnect         {reason, asked}; once for each connection that worked
 *   io-error           the socket failed, or the server sent nonsense
 *   heartbeat timeout  the server fell silent; a disconnect follows
 *   onKick             {reason}; the server is about to close
 *   heartbeat          round trip in ms, or undefined for the first one
 *   wire               {dir, name, bytes, id, route, msg}: each package, for
 *                      those who like to watch */
class Pomelo {
    constructor() {
        this.listeners = new Map();
        this.state = 'closed';
        this.socket = null;
        this.timers = {};
        this.pending = new Map();
    }

    on(event, listener) {
        const list = this.listeners.get(event) || [];
        this.listeners.set(event, list.concat([listener]));
        return this;
    }

    off(event, listener) {
        const list = this.listeners.get(event) || [];
        this.listeners.set(event, list.filter((one) => one !== listener));
        return this;
    }

    /* A listener that throws is the page's own mistake: it shows up in the
     * console, and the connection lives on. */
    emit(event, ...args) {
        for (const listener of this.listeners.get(event) || []) {
            try {
                listener(...args);
            } catch (error) {
                setTimeout(() => { throw error; }, 0);
            }
        }
    }

    /* Connect and shake hands.
     *
     *   host, port   where; or url, whole
     *   secure       true: wss. Default: what the page itself uses.
     *   user         handed to the server's own handshake callback
     *   sys          added to what we tell about ourselves
     *   timeout_ms   for all of it; 10,000 by default
     *
     * Resolves with the `user` part of the server's answer; rejects when the
     * server can not be reached or refuses. `cb`, if given, gets the same. */
    init(params, cb) {
        this.disconnect();
        const scheme = (params.secure === undefined ?
            root.location && root.location.protocol === 'https:' :
            params.secure) ? 'wss' : 'ws';
        this.params = params;
        this.url = params.url || scheme + '://' + params.host + ':' +
            params.port;
        this.sys = {};
        this.nextId = 1;
        this.heartbeatSentAt = 0;
        const ready = new Promise((resolve, reject) => {
            this.ready = { resolve: resolve, reject: reject };
        });
        this.open();
        if (cb) {
            ready.then(cb, () => {});
        }
        return ready;
    }

    open() {
        const socket = new WebSocket(this.url);
        socket.binaryType = 'arraybuffer';
        this.socket = socket;
        this.state = 'connecting';
        /* An event of a socket that we have already left means nothing. */
        const mine = (handle) => (event) => {
            if (this.socket === socket) {
                handle(event);
            }
        };
        socket.onopen = mine(() => this.sendHandshake());
        socket.onmessage = mine((event) => this.receive(event.data));
        socket.onerror = mine(() => this.emit('io-error',
            new Error('can not reach ' + this.url)));
        socket.onclose = mine((event) => this.finish(
            event.reason || (this.state === 'connecting' ?
                'can not reach ' + this.url : 'closed by the server')));
        this.timers.handshake = setTimeout(
            () => this.finish('no handshake in time'),
            this.params.timeout_ms || 10000);
    }

    /* Ask, and get the answer as a promise (and by `cb`, if given). The
     * promise rejects when the connection ends first. */
    request(route, msg, cb) {
        const answer = new Promise((resolve, reject) => {
            const id = this.nextId++;
            this.sendMessage(MESSAGE.REQUEST, id, route, msg);
            this.pending.set(id,
                { route: route, resolve: resolve, reject: reject });
        });
        if (cb) {
            answer.then(cb, () => {});
        }
        return answer;
    }

    /* Tell, and expect no answer. */
    notify(route, msg) {
        this.sendMessage(MESSAGE.NOTIFY, 0, route, msg);
    }

    disconnect() {
        if (this.socket) {
            this.finish('asked to', true);
        }
    }

    /* The only way out: from every state, exactly once a connection. */
    finish(reason, asked) {
        const socket = this.socket;
        const worked = this.state === 'working';
        const pending = this.pending;
        if (!socket) {
            return;
        }
        this.socket = null;
        this.state = 'closed';
        this.pending = new Map();
        Object.keys(this.timers).forEach((name) => this.disarm(name));
        socket.close();
        const error = new Error(reason);
        this.ready.reject(error);
        pending.forEach((request) => request.reject(error));
        if (worked) {
            this.emit('disconnect', { reason: reason, asked: Boolean(asked) });
        }
    }

    disarm(name) {
        clearTimeout(this.timers[name]);
        delete this.timers[name];
    }

    /* ---- Sending ---- */

    send(type, body, note) {
        const bytes = encodePackage(type, body);
        this.socket.send(bytes);
        this.tap('out', bytes, note);
    }

    tap(dir, bytes, note) {
        if (this.listeners.has('wire')) {
            this.emit('wire', Object.assign({ dir: dir, bytes: bytes }, note));
        }
    }

    sendHandshake() {
        const sys = { type: 'pomelo-c-web', version: '0.1.0' };
        const hello = { sys: Object.assign(sys, this.params.sys) };
        if (this.params.user !== undefined) {
            hello.user = this.params.user;
        }
        this.state = 'handshake';
        this.send(PACKAGE.HANDSHAKE, encoder.encode(JSON.stringify(hello)),
            { name: 'handshake', msg: hello });
    }

    sendMessage(type, id, route, msg) {
        if (this.state !== 'working') {
            throw new Error('not connected');
        }
        const value = msg === undefined ? {} : msg;
        const body = this.outgoing.knows(route) ?
            this.outgoing.encode(route, value) :
            encoder.encode(JSON.stringify(value));
        const code = has(this.dict, route) ? this.dict[route] : undefined;
        const name = type === MESSAGE.REQUEST ? 'request' : 'notify';
        this.send(PACKAGE.DATA, encodeMessage(type, id, route, code, body),
            { name: name, id: id, route: route, msg: value });
    }

    sendHeartbeat() {
        this.heartbeatSentAt = performance.now();
        this.send(PACKAGE.HEARTBEAT, EMPTY, { name: 'heartbeat' });
        this.watch();
    }

    /* ---- Receiving ---- */

    receive(data) {
        const socket = this.socket;
        try {
            const frame = typeof data === 'string' ?
                encoder.encode(data) : new Uint8Array(data);
            for (const one of decodePackages(frame)) {
                /* A listener may have left the connection meanwhile. */
                if (this.socket === socket) {
                    this.disarm('silence');
                    this.onPackage(one);
                }
            }
        } catch (error) {
            if (this.socket === socket) {
                this.emit('io-error', error);
                this.finish(error.message);
            }
        }
    }

    onPackage(one) {
        if (one.type === PACKAGE.HANDSHAKE && this.state === 'handshake') {
            this.onHandshake(one);
        } else if (one.type === PACKAGE.HEARTBEAT) {
            this.onHeartbeat(one);
        } else if (one.type === PACKAGE.DATA) {
            this.onData(one);
        } else if (one.type === PACKAGE.KICK) {
            const msg = parse(one.body);
            this.tap('in', one.bytes, { name: 'kick', msg: msg });
            this.emit('onKick', msg);
        }
    }

    onHandshake(one) {
        const answer = parse(one.body);
        this.tap('in', one.bytes, { name: 'handshake', msg: answer });
        if (answer.code !== 200) {
            this.finish(answer.code === 501 ?
                'the server does not take this client\'s version' :
                'the server refused the handshake');
            return;
        }
        this.sys = answer.sys || {};
        this.dict = this.sys.dict || {};
        this.codes = new Map(Object.keys(this.dict).map(
            (route) => [this.dict[route], route]));
        const protos = this.sys.protos || {};
        this.outgoing = new Dialect(protos.client);
        this.incoming = new Dialect(protos.server);
        this.disarm('handshake');
        this.state = 'working';
        this.send(PACKAGE.ACK, EMPTY, { name: 'handshake ack' });
        this.watch();
        this.ready.resolve(answer.user);
    }

    /* The server answers each heartbeat with one; the first comes right
     * after our acknowledgement. A server without heartbeats announces no
     * interval, and then nothing here ever runs. Timers are armed by what
     * arrives, never by each other: browsers slow down chains of timers in
     * pages that are not looked at, and the server would think us gone. */
    onHeartbeat(one) {
        this.tap('in', one.bytes, { name: 'heartbeat' });
        this.emit('heartbeat', this.heartbeatSentAt ?
            performance.now() - this.heartbeatSentAt : undefined);
        this.heartbeatSentAt = 0;
        if (this.sys.heartbeat > 0 && !this.timers.heartbeat &&
            this.state === 'working') {
            this.timers.heartbeat = setTimeout(() => {
                this.disarm('heartbeat');
                this.sendHeartbeat();
            }, this.sys.heartbeat * 1000);
        }
    }

    /* Whatever arrives next ends the watch. */
    watch() {
        if (this.sys.heartbeat > 0 && !this.timers.silence) {
            this.timers.silence = setTimeout(() => {
                this.emit('heartbeat timeout');
                this.finish('heartbeat timeout');
            }, this.sys.heartbeat * 2000);
        }
    }

    onData(one) {
        const message = decodeMessage(one.body, this.codes);
        if (message.type === MESSAGE.RESPONSE) {
            this.onResponse(one, message);
        } else if (message.type === MESSAGE.PUSH) {
            this.onPush(one, message);
        }
    }

    onResponse(one, message) {
        const request = this.pending.get(message.id);
        if (!request) {
            return;
        }
        this.pending.delete(message.id);
        try {
            const msg = this.read(request.route, message.body);
            this.tap('in', one.bytes, { name: 'response', id: message.id,
                route: request.route, msg: msg });
            request.resolve(msg);
        } catch (error) {
            request.reject(error);
        }
    }

    /* A body that can not be read is lost, but the next one may be fine. */
    onPush(one, message) {
        let msg;
        try {
            msg = this.read(message.route, message.body);
        } catch (error) {
            this.emit('io-error', error);
            return;
        }
        this.tap('in', one.bytes,
            { name: 'push', route: message.route, msg: msg });
        this.emit(message.route, msg);
    }

    /* Nothing in a message tells JSON from protobuf: the route decides. */
    read(route, body) {
        return this.incoming.knows(route) ?
            this.incoming.decode(route, body) : parse(body);
    }
}

function parse(body) {
    return body.length > 0 ? JSON.parse(decoder.decode(body)) : {};
}

Pomelo.Dialect = Dialect;
Pomelo.codec = { encodePackage: encodePackage, decodePackages: decodePackages,
    encodeMessage: encodeMessage, decodeMessage: decodeMessage };
root.Pomelo = Pomelo;
root.pomelo = new Pomelo();
}(typeof self !== 'undefined' ? self : globalThis));
