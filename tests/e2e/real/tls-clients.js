// Clients over TLS, by HTTP/1.1 and by HTTP/2, that ask several hosts at one address until standard
// input ends:
//   node tls-clients.js ADDRESS CA_FILE HOST...
// Prints how many answers each client had of which release of a host, and what failed: one JSON
// object a line.
'use strict';
const fs = require('node:fs');
const http2 = require('node:http2');
const https = require('node:https');
const { setTimeout: pause } = require('node:timers/promises');

const [address, authority, ...hosts] = process.argv.slice(2);
const [ip, port] = address.split(':');
const ca = fs.readFileSync(authority);
const lookup = (host, options, done) => (options.all ? done(null, [{ address: ip, family: 4 }]) : done(null, ip, 4));
const answered = {};
const failed = [];
let ended = false;

// What the round asks for, and what has to come back of a release.
const asked = [
  { method: 'GET', path: '/', whole: (release) => `${release}\n` },
  { method: 'GET', path: '/slow', whole: (release) => `${release}\n`.repeat(3) },
  ...[64, 5000, 200 << 10].map((length) => {
    const body = `${length}`.repeat(length).slice(0, length);
    return { method: 'POST', path: '/', body, whole: () => body };
  }),
];

async function read(stream) {
  let text = '';
  for await (const part of stream.setEncoding('utf8')) text += part;
  return text;
}

function overHttps(host) {
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1, ca, lookup });
  return ({ method, path, body }, round) => new Promise((resolve, reject) => {
    // Now and then over a connection of its own.
    const over = round % 7 === 0 ? { agent: false, ca, lookup } : { agent };
    const headers = { 'content-type': 'text/plain' };
    const request = https.request({ ...over, host, port, method, path, headers }, (answer) => {
      read(answer).then((text) => resolve([answer.statusCode, answer.headers['x-version'], text]), reject);
    });
    request.on('error', reject).end(body);
  });
}

function overHttp2(host) {
  let session;
  return ({ method, path, body }) => new Promise((resolve, reject) => {
    if (!session || session.closed || session.destroyed) {
      session = http2.connect(`https://${host}:${port}`, { ca, lookup });
      session.on('error', (error) => failed.push(`http2 ${host}: session: ${error.message}`)).unref();
    }
    const stream = session.request({ ':method': method, ':path': path, 'content-type': 'text/plain' });
    stream.on('error', reject).on('response', (headers) => {
      read(stream).then((text) => resolve([headers[':status'], headers['x-version'], text]), reject);
    });
    stream.end(body);
  });
}

async function client(name, host, ask, first) {
  for (let round = first; !ended; round += 1) {
    const request = asked[round % asked.length];
    try {
      const [status, release, text] = await ask(request, round);
      if (status !== 200 || text !== request.whole(release)) {
        throw new Error(`${status} of ${release}: ${text.slice(0, 300)}`);
      }
      const row = `${name} ${host} ${release}`;
      answered[row] = (answered[row] ?? 0) + 1;
    } catch (error) {
      failed.push(`${name} ${host}: ${request.method} ${request.path}: ${error.message}`);
    }
    await pause(40);
  }
}

process.stdin.on('end', () => { ended = true; }).resume();
const tell = (more) => console.log(JSON.stringify({ answered, failed, ...more }));
const telling = setInterval(tell, 50);
const all = hosts.flatMap((host) => {
  const [one, shared] = [overHttps(host), overHttp2(host)];
  return [client('node-https', host, one, 0), ...[0, 1, 2].map((first) => client('node-http2', host, shared, first))];
});
Promise.all(all).then(() => {
  clearInterval(telling);
  tell({ ended: true });
  process.exit(0);
});
