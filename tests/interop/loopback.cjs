// Loaded before programs of others that listen on every interface when no address is named: they listen on loopback.
"use strict";
const { Server } = require("node:net");

// What `listen` ends in. With an address given to `listen` itself the port would be known only later, and they read it at once.
const listen = Server.prototype._listen2;
if (listen === undefined) throw new Error("loopback.cjs: this Node has no Server._listen2");
Server.prototype._listen2 = function (address, port, addressType, ...rest) {
  const isPort = address === null && typeof port === "number" && port >= 0;
  return isPort ? listen.call(this, "127.0.0.1", port, 4, ...rest) : listen.call(this, address, port, addressType, ...rest);
};
