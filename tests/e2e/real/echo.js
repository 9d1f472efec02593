// Answers a POST with its body, and does nothing else for as long as `BLOCKS_MS` says, once for each.
'use strict';
const { createServer } = require('node:http');

const sleeper = new Int32Array(new SharedArrayBuffer(4));
const blocks = Number(process.env.BLOCKS_MS);

createServer((request, answer) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    if (request.method === 'POST') Atomics.wait(sleeper, 0, 0, blocks);
    answer.end(Buffer.concat(parts));
  });
}).listen(Number(process.env.PORT), '127.0.0.1');
