'use strict';
/* Real clients of a real Redis that goes away and comes back. */

const assert = require('assert');
const { spawn, spawnSync } = require('child_process');
const net = require('net');
const { test } = require('node:test');
const { FILE, Remediator, launch, settings } = require('./support');

const isMissing = spawnSync('redis-server', ['--version']).error !== undefined;
if (isMissing && process.env.CI === 'true') throw new Error('redis-server is missing');
const skip = isMissing && 'redis-server is not installed';

async function freePort() {
  const server = net.createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Start a Redis, and resolve when it says that it accepts connections. */
function redisServer(port) {
  const child = spawn('redis-server', ['--port', String(port), '--bind', '127.0.0.1', '--save', ''], { stdio: ['ignore', 'pipe', 'ignore'] });
  return new Promise((resolve) => child.stdout.on('data', (part) => /Ready to accept/.test(part) && resolve(child)));
}

const CLIENTS = {
  'ioredis without a listener': (port) => `const Redis = require('ioredis'); const client = new Redis(${port}, '127.0.0.1'); const ping = () => client.ping();`,
  'ioredis with a listener': (port) => `const Redis = require('ioredis'); const client = new Redis(${port}, '127.0.0.1'); client.on('error', () => {}); const ping = () => client.ping();`,
  'node-redis': (port) => `const { createClient } = require('redis'); const client = createClient({ url: 'redis://127.0.0.1:${port}' }); client.on('error', () => {}); client.connect(); const ping = () => client.ping();`,
};

for (const [name, client] of Object.entries(CLIENTS)) {
  test(`${name}: a Redis that goes away is told, and the client comes back by itself`, { skip }, async () => {
    const remediator = await Remediator.start();
    const port = await freePort();
    let redis = await redisServer(port);
    const code = `${client(port)} const again = async () => { console.log(await ping()); setTimeout(again, 50); }; again();`;
    const { child, ended } = launch(code, { args: ['-r', FILE], env: settings(remediator) });
    await new Promise((resolve) => child.stdout.once('data', resolve));
    redis.kill('SIGKILL');
    const event = await remediator.event('redis', (one) => one.facts && one.facts.errno === 111);
    assert.strictEqual(event.facts.peer, `127.0.0.1:${port}`);
    redis = await redisServer(port);
    await new Promise((resolve) => child.stdout.once('data', resolve));
    child.kill('SIGKILL');
    redis.kill('SIGKILL');
    assert.match((await ended).stdout, /PONG/);
    assert.deepStrictEqual(remediator.events.filter((one) => one.kind === 'http'), []);
    await remediator.close();
  });
}
