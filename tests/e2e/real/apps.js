// An app by a framework of Node: `node apps.js express` or `node apps.js fastify`. It answers a GET
// with its release, `/slow` with the same three times and a pause between, and a POST with its
// body.
'use strict';
const { Readable } = require('node:stream');
const { setTimeout: pause } = require('node:timers/promises');

const release = process.env.PORTOK_RELEASE;
const port = Number(process.env.PORT);

async function* slowly() {
  for (let number = 0; number < 3; number += 1) {
    if (number > 0) await pause(100);
    yield `${release}\n`;
  }
}

function express() {
  const express = require('express');
  const app = express();
  app.use((request, answer, next) => {
    answer.set('x-version', release);
    next();
  });
  app.get('/', (request, answer) => answer.type('text').send(`${release}\n`));
  app.get('/slow', (request, answer) => void Readable.from(slowly()).pipe(answer));
  app.post('/', express.raw({ type: () => true, limit: '1mb' }), (request, answer) => answer.send(request.body));
  app.listen(port, '127.0.0.1');
}

function fastify() {
  const app = require('fastify')({ bodyLimit: 1 << 20 });
  app.addHook('onRequest', async (request, answer) => void answer.header('x-version', release));
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'buffer' }, async (request, body) => body);
  app.get('/', async () => `${release}\n`);
  app.get('/slow', (request, answer) => answer.send(Readable.from(slowly())));
  app.post('/', async (request) => request.body);
  app.listen({ port, host: '127.0.0.1' });
}

({ express, fastify })[process.argv[2]]();
