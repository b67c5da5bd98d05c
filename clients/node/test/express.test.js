'use strict';
/* Real Express 4 and 5: errors that become answers are told, the answers stay as they are. */

const assert = require('assert');
const { test } = require('node:test');
const { FILE, Remediator, run, settings, watchRun, major } = require('./support');

/** An app with *routes*, asked for *paths* by a client that is not ours to watch. */
function program(version, routes, paths, { before = '', after = '' } = {}) {
  return `const express = require('express${version}'); const app = express(); ${before}
    ${routes}
    ${after}
    const server = app.listen(0, '127.0.0.1', async () => {
      const { port } = server.address();
      const get = (path) => new Promise((resolve) => {
        const socket = require('net').connect(port, '127.0.0.1');
        let text = '';
        socket.on('data', (part) => (text += part)).on('close', () => resolve(text)).on('error', () => {});
        socket.write('GET ' + path + ' HTTP/1.1\\r\\nHost: shop\\r\\nConnection: close\\r\\n\\r\\n');
      });
      for (const path of ${JSON.stringify(paths)}) console.log(path, (await get(path)).replace(/\\r\\n/g, '\\n').replace(/^(Date|ETag):.*$/gm, ''));
      server.close();
    });`;
}

const plainOf = ({ stdout, stderr, status, home }) => ({ status, stdout: stdout.split(home).join('HOME'), stderr: stderr.split(home).join('HOME') });
const told = (remediator) => remediator.events.map((event) => [event.kind, event.message, event.context && event.context.request && event.context.request.route]);

async function compare(code, options) {
  const remediator = await Remediator.start();
  const plain = await run(code);
  const watched = await watchRun(code, remediator, options);
  await remediator.close();
  return { remediator, plain: plainOf(plain), watched: plainOf(watched), events: remediator.events };
}

const ROUTES = `
  app.use((q, s, next) => next());
  app.get('/sync/:id', function show(q, s) { throw new RangeError('sync failed') });
  app.get('/next', (q, s, next) => next(new Error('next failed')));
  app.get('/client', (q, s, next) => next(Object.assign(new Error('bad request'), { status: 400 })));
  app.get('/text', (q, s, next) => next('a text'));
  app.get('/ok/:id', (q, s) => s.send('ok'));
  app.get('/refused', (q, s) => s.status(503).send('later'));
  const api = express.Router(); api.get('/in/:x', (q, s, next) => next(new TypeError('router failed'))); app.use('/api', api);
  const inner = express(); inner.get('/deep', () => { throw new Error('inner app failed') }); app.use('/inner', inner);`;
const PATHS = ['/sync/1?token=x', '/next', '/client', '/text', '/ok/1', '/ok/2', '/refused', '/none', '/api/in/5', '/inner/deep'];
const TOLD = [
  ['callback', 'sync failed', '/sync/:id'],
  ['callback', 'next failed', '/next'],
  ['callback', 'a text', '/text'],
  ['callback', 'router failed', '/api/in/:x'],
  ['callback', 'inner app failed', '/inner/deep'],
];

