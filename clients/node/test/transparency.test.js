'use strict';
/* A program under the preload does what it does without it: output, exit status, signal. */

const assert = require('assert');
const { test } = require('node:test');
const { FILE, Remediator, run, settings, watchRun } = require('./support');

const ERROR = `class Broken extends Error {}`;
const PROGRAMS = {
  'an uncaught exception': `console.log('before'); throw new Error('boom');`,
  'an uncaught exception later': `setTimeout(() => { throw new TypeError('later') }, 5);`,
  'a thrown text': `throw 'a text';`,
  'a thrown null': `throw null;`,
  'an error of a class with a cause': `${ERROR} throw new Broken('outer', { cause: new Error('inner') });`,
  'an error whose getters throw': `const e = new Error('x'); Object.defineProperty(e, 'cause', { get() { throw new Error('no') } }); setTimeout(() => { throw e });`,
  'an unhandled rejection': `Promise.reject(new Error('rejected'));`,
  'an unhandled rejection of a number': `Promise.reject(7);`,
  'an unhandled rejection with a listener': `process.on('unhandledRejection', (e) => console.log('seen', e.message)); Promise.reject(new Error('r')); setTimeout(() => console.log('lives'), 20);`,
  'a listener that is heard once': `process.once('unhandledRejection', () => console.log('once')); Promise.reject(new Error('a')); setTimeout(() => Promise.reject(new Error('b')), 10); setTimeout(() => console.log('unreached'), 300);`,
  'a listener that is removed': `const f = () => {}; process.on('unhandledRejection', f); process.removeListener('unhandledRejection', f); Promise.reject(new Error('a')); setTimeout(() => console.log('unreached'), 100);`,
  'a rejection that is handled late': `process.on('unhandledRejection', () => {}); process.on('rejectionHandled', () => console.log('late')); const p = Promise.reject(new Error('a')); setTimeout(() => p.catch(() => {}), 20);`,
  'a listener for uncaught exceptions': `process.on('uncaughtException', (e, origin) => console.log(e.message, origin)); setTimeout(() => { throw new Error('x') }); setTimeout(() => console.log('lives'), 30);`,
  'process.exit': `process.on('exit', (code) => console.log('exit', code)); process.exit(3);`,
  'an exit code of its own': `process.exitCode = 4;`,
  'an end by a signal': `process.kill(process.pid, 'SIGTERM'); setTimeout(() => {}, 1000);`,
  'a signal that is caught': `process.on('SIGTERM', () => { console.log('caught'); process.exit(0) }); process.kill(process.pid, 'SIGTERM'); setTimeout(() => {}, 1000);`,
  'process.abort': `process.abort();`,
  'an error event nobody hears': `new (require('events'))().emit('error', new Error('unheard'));`,
  'a leak of listeners': `const e = new (require('events'))(); for (let i = 0; i < 12; i++) e.on('x', () => {}); process.on('warning', (w) => console.log(w.name));`,
  'a refused request that is caught': `require('http').get('http://127.0.0.1:1/').on('error', (e) => console.log(e.code, e.stack));`,
  'a refused request that is not': `require('http').get('http://127.0.0.1:1/');`,
  'a refused connection that is not caught': `require('net').connect(1, '127.0.0.1');`,
  'a child that fails': `const c = require('child_process').spawn('sh', ['-c', 'exit 4']); c.on('exit', (code) => console.log(code));`,
  'a program that is not there': `require('child_process').spawn('no-such-program-here');`,
  'a worker that fails': `const { Worker } = require('worker_threads'); new Worker('throw new Error("inside")', { eval: true }).on('error', (e) => console.log(e.message)).on('exit', (c) => console.log(c));`,
  'a worker whose error nobody hears': `const { Worker } = require('worker_threads'); new Worker('throw new Error("inside")', { eval: true });`,
  'a missing module': `require('./no-such-module');`,
  'an error while a module loads': `require('./broken');`,
  'console.error of an error': `console.error(new Error('printed')); console.warn('w', new TypeError('x'));`,
  'a long recursion': `function f() { return f() + 1 } try { f() } catch (e) { console.log(e.name) } f();`,
  'asynchronous stacks': `async function a() { await null; throw new Error('deep') } async function b() { await a() } b();`,
  'what is there to see': `console.log(Object.keys(globalThis).length, Object.keys(process).includes('emit'), process.listenerCount('uncaughtException'), process.listenerCount('unhandledRejection'), process._getActiveHandles().length, JSON.stringify(Object.keys(require.cache).length - 1), typeof process.exit);`,
  'the order of ticks, promises and timers': `setImmediate(() => console.log('immediate')); process.nextTick(() => console.log('tick')); Promise.resolve().then(() => console.log('promise')); setTimeout(() => console.log('timeout'), 2);`,
};

