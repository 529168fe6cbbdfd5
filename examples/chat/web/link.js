/* SPDX-License-Identifier: MIT */
/* link.js -- the chat's way to its servers, without a word about the page.
 *
 * Entering takes two connections: the gate tells which connector is ours,
 * and the connector lets us into the room. When the second one is lost, the
 * whole way is gone again, with growing pauses, until leave() is called.
 *
 *     const link = new ChatLink(gatePort);
 *     link.onchat = (msg) => ...;       (and others, see the constructor)
 *     const users = await link.enter('alice', 'lobby');
 *     await link.send('hello', '*');
 *
 * Start reading at enter(). */
(function () {
'use strict';

const RETRY_MS_MIN = 1000;
const RETRY_MS_MAX = 10000;

class ChatLink {
    constructor(gatePort) {
        this.host = location.hostname || '127.0.0.1';
        this.gatePort = gatePort;
        this.client = null;
        this.retryMs = RETRY_MS_MIN;
        this.timer = 0;
        this.turn = null;
        this.where = null;
        this.onchat = this.onjoin = this.onleave = this.onping = () => {};
        this.onlost = () => {};  /* (reason, retry_ms) */
        this.onback = () => {};  /* (users) */
        this.onkick = () => {};  /* (reason); nothing is tried any more */
    }

    /* Resolves with the names in the room; rejects with an error whose
     * `taken` is true when the room already has a user of that name. */
    async enter(name, room) {
        this.name = name;
        this.room = room;
        return this.adopt(await this.connect());
    }

    async connect() {
        const where = await this.askGate(this.name);
        const client = new Pomelo();
        const early = { open: false, hands: [] };
        this.listen(client, early);
        await client.init({ host: where.host, port: where.port });
        const answer = await client.request('connector.entryHandler.enter',
            { username: this.name, rid: this.room });
        if (!answer || answer.error || !Array.isArray(answer.users)) {
            client.disconnect();
            throw this.refusal(answer || {});
        }
        return { client: client, early: early, where: where,
            users: answer.users.map(String) };
    }

    refusal(answer) {
        const error = new Error(answer.error ?
            '\u201c' + this.name + '\u201d is already in this room. ' +
            'Take another name.' :
            'The room does not open (code ' + answer.code + ').');
        error.taken = Boolean(answer.error);
        return error;
    }

    /* Pushes may have come in the same frame as the answer. They are handed
     * on after the list of users, which they change. */
    adopt(fresh) {
        this.client = fresh.client;
        this.where = fresh.where;
        this.retryMs = RETRY_MS_MIN;
        setTimeout(() => {
            fresh.early.open = true;
            fresh.early.hands.forEach((hand) => hand());
        }, 0);
        return fresh.users;
    }

    async askGate(name) {
        const gate = new Pomelo();
        await gate.init({ host: this.host, port: this.gatePort });
        const answer = await gate.request('gate.gateHandler.queryEntry',
            { uid: name });
        gate.disconnect();
        if (!answer || answer.code !== 200) {
            throw new Error('The gate has no connector for us right now.');
        }
        return { host: this.reachable(answer.host), port: answer.port };
    }

    /* A server table made for one machine says 127.0.0.1, which is another
     * machine for whoever opens the page on a phone. */
    reachable(host) {
        const local = /^(127\.|localhost$|0\.0\.0\.0$|\[?::1?\]?$)/;
        return !host || local.test(host) ? this.host : host;
    }

    listen(client, early) {
        const on = (route, hand) => client.on(route, (msg) => {
            if (early.open) {
                hand(msg);
            } else {
                early.hands.push(() => hand(msg));
            }
        });
        on('onChat', (msg) => this.onchat(msg));
        on('onAdd', (msg) => this.onjoin(String(msg.user)));
        on('onLeave', (msg) => this.onleave(String(msg.user)));
        client.on('heartbeat', (ms) => this.onping(ms));
        client.on('onKick', (msg) => {
            if (client === this.client) {
                this.leave();
                this.onkick(String(msg.reason || 'no reason given'));
            }
        });
        client.on('disconnect', (event) => {
            if (client === this.client) {
                this.client = null;
                this.retryLater(event.reason);
            }
        });
    }

    retryLater(reason) {
        this.onlost(reason, this.retryMs);
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.retry(), this.retryMs);
        this.retryMs = Math.min(this.retryMs * 2, RETRY_MS_MAX);
    }

    /* The name may still be taken by our own former connection, which the
     * server has not yet missed: then the next attempt will do. leave()
     * ends the turn, and what comes of it is thrown away. */
    async retry() {
        clearTimeout(this.timer);
        if (this.turn) {
            return;
        }
        const turn = this.turn = {};
        try {
            const fresh = await this.connect();
            if (this.turn !== turn) {
                fresh.client.disconnect();
                return;
            }
            this.turn = null;
            this.onback(this.adopt(fresh));
        } catch (error) {
            if (this.turn === turn) {
                this.turn = null;
                this.retryLater(error.taken ?
                    'the server still holds the old connection' :
                    error.message);
            }
        }
    }

    send(text, target) {
        if (!this.client) {
            return Promise.reject(new Error('not connected'));
        }
        return this.client.request('chat.chatHandler.send', { rid: this.room,
            content: text, from: this.name, target: target });
    }

    leave() {
        const client = this.client;
        clearTimeout(this.timer);
        this.turn = null;
        this.client = null;
        if (client) {
            client.disconnect();
        }
    }
}

window.ChatLink = ChatLink;
}());
