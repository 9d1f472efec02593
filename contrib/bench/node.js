// The peer "node": what npm portok proxies with, as it sets it up.
const http = require('http');
const proxy = require('http-proxy');
const [port, backend] = process.argv.slice(2).map(Number);
const agent = new http.Agent({ keepAlive: true, maxSockets: 1024 });
const forward = proxy.createProxyServer({ target: `http://127.0.0.1:${backend}`, agent, xfwd: true });
forward.on('error', (error, request, answer) => {
  if (answer.writeHead) answer.writeHead(502).end();
  else answer.destroy();
});
const server = http.createServer((request, answer) => forward.web(request, answer));
server.on('upgrade', (request, socket, head) => forward.ws(request, socket, head));
server.keepAliveTimeout = 120000;
server.listen(port, '127.0.0.1', 4096);
