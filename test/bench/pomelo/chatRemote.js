// SPDX-License-Identifier: MIT
// chatRemote.js -- what the connector calls.
'use strict';

module.exports = function (app) {
  return {
    join: function (uid, sid, name, done) {
      app.get('channelService').getChannel(name, true).add(uid, sid);
      done(null);
    },
    leave: function (uid, sid, name, done) {
      const channel = app.get('channelService').getChannel(name, false);
      if (channel) channel.leave(uid, sid);
      done(null);
    }
  };
};
