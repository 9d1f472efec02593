// A browser that is on the page of `page-app.js` until standard input ends:
//   node browser.js CHROMIUM FOLDER ADDRESS HOST CERTIFICATE
// Prints what happens on the page, as it happens: one JSON object a line.
'use strict';
const { X509Certificate, createHash } = require('node:crypto');
const fs = require('node:fs');
const { chromium } = require('playwright-core');

const [executablePath, folder, address, host, certificate] = process.argv.slice(2);
const [ip, port] = address.split(':');
// Trusts this one key, which no authority that it knows vouches for.
const { publicKey } = new X509Certificate(fs.readFileSync(certificate));
const key = createHash('sha256').update(publicKey.export({ type: 'spki', format: 'der' })).digest('base64');

async function main() {
  const browser = await chromium.launchPersistentContext(folder, {
    executablePath,
    headless: true,
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
      `--host-resolver-rules=MAP ${host} ${ip}`, `--ignore-certificate-errors-spki-list=${key}`,
    ],
  });
  const page = browser.pages()[0] ?? await browser.newPage();
  await page.goto(`https://${host}:${port}/`);
  const tell = async (more) => {
    const told = await page.evaluate(() => ({
      ...window.state,
      protocols: [...new Set(performance.getEntries().map((entry) => entry.nextHopProtocol).filter(Boolean))],
    }));
    console.log(JSON.stringify({ ...told, ...more }));
  };
  let ended = false;
  process.stdin.on('end', () => { ended = true; }).resume();
  while (!ended) {
    await tell({ ended });
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await tell({ ended });
  await browser.close();
}

main().then(() => process.exit(0), (error) => {
  console.log(JSON.stringify({ failed: [`the browser: ${error.message}`], ended: true }));
  process.exit(1);
});
