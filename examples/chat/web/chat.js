/* SPDX-License-Identifier: MIT */
/* chat.js -- the chat page: the door, the room, the people in it.
 *
 * The gate is looked for at port 3014 of the host that served this page;
 * `?port=` names another, `?room=` and `?name=` fill in the door. What goes
 * over the wire is in link.js. Nothing from the wire ever becomes HTML: text
 * is put in as text. Start reading at enter(), then addMessage(). */
(function () {
'use strict';

const EVERYONE = '*';
const ROWS_MAX = 1000;
const GROUP_MS = 120000;
const query = new URLSearchParams(location.search);
const link = new ChatLink(Number(query.get('port')) || 3014);

const $ = (id) => document.getElementById(id);
const users = new Set();
let me = '';
let room = '';
let target = EVERYONE;
let unread = 0;
let last = null;
let countdown = 0;

function make(tag, className, text) {
    const element = document.createElement(tag);
    element.className = className;
    element.textContent = text;
    return element;
}

/* The same name has the same colour in every browser. Hues are spread by
 * the golden angle, since near hashes should not give near colours. */
function hue(name) {
    let hash = 0;
    for (const letter of name) {
        hash = (hash * 31 + letter.codePointAt(0)) % 65521;
    }
    return Math.round(hash * 137.508 % 360);
}

/* ---- The door ---------------------------------------------------------- */

function remember(key, value) {
    try {
        localStorage.setItem('pomelo-chat-' + key, value);
    } catch (error) {
        /* A browser may keep nothing; then the form starts empty. */
    }
}

function recall(key) {
    try {
        return query.get(key) || localStorage.getItem('pomelo-chat-' + key);
    } catch (error) {
        return query.get(key);
    }
}

function showLoginError(text) {
    $('login-error').hidden = !text;
    $('login-error').textContent = text;
}

async function enter(event) {
    event.preventDefault();
    me = $('name').value.trim();
    room = $('room').value.trim();
    if (!me || !room || /[*]/.test(me + room)) {
        showLoginError('Names and rooms need a letter, and can not have a *.');
        return;
    }
    showLoginError('');
    $('enter').disabled = true;
    $('enter').textContent = 'Entering\u2026';
    try {
        const names = await link.enter(me, room);
        remember('name', me);
        remember('room', room);
        shareRoom();
        openHouse(names);
    } catch (error) {
        showLoginError(error.message);
        $('name').focus();
    }
    $('enter').disabled = false;
    $('enter').textContent = 'Enter';
}

/* So that the address, sent to a friend, leads to the same room. */
function shareRoom() {
    query.delete('name');
    query.set('room', room);
    history.replaceState(null, '', '?' + query);
}

function openHouse(names) {
    $('door').hidden = true;
    $('house').hidden = false;
    $('room-title').textContent = room;
    $('messages').replaceChildren();
    last = null;
    setTarget(EVERYONE);
    setUsers(names);
    showState('working');
    addNote(names.length > 1 ? 'You are in. ' + (names.length - 1) +
        (names.length > 2 ? ' others are here.' : ' other is here.') :
        'You are the first one here. Open this page in a second window, ' +
        'or send its address to a friend.');
    setUnread(0);
    $('text').focus();
}

function leave(reason) {
    link.leave();
    clearInterval(countdown);
    $('house').hidden = true;
    $('house').classList.remove('side-open');
    $('door').hidden = false;
    setUnread(0);
    document.title = 'Chat \u00b7 pomelo for C';
    showLoginError(typeof reason === 'string' ? reason : '');
    $('name').focus();
}

/* ---- The people -------------------------------------------------------- */

function setUsers(names) {
    users.clear();
    names.forEach((name) => users.add(name));
    drawUsers();
}

function drawUsers() {
    const names = Array.from(users).sort((a, b) =>
        (b === me) - (a === me) || a.localeCompare(b));
    $('users').replaceChildren(...names.map(userRow));
    $('side-count').textContent = users.size;
    $('people-count').textContent = users.size;
    $('people').title = users.size + ' in this room';
    if (target !== EVERYONE) {
        $('target').classList.toggle('gone', !users.has(target));
    }
}

function userRow(name) {
    const row = document.createElement('li');
    const button = make('button', 'user', '');
    button.type = 'button';
    button.dataset.user = name;
    button.setAttribute('aria-pressed', String(name === target));
    button.append(avatar(name), make('span', 'user-name', name));
    if (name === me) {
        button.disabled = true;
        button.append(make('small', '', 'you'));
    }
    row.append(button);
    return row;
}

function avatar(name) {
    const face = make('span', 'avatar',
        Array.from(name).slice(0, 1).join('').toUpperCase());
    face.style.setProperty('--hue', hue(name));
    face.setAttribute('aria-hidden', 'true');
    return face;
}

function setTarget(name) {
    target = name;
    $('target').hidden = name === EVERYONE;
    $('target').classList.remove('gone');
    $('target-name').textContent = name;
    $('text').placeholder = name === EVERYONE ?
        'Message to everyone' : 'Only ' + name + ' will see this';
    drawUsers();
}

function chooseUser(event) {
    const button = event.target.closest('.user, .author');
    if (button && button.dataset.user !== me) {
        const name = button.dataset.user;
        setTarget(name === target ? EVERYONE : name);
        $('house').classList.remove('side-open');
        $('text').focus();
    }
}

/* ---- The messages ------------------------------------------------------ */

function clock(date) {
    return date.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
}

function atEnd() {
    const box = $('messages');
    return box.scrollHeight - box.scrollTop - box.clientHeight < 60;
}

function toEnd() {
    $('messages').scrollTop = $('messages').scrollHeight;
    $('newer').hidden = true;
}

function append(row) {
    const follow = atEnd();
    $('messages').append(row);
    while ($('messages').childElementCount > ROWS_MAX) {
        $('messages').firstElementChild.remove();
    }
    if (follow) {
        toEnd();
    } else {
        $('newer').hidden = false;
    }
}

function addNote(text) {
    last = null;
    append(make('p', 'note', text));
}

/* Text with its links made clickable; only http and https are. */
function body(text) {
    const box = make('div', 'body', '');
    const bare = text.replace(/[\s\u200d\ufe0f]/g, '');
    if (bare.length <= 12 && /^\p{Extended_Pictographic}+$/u.test(bare)) {
        box.classList.add('big');
    }
    text.split(/(https?:\/\/[^\s<>"]+)/).forEach((piece, i) => {
        if (i % 2 === 0) {
            box.append(piece);
            return;
        }
        const anchor = make('a', '', piece);
        anchor.href = piece;
        anchor.target = '_blank';
        anchor.rel = 'noopener noreferrer';
        box.append(anchor);
    });
    return box;
}

/* Lines of one author that follow each other share a head. */
function addMessage(from, to, text) {
    const now = new Date();
    const row = make('article', 'message', '');
    const grouped = last && last.from === from && last.to === to &&
        now - last.time < GROUP_MS;
    row.style.setProperty('--hue', hue(from));
    row.classList.toggle('mine', from === me);
    row.classList.toggle('private', to !== EVERYONE);
    row.classList.toggle('grouped', Boolean(grouped));
    if (!grouped) {
        const head = make('div', 'head', '');
        const author = make('button', 'author', from);
        author.type = 'button';
        author.dataset.user = from;
        head.append(author, make('time', '', clock(now)));
        if (to !== EVERYONE) {
            head.append(make('span', 'tag', from === me ?
                'private, to ' + to : 'private'));
        }
        row.append(avatar(from), head);
    }
    const words = body(text);
    words.title = now.toLocaleString();
    row.append(words);
    append(row);
    last = { from: from, to: to, time: now };
}

function setUnread(count) {
    unread = count;
    document.title = (count > 0 ? '(' + count + ') ' : '') + room +
        ' \u00b7 pomelo chat';
}

function onChat(msg) {
    const from = String(msg.from);
    const to = msg.target === EVERYONE ? EVERYONE : String(msg.target);
    addMessage(from, to, String(msg.msg));
    if (document.hidden && from !== me) {
        setUnread(unread + 1);
    }
}

/* What is said to everyone comes back as a push; a private message goes to
 * the other one only, so the sender's copy is written here. */
async function send(event) {
    event.preventDefault();
    const text = $('text').value.trim();
    const to = target;
    if (!text) {
        return;
    }
    if (to !== EVERYONE && !users.has(to)) {
        addNote(to + ' is not here any more.');
        return;
    }
    $('text').value = '';
    grow();
    try {
        const answer = await link.send(text, to);
        if (answer && answer.code >= 400) {
            throw new Error('code ' + answer.code);
        }
        if (to !== EVERYONE) {
            addMessage(me, to, text);
        }
        toEnd();
    } catch (error) {
        addNote('Not sent: ' + error.message);
        $('text').value = $('text').value || text;
        grow();
    }
}

function grow() {
    $('text').style.height = 'auto';
    $('text').style.height = $('text').scrollHeight + 'px';
}

/* ---- The connection ---------------------------------------------------- */

function showState(state, ms) {
    const port = link.where ? ' :' + link.where.port : '';
    const time = ms === undefined ? '' : ' \u00b7 ' +
        (ms < 10 ? ms.toFixed(1) : Math.round(ms)) + ' ms';
    $('state').dataset.state = state;
    $('state-text').textContent = state === 'working' ?
        'connector' + port + time : 'offline';
    $('banner').hidden = state === 'working';
    $('send').disabled = state !== 'working';
    $('house').classList.toggle('offline', state !== 'working');
}

link.onlost = (reason, retryMs) => {
    const end = Date.now() + retryMs;
    const tick = () => {
        const seconds = Math.max(0, Math.round((end - Date.now()) / 1000));
        $('banner-text').textContent = 'Connection lost: ' + reason +
            '. Trying again ' + (seconds ? 'in ' + seconds + ' s.' : 'now.');
    };
    showState('closed');
    clearInterval(countdown);
    countdown = setInterval(tick, 500);
    tick();
};

link.onback = (names) => {
    clearInterval(countdown);
    setUsers(names);
    showState('working');
    addNote('You are back. What was said meanwhile is not kept.');
};

link.onkick = (reason) => leave('The server closed your seat: ' + reason +
    '.');
link.onping = (ms) => showState('working', ms);
link.onchat = onChat;
link.onjoin = (name) => {
    users.add(name);
    drawUsers();
    addNote(name + ' came in');
};
link.onleave = (name) => {
    users.delete(name);
    drawUsers();
    addNote(name + ' left');
};

/* ---- The page ---------------------------------------------------------- */

$('login').addEventListener('submit', enter);
$('leave').addEventListener('click', leave);
$('retry').addEventListener('click', () => link.retry());
$('users').addEventListener('click', chooseUser);
$('messages').addEventListener('click', chooseUser);
$('untarget').addEventListener('click', () => {
    setTarget(EVERYONE);
    $('text').focus();
});
$('people').addEventListener('click', () => {
    $('house').classList.toggle('side-open');
});
$('talk').addEventListener('click', () =>
    $('house').classList.remove('side-open'));
$('composer').addEventListener('submit', send);
$('text').addEventListener('input', grow);
$('text').addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
        send(event);
    } else if (event.key === 'Escape') {
        setTarget(EVERYONE);
    }
});
$('messages').addEventListener('scroll', () => {
    if (atEnd()) {
        $('newer').hidden = true;
    }
});
$('newer').addEventListener('click', toEnd);
document.addEventListener('visibilitychange', () => {
    if (!document.hidden && !$('house').hidden) {
        setUnread(0);
    }
});
addEventListener('pagehide', () => link.leave());
addEventListener('pageshow', (event) => {
    if (event.persisted && !$('house').hidden) {
        leave();
    }
});

$('name').value = recall('name') || '';
$('room').value = recall('room') || 'lobby';
$('name').focus();
}());
