// A Socket.IO server that keeps its sessions in its memory, as they all do: it answers `echo` with
// what it got and with who it is.
'use strict';
const { createServer } = require('node:http');
const { Server } = require('socket.io');

const who = `${process.env.PORTOK_RELEASE}/${process.pid}`;
const server = createServer((request, answer) => answer.end(`${who}\n`));
const io = new Server(server);
io.on('connection', (socket) => socket.on('echo', (number, answer) => answer(number, who)));
server.listen(Number(process.env.PORT), '127.0.0.1');
process.on('SIGTERM', () => io.close(() => process.exit(0)));
