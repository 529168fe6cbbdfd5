// SPDX-License-Identifier: MIT
// entryHandler.js -- the connector's handlers.
'use strict';

module.exports = function (app) {
  return {
    // {p} -> {p}
    echo: function (msg, session, next) {
      next(null, { p: msg.p });
    },
    // {uid, ch}: bound, and a member of ch on the chat server
    enter: function (msg, session, next) {
      const answer = function (err) {
        next(null, { code: err ? 500 : 200 });
      };
      session.bind(msg.uid, function (err) {
        if (err) return answer(err);
        session.set('ch', msg.ch);
        session.pushAll(function (failed) {
          if (failed) return answer(failed);
          session.on('closed', function (gone) {
            app.rpc.chat.chatRemote.leave(gone, gone.uid, app.getServerId(), gone.get('ch'), function () {});
          });
          app.rpc.chat.chatRemote.join(session, msg.uid, app.getServerId(), msg.ch, answer);
        });
      });
    }
  };
};