const FLAGS = [['--unhandled-rejections=warn'], ['--unhandled-rejections=strict'], ['--unhandled-rejections=none'], ['--enable-source-maps'], ['--trace-uncaught']];
const REJECTING = `Promise.reject(new Error('rejected')); setTimeout(() => console.log('lives'), 30);`;

function seen({ stdout, stderr, status, signal, home }) {
  const plain = (text) => text.split(home).join('HOME').replace(/\(node:\d+\)/g, '(node:PID)').replace(/0x[0-9a-f]+/g, 'ADDRESS');
  return { stdout: plain(stdout), stderr: plain(stderr), status, signal };
}

const files = { 'broken.js': `const x = {}; x.y.z;` };

for (const [name, code] of Object.entries(PROGRAMS)) {
  test(`the preload changes nothing about ${name}`, async () => {
    const remediator = await Remediator.start();
    const plain = await run(code, { files });
    const watched = await watchRun(code, remediator, { files });
    await remediator.close();
    if (name === 'what is there to see') {
      // Only the preloaded file itself is one more module.
      const [before, after] = [plain, watched].map(({ stdout }) => stdout.trim().split(' '));
      after[5] = String(after[5] - 1);
      assert.deepStrictEqual(after, before);
      return;
    }
    assert.deepStrictEqual(seen(watched), seen(plain));
  });
}

for (const args of FLAGS) {
  test(`the preload changes nothing under ${args.join(' ')}`, async () => {
    const remediator = await Remediator.start();
    const plain = await run(REJECTING, { args });
    const watched = await watchRun(REJECTING, remediator, { args });
    await remediator.close();
    assert.deepStrictEqual(seen(watched), seen(plain));
  });
}

test('nothing changes while the remediator is away, not even on stderr', async () => {
  const code = `process.on('unhandledRejection', () => {}); Promise.reject(new Error('x')); setTimeout(() => { throw new Error('end') }, 600);`;
  const plain = await run(code);
  const watched = await watchRun(code, null);
  assert.deepStrictEqual(seen(watched), seen(plain));
});

test('a main program of ES modules is watched too', async () => {
  const remediator = await Remediator.start();
  const code = `import http from 'node:http'; import { EventEmitter } from 'node:events'; console.log(import.meta.url.length > 0); http.get('http://127.0.0.1:1/').on('error', () => {}); setTimeout(() => { throw new Error('from a module') }, 50);`;
  const plain = await run(code, { name: 'program.mjs' });
  const watched = await watchRun(code, remediator, { name: 'program.mjs' });
  assert.deepStrictEqual(seen(watched), seen(plain));
  await remediator.event('uncaught', (event) => event.message === 'from a module');
  await remediator.event('http');
  await remediator.close();
});

