/* SPDX-License-Identifier: MIT */
/* tls.js -- wss in a browser: the hello page with a server of TLS. The
 * certificate is made here, by openssl; nobody has signed it. A browser that
 * was told nothing refuses it, one that was told to trust it plays. */
'use strict';

const assert = require('assert');
const { execFileSync } = require('child_process');
const fs = require('fs');
const path = require('path');
const { BUILD, freePort, waitForText } = require('./harness');

function certificate() {
    const folder = path.join(BUILD, 'browser', 'tls');
    const files = { cert: path.join(folder, 'cert.pem'),
        key: path.join(folder, 'key.pem') };
    fs.mkdirSync(folder, { recursive: true });
    execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt',
        'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj',
        '/CN=localhost', '-addext',
        'subjectAltName=DNS:localhost,IP:127.0.0.1', '-keyout', files.key,
        '-out', files.cert], { stdio: 'pipe' });
    return files;
}

module.exports = async (t) => {
    const files = certificate();
    const port = await freePort();
    const server = await t.program('hello', ['--port', port, '--web-port',
        await freePort(), '--tls-cert', files.cert, '--tls-key', files.key]);

    await t.check('the program says that it is secure', async () => {
        assert.match(server.url, new RegExp('port=' + port + '&secure=1$'));
    });
    await t.check('wss: the button gets the answer', async () => {
        const { page, mistakes } = await t.page({ ignoreHTTPSErrors: true });
        const opened = [];
        page.on('websocket', (socket) => opened.push(socket.url()));
        await page.goto(server.url);
        await waitForText(page, '#state-text', 'connected');
        await page.click('#test');
        await waitForText(page, '#result', 'game server is ok.');
        assert.ok(opened.length > 0 && opened.every(
            (url) => url.startsWith('wss://')), opened.join(' '));
        assert.deepStrictEqual(mistakes, []);
    });
    await t.check('wss: large bodies go both ways', async () => {
        const { page } = await t.page({ ignoreHTTPSErrors: true });
        await page.goto(server.url);
        const answer = await page.evaluate(async (at) => {
            const client = new Pomelo();
            await client.init({ host: '127.0.0.1', port: at, secure: true });
            return client.request('connector.entryHandler.entry',
                { text: 'x'.repeat(50000) });
        }, port);
        assert.strictEqual(answer.msg, 'game server is ok.');
    });
    await t.check('a certificate that nobody has signed is refused',
        async () => {
            const { page } = await t.page();
            await page.goto(server.url);
            const lost = await page.evaluate((at) => new Pomelo().init(
                { host: '127.0.0.1', port: at, secure: true }).then(
                () => 'connected', (error) => 'refused: ' + error.message),
            port);
            assert.match(lost, /^refused/);
        });
    await t.check('a plain page is told apart', async () => {
        const { page } = await t.page();
        await page.goto(server.url.replace('&secure=1', ''));
        await waitForText(page, '#state-text', 'no game server');
    });
};
