/* SPDX-License-Identifier: MIT */
/* template.js -- the page that npm's pomelo 2.2.7 gives to a new project,
 * against our hello server. Nothing in its folder is changed: of the files
 * that lie there for several transports, its index.html is the one for
 * WebSockets. It knows no other address than 127.0.0.1:3010, and shows the
 * answer in an alert. */
'use strict';

const assert = require('assert');
const fs = require('fs');
const http = require('http');
const path = require('path');
const { BUILD, freePort, portIsFree } = require('./harness');

const GAME_PORT = 3010;
const PAGE_PORT = 3001;
const ROOT = path.join(BUILD, 'browser', 'template');
const TYPES = { '.html': 'text/html', '.js': 'text/javascript',
    '.css': 'text/css', '.png': 'image/png' };

/* Browsers ask for an icon that the template does not have: none is fine. */
function serve(request, response) {
    const name = path.normalize(request.url.split('?')[0]);
    const file = path.join(ROOT, name === '/' ? 'index.html' : name);
    if (name === '/favicon.ico') {
        response.writeHead(204).end();
        return;
    }
    fs.readFile(file, (error, text) => {
        const type = TYPES[path.extname(file)] || 'text/plain';
        response.writeHead(error ? 404 : 200, { 'Content-Type': type });
        response.end(error ? '' : text);
    });
}

module.exports = async (t) => {
    if (!await portIsFree(GAME_PORT)) {
        throw new Error('port ' + GAME_PORT + ' is taken, and the page ' +
            'knows no other; end what listens there (make run?)');
    }
    await t.program('hello',
        ['--port', GAME_PORT, '--web-port', await freePort()]);
    const server = http.createServer(serve);
    const port = await portIsFree(PAGE_PORT) || await freePort();
    await new Promise((resolve) => server.listen(port, resolve));
    t.atEnd(() => {
        server.closeAllConnections();
        return new Promise((resolve) => server.close(resolve));
    });

    await t.check('the page of npm\'s pomelo says that all is well',
        async () => {
            const { page, mistakes } = await t.page();
            const said = new Promise((resolve) => {
                page.on('dialog', (dialog) => {
                    resolve(dialog.message());
                    dialog.accept();
                });
            });
            await page.goto('http://127.0.0.1:' + port + '/index.html');
            await page.click('#test');
            assert.strictEqual(await said, 'game server is ok.');
            assert.deepStrictEqual(mistakes, []);
        });
};