test('source maps are followed', async () => {
  const remediator = await Remediator.start();
  const map = Buffer.from(JSON.stringify({ version: 3, sources: ['original.ts'], names: [], mappings: 'AAAA;AACA' })).toString('base64');
  const code = `const x = 1;\nthrow new Error('mapped');\n//# sourceMappingURL=data:application/json;base64,${map}`;
  const watched = await watchRun(code, remediator, { args: ['--enable-source-maps'] });
  assert.strictEqual(watched.status, 1);
  const event = await remediator.event('uncaught');
  assert.ok(event.raised[0].frames.some((frame) => frame.file.endsWith('original.ts')), JSON.stringify(event.raised[0].frames));
  await remediator.close();
});

for (const [name, env] of [['ERROR_MONITORING_ENABLED=false', { ERROR_MONITORING_ENABLED: 'false' }], ['SOULFRA_NODE=off', { SOULFRA_NODE: 'off' }]]) {
  test(`with ${name} nothing is watched`, async () => {
    const remediator = await Remediator.start();
    const watched = await watchRun(`throw new Error('boom')`, remediator, { env });
    assert.strictEqual(watched.status, 1);
    assert.strictEqual(remediator.requests, 0);
    await remediator.close();
  });
}

test('settings that cannot be used are told on stderr and do not stop the program', async () => {
  const watched = await watchRun(`console.log('runs')`, null, { env: { SOULFRA_URL: 'ftp://127.0.0.1/' } });
  assert.strictEqual(watched.stdout, 'runs\n');
  assert.strictEqual(watched.status, 0);
  assert.match(watched.stderr, /^soulfra: url must be an address of http or https/);
});

test('a process that nothing keeps alive ends as soon as without us', async () => {
  const code = `process.on('unhandledRejection', () => {}); Promise.reject(new Error('x')); const began = Date.now(); process.on('exit', () => console.log(Date.now() - began));`;
  const watched = await watchRun(code, null);
  assert.ok(Number(watched.stdout) < 500, watched.stdout);
});

test('a remediator that says nothing does not keep a process alive for longer than the limit at its end', async () => {
  const remediator = await Remediator.start();
  remediator.statuses = new Array(20).fill('silence');
  const code = `process.on('unhandledRejection', () => {}); Promise.reject(new Error('x')); setTimeout(() => {}, 600); process.on('exit', () => console.log(process.uptime()));`;
  const { took, stdout } = await watchRun(code, remediator);
  assert.ok(Number(stdout) < 2, stdout);
  assert.ok(took < 3000, String(took));
  await remediator.close();
});

test('a preload and a require in the program are one monitor', async () => {
  const remediator = await Remediator.start();
  const code = `const monitor = require(${JSON.stringify(FILE)})({ service: 'renamed' }); monitor.report('once'); throw new Error('end');`;
  await watchRun(code, remediator);
  await remediator.event('uncaught');
  assert.deepStrictEqual(remediator.events.map((event) => [event.kind, event.service]), [['reported', 'renamed'], ['uncaught', 'renamed']]);
  await remediator.close();
});

test('close leaves the process as it was', async () => {
  const code = `const state = () => JSON.stringify([process.eventNames().map((n) => [String(n), process.listenerCount(n)]), console.error.name, Object.getOwnPropertyNames(require('net').Socket.prototype).length, require('net').Socket.prototype.connect.toString().length]);
    const before = state(); const monitor = require(${JSON.stringify(FILE)})(); const during = state(); monitor.close(); console.log(before === state(), before !== during);`;
  const remediator = await Remediator.start();
  const { stdout } = await run(code, { env: settings(remediator) });
  assert.strictEqual(stdout, 'true true\n');
  await remediator.close();
});

test('the workers of a cluster report each for itself, and the primary their deaths', async () => {
  const remediator = await Remediator.start();
  const code = `const cluster = require('cluster'); if (cluster.isPrimary) { cluster.fork(); } else { throw new Error('in a cluster worker'); }`;
  const plain = await run(code);
  const watched = await watchRun(code, remediator);
  assert.deepStrictEqual(seen(watched), seen(plain));
  await remediator.event('uncaught', (event) => event.message === 'in a cluster worker');
  await remediator.event('child', (event) => event.facts.exit_code === 1);
  await remediator.close();
});
