/* SPDX-License-Identifier: MIT */
/* page.js -- asks the gate for a connector, enters a room there, and shows
 * what is said. ?gate=PORT names another gate than the page's own. */
(function () {
'use strict';

const $ = (id) => document.getElementById(id);
const gatePort = Number(new URLSearchParams(location.search).get('gate')) ||
    Number(document.body.dataset.gate);
const host = location.hostname || '127.0.0.1';
let client = null;

function state(text) {
    $('state').textContent = text;
}

function line(text, note) {
    const row = document.createElement('p');
    row.textContent = text;
    row.className = note ? 'note' : '';
    $('log').append(row);
    $('log').scrollTop = $('log').scrollHeight;
}

function addUser(name) {
    const item = document.createElement('li');
    item.textContent = name;
    item.dataset.user = name;
    $('users').append(item);
}

function removeUser(name) {
    Array.from($('users').children)
        .filter((item) => item.dataset.user === name)
        .forEach((item) => item.remove());
}

async function askGate(uid) {
    const gate = new Pomelo();
    await gate.init({ host: host, port: gatePort });
    const answer = await gate.request('gate.gateHandler.queryEntry',
        { uid: uid });
    gate.disconnect();
    if (answer.code !== 200) {
        throw new Error('the gate has no connector');
    }
    return answer;
}

function listen(one) {
    one.on('onChat', (msg) => line(msg.from + ': ' + msg.msg));
    one.on('onAdd', (msg) => {
        addUser(msg.user);
        line(msg.user + ' has entered', true);
    });
    one.on('onLeave', (msg) => {
        removeUser(msg.user);
        line(msg.user + ' has left', true);
    });
    one.on('disconnect', () => {
        if (one === client) {
            leave('the connection is lost');
        }
    });
}

function leave(why) {
    client = null;
    $('login').hidden = false;
    $('talk').hidden = true;
    $('users').replaceChildren();
    state(why);
}

async function enter(name, room) {
    const where = await askGate(name);
    const one = new Pomelo();
    listen(one);
    await one.init({ host: host, port: where.port });
    const answer = await one.request('connector.entryHandler.enter',
        { username: name, rid: room });
    if (!Array.isArray(answer.users)) {
        one.disconnect();
        throw new Error('the room does not open (code ' + answer.code + ')');
    }
    client = one;
    answer.users.forEach(addUser);
    $('login').hidden = true;
    $('talk').hidden = false;
    $('text').focus();
    state('in ' + room + ', through port ' + where.port);
}

$('login').addEventListener('submit', (event) => {
    event.preventDefault();
    state('connecting');
    enter($('name').value.trim(), $('room').value.trim())
        .catch((error) => leave(error.message));
});

$('talk').addEventListener('submit', (event) => {
    event.preventDefault();
    client.request('chat.chatHandler.send',
        { content: $('text').value, target: '*' })
        .catch((error) => line(error.message, true));
    $('text').value = '';
});
}());
