// SPDX-License-Identifier: MIT
// app.js -- the application of test/bench/server, as far as the rows with
// Pomelo need it, on the real Pomelo. TUNED=1: the best that its own options
// and the system give its calls between servers.
'use strict';

const fs = require('fs');
const net = require('net');
const pomelo = require('pomelo');

const tuned = process.env.TUNED === '1';

// Pomelo hands the options of a WebSocket library to plain sockets as well; a
// current Node takes them for an encoding and throws.
const write = net.Socket.prototype.write;
net.Socket.prototype.write = function (data, encoding, done) {
  if (encoding && typeof encoding === 'object') return write.call(this, data, done);
  return write.apply(this, arguments);
};

// Its calls are written in pieces and wait for Nagle's algorithm otherwise.
if (tuned) {
  const connect = net.Socket.prototype.connect;
  net.Socket.prototype.connect = function () {
    this.setNoDelay(true);
    return connect.apply(this, arguments);
  };
  const emit = net.Server.prototype.emit;
  net.Server.prototype.emit = function (name, socket) {
    if (name === 'connection' && socket.setNoDelay) socket.setNoDelay(true);
    return emit.apply(this, arguments);
  };
}

const app = pomelo.createApp();
app.set('name', 'bench');
app.configure('production|development', 'connector', function () {
  app.set('connectorConfig', {
    connector: pomelo.connectors.hybridconnector,
    heartbeat: 10,
    useDict: true,
    setNoDelay: true
  });
});
if (tuned) {
  app.configure('production|development', 'connector|chat', function () {
    app.set('proxyConfig', { bufferMsg: true, interval: 2 });
    app.set('remoteConfig', { bufferMsg: true, interval: 2 });
  });
}

process.on('uncaughtException', function (err) {
  console.error(err.stack);
});
fs.writeFileSync(app.getServerId() + '.pid', process.pid + '\n');
app.start(function () {
  fs.writeFileSync(app.getServerId() + '.up', '');
});
