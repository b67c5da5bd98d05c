'use strict';
/* What each source sees, and what it is not to tell. */

const assert = require('assert');
const { test } = require('node:test');
const { FILE, Remediator, run, settings, watchRun, major } = require('./support');

async function watched(code, options) {
  const remediator = await Remediator.start();
  const result = await watchRun(code, remediator, options);
  await remediator.close();
  return { result, remediator, events: remediator.events };
}

const kinds = (events) => events.map((event) => event.kind);

test('an uncaught exception arrives before the process has ended, with chain and frames', async () => {
  const { result, events } = await watched(
    `function inner() { throw new RangeError('root') }
     function outer() { try { inner() } catch (cause) { throw Object.assign(new Error('top'), { cause }) } }
     outer();`
  );
  const [event] = events;
  assert.strictEqual(event.kind, 'uncaught');
  assert.strictEqual(event.handled, undefined);
  assert.deepStrictEqual(event.raised.map(({ type, relation }) => [type, relation]), [['Error', 'raised'], ['RangeError', 'cause']]);
  const innermost = event.raised[1].frames[event.raised[1].frames.length - 1];
  assert.deepStrictEqual([innermost.module, innermost.function, innermost.line, innermost.in_app], ['program.js', 'inner', 1, true]);
  assert.ok(event.arrived <= result.endedAt);
  assert.match(event.id, /^[0-9a-f]{32}$/);
  assert.ok(event.system.heap_limit > 0 && event.system.rss > 0);
});

test('an unhandled rejection is of kind rejection', async () => {
  const { events } = await watched(`Promise.reject(new TypeError('rejected'))`);
  assert.deepStrictEqual(kinds(events), ['rejection']);
});

test('a rejection of a text has the text as its message', async () => {
  const { events } = await watched(`process.on('unhandledRejection', () => {}); Promise.reject('just a text'); setTimeout(() => {}, 700)`);
  assert.deepStrictEqual([events[0].kind, events[0].message, events[0].handled], ['rejection', 'just a text', true]);
});

test('a rejection that is handled within the grace time is not told', async () => {
  const { events } = await watched(
    `process.on('unhandledRejection', () => {}); const p = Promise.reject(new Error('late')); setTimeout(() => p.catch(() => {}), 100); setTimeout(() => {}, 800)`
  );
  assert.deepStrictEqual(events, []);
});

test('an exception that a listener survives is told as handled', async () => {
  const { events } = await watched(`process.on('uncaughtException', () => {}); setTimeout(() => { throw new Error('x') })`);
  assert.deepStrictEqual([events[0].kind, events[0].handled], ['uncaught', true]);
});

test('an exit status that says failure is told with the stack that chose it', async () => {
  const { events } = await watched(`function giveUp() { process.exit(3) } giveUp();`);
  assert.deepStrictEqual(kinds(events), ['exit']);
  assert.strictEqual(events[0].facts.exit_code, 3);
  assert.ok(events[0].raised[0].frames.some((frame) => frame.function === 'giveUp'));
});

test('a main module that waits in vain is told by its status', async () => {
  const { result, events } = await watched(`await new Promise(() => {});`, { name: 'program.mjs' });
  assert.deepStrictEqual([result.status, kinds(events), events[0].facts.exit_code], [13, ['exit'], 13]);
});

test('a clean end tells nothing', async () => {
  const { remediator } = await watched(`console.log('fine'); process.exit(0)`);
  assert.strictEqual(remediator.requests, 0);
});

test('a leak of listeners is told, a deprecation is not', async () => {
  const { events } = await watched(
    `const e = new (require('events'))(); for (let i = 0; i < 12; i++) e.on('x', () => {}); process.emitWarning('old', 'DeprecationWarning'); process.emitWarning('strange', 'OddWarning');`
  );
  assert.deepStrictEqual(kinds(events), ['resource', 'logged']);
});

test('an error that is only printed is told once', async () => {
  const { events } = await watched(`const e = new Error('printed'); console.error('it failed', e); console.warn(e); console.error('no error');`);
  assert.deepStrictEqual([kinds(events), events[0].count, events[0].handled], [['logged'], undefined, true]);
});

test('a refused HTTP request that is caught is told with address and errno', async () => {
  const { events } = await watched(`require('http').get('http://127.0.0.1:1/pay?card=4111').on('error', () => {});`);
  assert.deepStrictEqual(kinds(events), ['http']);
  assert.deepStrictEqual(events[0].facts, { peer: '127.0.0.1:1', url: 'http://127.0.0.1:1/pay', errno: 111 });
});

const SERVER = `const http = require('http'); const server = http.createServer((q, s) => { if (q.url === '/slow') return; s.statusCode = Number(q.url.slice(1)) || 200; s.end('x'); }).listen(0, '127.0.0.1', () => main('http://127.0.0.1:' + server.address().port));`;

