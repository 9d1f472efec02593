// Clients of HTTP/2 over TLS that ask one request after another, over few connections, until standard input ends:
//   node over-http2.js ADDRESS HOST CA_FILE STREAMS
// Prints how many were answered, as they are: one JSON object a line.
const fs = require('node:fs');
const http2 = require('node:http2');

const [address, host, ca, streams] = process.argv.slice(2);
let answered = 0;
const failed = [];
const versions = {};
let ended = false;
let session;

function connected() {
  if (!session || session.closed || session.destroyed) {
    session = http2.connect(`https://${address}`, { ca: fs.readFileSync(ca), servername: host });
    session.on('error', (error) => failed.push(`session: ${error.message}`));
  }
  return session;
}

function ask(number) {
  return new Promise((resolve) => {
    const post = number % 3 === 0;
    const asked = connected().request({
      ':method': post ? 'POST' : 'GET', ':path': '/', ':authority': `${host}:${address.split(":")[1]}`, cookie: ['a=1', 'b=2'],
    });
    let status;
    let text = '';
    asked.on('response', (headers) => { status = headers[':status']; });
    asked.setEncoding('utf8');
    asked.on('data', (data) => { text += data; });
    asked.on('error', (error) => {
      // Whoever was told to go elsewhere asks there, and nothing was lost (RFC 9113, 8.7).
      if (asked.rstCode === http2.constants.NGHTTP2_REFUSED_STREAM) {
        session = undefined;
      } else {
        failed.push(`request: ${error.message}`);
      }
      resolve();
    });
    asked.on('end', () => {
      if (status === 200) {
        answered += 1;
        versions[text.trim().split(' ')[0]] = true;
      } else {
        failed.push(`status ${status}`);
      }
      resolve();
    });
    asked.end(post ? 'x'.repeat(1000) : undefined);
  });
}

async function client(first) {
  for (let number = first; !ended; number += 1) {
    await ask(number);
  }
}

process.stdin.on('end', () => { ended = true; }).resume();
const telling = setInterval(() => console.log(JSON.stringify({ answered, failed, versions })), 20);
Promise.all(Array.from({ length: Number(streams) }, (_, number) => client(number))).then(() => {
  clearInterval(telling);
  console.log(JSON.stringify({ answered, failed, versions, ended: true }));
  session.close();
});
