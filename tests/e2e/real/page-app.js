// An app with a page that uses what browsers have: fetch, a WebSocket, an event stream. Each says
// which release answers.
'use strict';
const { createServer } = require('node:http');
const { WebSocketServer } = require('ws');

const release = process.env.PORTOK_RELEASE;

// Runs in the page.
function page() {
  const state = { answered: {}, failed: [], closed: [], ended: false };
  window.state = state;
  const count = (what, release) => {
    const row = `${what} ${release}`;
    state.answered[row] = (state.answered[row] ?? 0) + 1;
  };
  const pause = (time) => new Promise((resolve) => setTimeout(resolve, time));

  async function ask(number) {
    const body = `${number}`.repeat(number * 500);
    const asked = number % 2 ? { method: 'POST', body } : {};
    const answer = await fetch('/asked', asked);
    const text = await answer.text();
    const release = answer.headers.get('x-version');
    if (answer.status !== 200 || text !== (asked.body ?? release)) throw new Error(`${answer.status}: ${text.slice(0, 100)}`);
    return release;
  }

  async function asking(number) {
    while (!state.ended) {
      try {
        count('fetch', await ask(number));
      } catch (error) {
        state.failed.push(`fetch: ${error.message}`);
      }
      await pause(20);
    }
  }

  // One is open at a time. Whoever is sent away comes back.
  function talk() {
    const socket = new WebSocket(`wss://${location.host}/socket`);
    let [release, sent] = [undefined, undefined];
    const say = () => {
      sent = `${Math.random()}`.repeat(100);
      socket.send(sent);
    };
    socket.onmessage = ({ data }) => {
      if (release === undefined) release = data;
      else if (data === sent) count('websocket', release);
      else state.failed.push(`websocket: ${data} came back`);
      if (socket.readyState === WebSocket.OPEN) setTimeout(say, 20);
    };
    socket.onclose = ({ code, wasClean }) => {
      state.closed.push({ code, wasClean });
      if (release === undefined) state.failed.push('websocket: it was never open');
      else talk();
    };
  }

  function listen() {
    const events = new EventSource('/events');
    events.onmessage = ({ data }) => count('events', data);
    events.onerror = () => {
      if (events.readyState === EventSource.CLOSED) state.failed.push('events: it does not come back');
    };
  }

  [0, 1, 2, 3].forEach(asking);
  talk();
  listen();
}

const server = createServer((request, answer) => {
  answer.setHeader('x-version', release);
  if (request.method === 'POST') request.pipe(answer);
  else if (request.url === '/') answer.setHeader('content-type', 'text/html').end(`<script>(${page})()</script>`);
  else if (request.url === '/events') {
    answer.setHeader('content-type', 'text/event-stream').write('retry: 50\n\n');
    const telling = setInterval(() => answer.write(`data: ${release}\n\n`), 50);
    answer.on('close', () => clearInterval(telling));
  } else answer.end(release);
});
new WebSocketServer({ server, path: '/socket' }).on('connection', (socket) => {
  socket.send(release);
  socket.on('message', (text) => socket.send(`${text}`));
});
server.listen(Number(process.env.PORT), '127.0.0.1');
