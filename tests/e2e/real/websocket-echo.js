// A WebSocket server that sends back what it gets.
'use strict';
const { createServer } = require('node:http');
const { WebSocketServer } = require('ws');

const server = createServer((request, answer) => answer.end('well\n'));
new WebSocketServer({ server, perMessageDeflate: false }).on('connection', (socket) => {
  socket.on('message', (message, binary) => socket.send(message, { binary }));
  // What a client does wrong ends its connection.
  socket.on('error', () => {});
});
server.listen(Number(process.env.PORT), '127.0.0.1');