test('an answer of 5xx that nobody looks at is told, one of 4xx is not', async () => {
  const { events } = await watched(`${SERVER} function main(url) { for (const s of [200, 404, 503]) http.get(url + '/' + s, (r) => r.resume()); setTimeout(() => process.exit(), 300); }`);
  assert.deepStrictEqual(events.map((event) => [event.kind, event.facts.status]), [['http_status', 503]]);
});

test('a request that times out is told once, though its end makes an error as well', async () => {
  const { events } = await watched(
    `${SERVER} function main(url) { const r = http.get(url + '/slow', { timeout: 100 }); r.on('timeout', () => r.destroy()); r.on('error', () => setTimeout(() => process.exit(), 100)); }`
  );
  assert.deepStrictEqual(events.map((event) => [event.kind, event.facts.seconds, event.facts.errno]), [['http', 0.1, 110]]);
});

test('a request that the program itself aborts is not told', async () => {
  const { events } = await watched(
    `${SERVER} function main(url) { const c = new AbortController(); const r = http.get(url + '/slow', { signal: c.signal }); r.on('error', () => setTimeout(() => process.exit(), 50)); setTimeout(() => c.abort(), 100); }`
  );
  assert.deepStrictEqual(events, []);
});

test('fetch: refused, and 5xx, are told, aborted is not', { skip: major < 18 }, async () => {
  const { events } = await watched(
    `${SERVER} async function main(url) { await fetch('http://127.0.0.1:47113/x?k=v').catch(() => {}); await (await fetch(url + '/503')).text();
     const c = new AbortController(); setTimeout(() => c.abort(), 50); await fetch(url + '/slow', { signal: c.signal }).catch(() => {}); process.exit(); }`
  );
  assert.deepStrictEqual(events.map((event) => [event.kind, event.facts.status, event.facts.errno]), [['http', undefined, 111], ['http_status', 503, undefined]]);
});

test('a refused connection of any library is told, of databases by their port', async () => {
  const { events } = await watched(
    `const net = require('net'); new net.Socket().on('error', () => {}).connect(2, '127.0.0.1'); net.connect(5432, '127.0.0.1').on('error', () => {});`
  );
  const found = events.map((event) => [event.kind, event.facts.peer]).sort();
  assert.deepStrictEqual(found, [['database', '127.0.0.1:5432'], ['http', '127.0.0.1:2']]);
});

test('a file that cannot be opened names its path when it ends the program', async () => {
  const { events } = await watched(`require('fs').readFileSync('/no/such/file')`);
  assert.deepStrictEqual(events[0].facts, { errno: 2, path: '/no/such/file' });
});

test('children that answer no, that somebody has ended in an orderly way or that are aborted are not told', async () => {
  const { events } = await watched(
    `const { exec, execFile, spawn } = require('child_process'); const none = () => {};
     exec('LANG=C /bin/grep x /dev/null | cat && grep x /dev/null', none); execFile('which', ['no-such-thing'], none);
     process.kill(spawn('sleep', ['20']).pid, 'SIGTERM'); exec('kill -TERM $$', none); exec('sh -c "kill -INT \\$\\$"; exit 130', none);
     const { signal, abort } = (() => { const it = new AbortController(); return { signal: it.signal, abort: () => it.abort() } })();
     exec('sleep 20', { signal }, none); abort();`
  );
  assert.deepStrictEqual(events, []);
});

test('a connection that undici opens again for a request that the program has aborted is nobody\'s failure', { skip: major < 18 && 'fetch' }, async () => {
  const { events } = await watched(
    `const server = require('http').createServer(() => {}).listen(0, '127.0.0.1', async () => {
       const stop = new AbortController(); const asked = fetch('http://127.0.0.1:' + server.address().port, { signal: stop.signal }).catch(() => {});
       setTimeout(() => stop.abort(), 100); await asked; server.close(); server.closeAllConnections();
     });`
  );
  assert.deepStrictEqual(events, []);
});

test('errors of one place that differ in their peer, path or status are told apart', async () => {
  const { events } = await watched(
    `const http = require('http'), fs = require('fs'), { exec } = require('child_process');
     const ask = (port) => new Promise((done) => http.get({ host: '127.0.0.1', port, path: '/x' }, (it) => it.resume().on('end', done)).on('error', done));
     const servers = [0, 1].map(() => http.createServer((_, response) => { response.statusCode = 500; response.end() }).listen(0, '127.0.0.1'));
     setTimeout(async () => {
       const ports = servers.map((one) => one.address().port);
       for (const port of ports) await ask(port);
       for (const one of servers) await new Promise((done) => one.close(done));
       for (const port of ports) await ask(port);
       for (const path of ['/none/1', '/none/2']) console.error(await fs.promises.readFile(path).catch((error) => error));
       for (const code of [3, 4]) exec('exit ' + code, () => {});
     }, 50);`
  );
  const found = events.filter((event) => event.kind !== 'callback').map(({ kind, count, facts }) => [kind, count]);
  const twice = ['child', 'http', 'http_status', 'logged'].flatMap((kind) => [[kind, undefined], [kind, undefined]]);
  assert.deepStrictEqual(found.sort(), twice);
});