for (const version of [4, 5]) {
  const skip = version === 5 && major < 18;

  test(`Express ${version}: errors without an error handler are told, and the answers are the same`, { skip }, async () => {
    const { remediator, plain, watched, events } = await compare(program(version, ROUTES, PATHS));
    assert.deepStrictEqual(watched, plain);
    assert.deepStrictEqual(told(remediator), TOLD);
    assert.strictEqual(events[0].context.request.path, '/sync/1');
    assert.strictEqual(events[0].facts.status, 500);
    assert.ok(events[0].raised[0].frames.some((frame) => frame.function === 'show' && frame.in_app));
  });

  test(`Express ${version}: errors that an error handler answers are told once`, { skip }, async () => {
    const after = `app.use((error, q, s, next) => next(error)); app.use((error, q, s, next) => s.status(500).json({ message: String(error.message || error) }));`;
    const { remediator, plain, watched } = await compare(program(version, ROUTES, PATHS, { after }));
    assert.deepStrictEqual(watched, plain);
    assert.deepStrictEqual(told(remediator), TOLD);
  });

  test(`Express ${version}: requests are counted by method and route`, { skip }, async () => {
    const { remediator } = await compare(program(version, ROUTES, PATHS));
    const counts = {};
    for (const call of remediator.calls) counts[call.method] = (counts[call.method] || 0) + call.count * 100 + call.failures;
    assert.deepStrictEqual(counts, {
      'GET /sync/:id': 101, 'GET /next': 101, 'GET /client': 100, 'GET /text': 101, 'GET /ok/:id': 200, 'GET /refused': 101, GET: 100, 'GET /api/in/:x': 101, 'GET /inner/deep': 101,
    });
  });

  test(`Express ${version}: by require and middleware, without the preload`, { skip }, async () => {
    const remediator = await Remediator.start();
    const before = `const monitor = require(${JSON.stringify(FILE)})({ service: 'web' }); app.use(monitor.express());`;
    const code = program(version, ROUTES, ['/next'], { before, after: 'app.use(monitor.expressErrors());' });
    const { stdout } = await run(code, { env: settings(remediator) });
    assert.match(stdout, /500 Internal Server Error/);
    assert.deepStrictEqual(told(remediator), [['callback', 'next failed', '/next']]);
    assert.strictEqual(remediator.events[0].service, 'web');
    await remediator.close();
  });

  test(`Express ${version}: an app inside a server of its own is watched from its second request on`, { skip }, async () => {
    const routes = `${ROUTES}`;
    const code = program(version, routes, ['/ok/1', '/next']).replace('app.listen(0,', `require('http').createServer((q, s) => app(q, s)).listen(0,`);
    const { remediator, plain, watched } = await compare(code);
    assert.deepStrictEqual(watched, plain);
    assert.deepStrictEqual(told(remediator), [['callback', 'next failed', '/next']]);
  });
}

const REJECTING = `app.get('/async', async (q, s) => { await null; throw new Error('async failed') });`;

test('Express 4: a rejection of a handler is told, and ends the program as without us', async () => {
  const { remediator, plain, watched } = await compare(program(4, REJECTING, ['/async']));
  assert.strictEqual(plain.status, 1);
  assert.deepStrictEqual(watched, plain);
  assert.deepStrictEqual(told(remediator), [['rejection', 'async failed', undefined]]);
});

test('Express 4: on request a rejection of a handler goes to next()', async () => {
  const remediator = await Remediator.start();
  const { stdout, status } = await watchRun(program(4, REJECTING, ['/async', '/async']), remediator, { env: { SOULFRA_EXPRESS_FORWARD: 'on' } });
  assert.strictEqual(status, 0);
  assert.strictEqual(stdout.match(/500 Internal Server Error/g).length, 2);
  assert.deepStrictEqual(told(remediator).map(([kind, message]) => [kind, message]), [['callback', 'async failed']].concat(remediator.events.slice(1).map(() => ['callback', 'async failed'])));
  assert.strictEqual(remediator.events.reduce((sum, event) => sum + (event.count || 1), 0), 2);
  await remediator.close();
});

test('Express 5: a rejection of a handler is told, though Express answers it', { skip: major < 18 }, async () => {
  const { remediator, plain, watched } = await compare(program(5, REJECTING, ['/async']));
  assert.deepStrictEqual(watched, plain);
  assert.deepStrictEqual(told(remediator), [['callback', 'async failed', '/async']]);
});

test('Express 4 in a main program of ES modules is watched', async () => {
  const remediator = await Remediator.start();
  const code = program(4, ROUTES, ['/next']).replace(`const express = require('express4');`, `import express from 'express4'; import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);`);
  const { status, stderr } = await watchRun(code, remediator, { name: 'program.mjs' });
  assert.strictEqual(status, 0, stderr);
  assert.deepStrictEqual(told(remediator), [['callback', 'next failed', '/next']]);
  await remediator.close();
});
