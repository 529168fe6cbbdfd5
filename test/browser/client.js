/* SPDX-License-Identifier: MIT */
/* client.js -- examples/web/pomelo.js alone, against a server that is only a
 * few lines in the page: what C servers rarely do, and others may. */
'use strict';

const assert = require('assert');
const path = require('path');

const CLIENT = path.resolve(__dirname, '../../examples/web/pomelo.js');

/* Runs in the page. `serve(sys)` makes a client whose server has answered the
 * handshake with that `sys`; server.say() sends one frame of packages. */
function installServer() {
    const { encodePackage, decodePackages } = Pomelo.codec;
    const text = new TextEncoder();
    window.WebSocket = class {
        constructor() {
            this.sent = [];
            window.server = this;
            setTimeout(() => this.onopen(), 0);
        }

        send(bytes) {
            this.sent.push(decodePackages(bytes)[0]);
            if (this.sent.length === 1) {
                this.say([1, JSON.stringify(window.greeting)]);
            }
        }

        close() {
            this.closed = true;
        }

        say(...packages) {
            const parts = packages.map(([type, body]) => encodePackage(type,
                typeof body === 'string' ? text.encode(body) :
                    Uint8Array.from(body || [])));
            const all = [].concat(...parts.map((one) => Array.from(one)));
            setTimeout(() => this.onmessage(
                { data: Uint8Array.from(all).buffer }), 0);
        }
    };
    window.bytes = (text2) => Array.from(text.encode(text2));
    window.serve = async (sys) => {
        const client = new Pomelo();
        window.greeting = { code: 200, sys: sys, user: { from: 'server' } };
        const user = await client.init({ host: 'x', port: 1 });
        return { client, user, server: window.server };
    };
}

async function withoutHeartbeat() {
    const { client, user, server } = await serve({});
    const answer = client.request('a.b.c', { n: 1 });
    server.say([4, [4, 1].concat(bytes('{"ok":true}'))]);
    return { user, answer: await answer, types: server.sent.map((p) => p.type),
        timers: Object.keys(client.timers),
        sent: String.fromCharCode(...server.sent[2].body) };
}

/* An answer and a push in one frame, both with the dictionary's numbers. */
async function dictionary() {
    const { client, server } = await serve({ dict: { 'a.b.c': 1, onX: 258 } });
    const pushed = new Promise((resolve) => client.on('onX', resolve));
    const answer = client.request('a.b.c', {});
    server.say([4, [4, 1].concat(bytes('{"n":2}'))],
        [4, [7, 1, 2].concat(bytes('{"n":3}'))]);
    return { sent: Array.from(server.sent[2].body), answer: await answer,
        push: await pushed };
}

async function protobuf() {
    const field = (option, type, tag) => ({ option, type, tag });
    const schema = {
        n: field('required', 'int32', 1), s: field('optional', 'string', 2),
        l: field('repeated', 'uInt32', 3), p: field('optional', 'P', 4),
        __messages: { P: { d: field('optional', 'double', 1), __messages: {},
            __tags: { 1: 'd' } } },
        __tags: { 1: 'n', 2: 's', 3: 'l', 4: 'p' }
    };
    const { client, server } = await serve({ protos:
        { client: { 'a.b.c': schema }, server: { onX: schema } } });
    const msg = { n: -3, s: '\u00e9\u{1f34a}', l: [1, 300], p: { d: 0.5 } };
    const pushed = new Promise((resolve) => client.on('onX', resolve));
    client.notify('a.b.c', msg);
    const body = Array.from(server.sent[2].body).slice(7);
    server.say([4, [6, 3].concat(bytes('onX'), body)]);
    let refused = '';
    await client.request('a.b.c', {}).catch((e) => { refused = e.message; });
    return { msg, body, push: await pushed, refused };
}

async function silence() {
    const { client, server } = await serve({ heartbeat: 0.05 });
    const seen = [];
    client.on('heartbeat timeout', () => seen.push('timeout'));
    const gone = new Promise((resolve) => client.on('disconnect', resolve));
    const lost = client.request('a.b.c', {}).catch((error) => error.message);
    server.say([3, []]);
    return { gone: await gone, lost: await lost, seen, closed: server.closed,
        beats: server.sent.filter((one) => one.type === 3).length };
}

async function trouble() {
    window.greeting = { code: 501 };
    const old = await new Pomelo().init({ host: 'x', port: 1 })
        .catch((error) => error.message);
    const { client, server } = await serve({});
    const seen = [];
    client.on('onKick', (msg) => seen.push(msg.reason));
    client.on('io-error', () => seen.push('io-error'));
    const gone = new Promise((resolve) => client.on('disconnect', resolve));
    server.say([5, '{"reason":"enough"}'], [4, [6, 200]]);
    await gone;
    return { old, seen, state: client.state };
}

module.exports = async (t) => {
    const { page, mistakes } = await t.page();
    await page.addScriptTag({ path: CLIENT });
    await page.evaluate(installServer);

    await t.check('a server without heartbeats', async () => {
        assert.deepStrictEqual(await page.evaluate(withoutHeartbeat), {
            user: { from: 'server' }, answer: { ok: true },
            types: [1, 2, 4], timers: [],
            sent: '\u0000\u0001\u0005a.b.c{"n":1}' });
    });
    await t.check('dictionary, both ways, two packages a frame', async () => {
        assert.deepStrictEqual(await page.evaluate(dictionary), {
            sent: [1, 1, 0, 1, 0x7b, 0x7d], answer: { n: 2 },
            push: { n: 3 } });
    });
    await t.check('protobuf, both ways', async () => {
        const seen = await page.evaluate(protobuf);
        assert.deepStrictEqual(seen.push, seen.msg);
        assert.strictEqual(Buffer.from(seen.body).toString('hex'),
            '08051206c3a9f09f8d8a180201ac02' + '220909000000000000e03f');
        assert.match(seen.refused, /required/);
    });
    await t.check('silence ends the connection and its requests', async () => {
        const seen = await page.evaluate(silence);
        assert.deepStrictEqual(seen, {
            gone: { reason: 'heartbeat timeout', asked: false },
            lost: 'heartbeat timeout', seen: ['timeout'], closed: true,
            beats: 1 });
    });
    await t.check('refusal, kick and nonsense', async () => {
        const seen = await page.evaluate(trouble);
        assert.match(seen.old, /version/);
        assert.strictEqual(seen.state, 'closed');
        assert.deepStrictEqual(seen.seen, ['enough', 'io-error']);
        assert.deepStrictEqual(mistakes, []);
    });
};
