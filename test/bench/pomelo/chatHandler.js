// SPDX-License-Identifier: MIT
// chatHandler.js -- the chat server's handlers.
'use strict';

module.exports = function (app) {
  return {
    // {p} -> {p}
    echo: function (msg, session, next) {
      next(null, { p: msg.p });
    },
    // {p}: onChat {p} to every member of the caller's channel
    send: function (msg, session, next) {
      const channel = app.get('channelService').getChannel(session.get('ch'), false);
      if (channel) channel.pushMessage('onChat', { p: msg.p });
      next(null, { code: channel ? 200 : 500 });
    }
  };
};
