// Socket.IO clients, as a page has them. What happens to them is printed, one JSON object a line.
//
//     node socketio-clients.js URL NUMBER TRANSPORTS [CA_FILE]
'use strict';
const { readFileSync, writeSync } = require('node:fs');
const { io } = require('socket.io-client');

const PAUSE_MS = 50;
const [url, number, transports, authority] = process.argv.slice(2);
const trust = authority ? { ca: readFileSync(authority) } : {};

function start(client) {
  const say = (event, more) => writeSync(1, `${JSON.stringify({ client, event, ...more })}\n`);
  const socket = io(url, {
    ...trust,
    forceNew: true, // a connection of its own
    transports: transports.split(','),
    withCredentials: true, // keeps cookies
    reconnectionDelay: PAUSE_MS,
    reconnectionDelayMax: 10 * PAUSE_MS,
  });
  const echo = (number) => socket.timeout(30_000).emit('echo', number, (error, back, who) => {
    if (!socket.connected) return;
    if (error || back !== number) say('wrong', { sent: number, back: String(error ?? back) });
    else say('echo', { number, who });
    setTimeout(() => socket.connected && echo(number + 1), PAUSE_MS);
  });
  // What the server answered where it refused a request.
  const said = (error) => ({ status: error?.description, said: error?.context?.responseText });
  socket.on('connect', () => {
    const { engine } = socket.io;
    say('connected', { transport: engine.transport.name });
    const upgraded = () => say('upgraded');
    if (engine.transport.name === 'websocket') upgraded();
    else engine.once('upgrade', upgraded);
    echo(0);
  });
  socket.on('disconnect', (reason, details) => {
    say('disconnected', { reason, ...said(details) });
    // By itself a client does not come back when the server has ended its session.
    if (reason === 'io server disconnect') socket.connect();
  });
  socket.on('connect_error', (error) => say('refused', { reason: error.message, ...said(error) }));
}

for (let client = 0; client < Number(number); client += 1) start(client);
