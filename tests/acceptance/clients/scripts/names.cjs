"use strict";
// What DNS and a port forward do elsewhere: connections to the service's names go to the edge on loopback, and to nobody else.
// The names themselves, in URLs, in certificates and in `Host`, stay what the client made of them.
const tls = require("node:tls");

const connect = tls.connect;
tls.connect = function (options, ...rest) {
  const name = options.servername || options.host;
  if (!`.${name}`.endsWith(".service.example.com")) throw new Error(`no way from here to ${name}`);
  return connect.call(this, { ...options, servername: name, host: "127.0.0.1", port: Number(process.env.EDGE) }, ...rest);
};