test('a status of 1 of a program that answers no by it is told of all others', async () => {
  const { events } = await watched(`require('child_process').exec('echo grep; sh -c "exit 1"', () => {})`);
  assert.deepStrictEqual(events.map((event) => [event.kind, event.facts.exit_code]), [['child', 1]]);
});

test('children that fail, cannot start or are killed by others are told; those that the program ends are not', async () => {
  const { events } = await watched(
    `const { spawn } = require('child_process'); spawn('sh', ['-c', 'exit 4']); spawn('no-such-thing').on('error', () => {}); spawn('sh', ['-c', 'kill -9 $$']); spawn('true'); spawn('sleep', ['20']).kill();`
  );
  const found = events.map(({ kind, facts }) => [kind, facts.exit_code || facts.signal || facts.errno]).sort();
  assert.deepStrictEqual(found, [['child', 2], ['child', 4], ['child', 'SIGKILL']].sort());
});

test('a worker thread that fails is told by the main thread, with its stack', async () => {
  const { events } = await watched(
    `const { Worker } = require('worker_threads'); new Worker('function inWorker() { throw new Error("inside") } inWorker()', { eval: true }).on('error', () => {});`
  );
  assert.deepStrictEqual(kinds(events), ['thread']);
  assert.ok(events[0].raised[0].frames.some((frame) => frame.function === 'inWorker'));
});

test('what a worker thread sees is sent by the main thread', async () => {
  const { events, remediator } = await watched(
    `const { Worker } = require('worker_threads'); new Worker("require('http').get('http://127.0.0.1:1/').on('error', () => {}); console.error(new Error('printed inside'))", { eval: true });`
  );
  assert.deepStrictEqual(kinds(events).sort(), ['http', 'logged']);
  assert.strictEqual(new Set(remediator.batches.map((batch) => batch.sender.boot)).size, 1);
});

test('a worker thread that the program terminates is not told', async () => {
  const { events } = await watched(`const { Worker } = require('worker_threads'); const w = new Worker('setInterval(() => {}, 1000)', { eval: true }); w.on('online', () => w.terminate());`);
  assert.deepStrictEqual(events, []);
});

test('a blocked loop is told with its seconds, a loading program is not', async () => {
  const block = (ms) => `{ const end = Date.now() + ${ms}; while (Date.now() < end); }`;
  const { events } = await watched(`${block(700)} setTimeout(() => ${block(800)}, 1400); setTimeout(() => {}, 3500);`);
  assert.deepStrictEqual(kinds(events), ['loop_blocked']);
  assert.ok(events[0].facts.seconds > 0.6 && events[0].facts.seconds < 1.5, String(events[0].facts.seconds));
});

test('open files near their limit are told once', async () => {
  const { events } = await watched(
    `const fs = require('fs'); const { execSync } = require('child_process'); for (let i = 0; i < 200; i++) fs.openSync('/dev/null'); setTimeout(() => {}, 2500);`,
    { args: [], env: {} }
  );
  assert.deepStrictEqual(kinds(events), [], 'far from the limit');
  const remediator = await Remediator.start();
  const inner = `for (let i = 0; i < 180; i++) require('fs').openSync('/dev/null'); setTimeout(() => {}, 2500);`;
  const code = `process.exitCode = require('child_process').spawnSync('sh', ['-c', 'ulimit -n 220; exec "$0" -r "$1" -e "$2"', process.execPath, ${JSON.stringify(FILE)}, ${JSON.stringify(inner)}], { stdio: 'inherit' }).status;`;
  await run(code, { env: settings(remediator) });
  const told = await remediator.event('handles');
  assert.ok(told.facts.value >= 180 && told.facts.limit === 220, JSON.stringify(told.facts));
  await remediator.close();
});

test('a heap that grows towards its limit is told before the process dies of it', async () => {
  const remediator = await Remediator.start();
  const code = `require(${JSON.stringify(FILE)})({ memory: { window: 0.9, windows: 6, share: 0.1 } }); const kept = []; setInterval(() => kept.push(Buffer.alloc(8).toString().repeat(1), new Array(60000).fill(kept.length)), 60); setTimeout(() => process.exit(), 12000);`;
  const ended = run(code, { env: settings(remediator), args: ['--max-old-space-size=150'] });
  const event = await remediator.event('memory', (one) => /heap/.test(one.message));
  assert.ok(event.facts.value < event.facts.limit);
  await ended;
  await remediator.close();
});
