// The app of npm portok's own benches: an ordinary server of node's.
const server = require('http').createServer((request, answer) => {
  request.resume();
  answer.setHeader('content-type', 'text/plain');
  answer.end('hello world\n');
});
server.keepAliveTimeout = 120000;
server.listen(Number(process.argv[2]), '127.0.0.1', 4096);
