// A Node app of several workers by the module `cluster`. The workers listen on one port; a worker
// that ends is replaced.
'use strict';
const cluster = require('node:cluster');
const { existsSync } = require('node:fs');
const { createServer } = require('node:http');

const WORKERS = 3;

function lead() {
  let ending = false;
  for (let number = 0; number < WORKERS; number += 1) cluster.fork();
  cluster.on('exit', () => {
    if (!ending) cluster.fork();
  });
  process.on('SIGTERM', () => {
    ending = true;
    console.log('no further requests');
    cluster.disconnect(() => process.exit(0));
  });
}

function work() {
  createServer((request, answer) => {
    answer.setHeader('x-version', process.env.PORTOK_RELEASE);
    if (request.method === 'POST') return void request.pipe(answer);
    const end = () => {
      if (request.url === '/slow' && !existsSync(process.env.GO_ON)) setTimeout(end, 20);
      else answer.end(`${process.pid}\n`);
    };
    end();
  }).listen(Number(process.env.PORT), '127.0.0.1');
  // The signal goes to the whole group. The leader says when a worker is to end.
  process.on('SIGTERM', () => {});
}

if (cluster.isPrimary) lead();
else work();
