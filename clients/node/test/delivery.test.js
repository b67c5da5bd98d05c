'use strict';
/* How events reach the remediator: at once, counted exactly, kept while it is away, never at the program's expense. */

const assert = require('assert');
const fs = require('fs');
const path = require('path');
const { test } = require('node:test');
const { FILE, Remediator, folder, launch, run, settings, watchRun } = require('./support');

const REQUIRE = `const monitor = require(${JSON.stringify(FILE)})`;
const countOf = (events) => events.reduce((sum, event) => sum + (event.count || 1), 0);
const droppedOf = (batches) => batches.reduce((sum, batch) => sum + Object.values(batch.dropped || {}).reduce((a, b) => a + b, 0), 0);

test('a batch says who sends it, in which order, with the token', async () => {
  const remediator = await Remediator.start();
  await run(`${REQUIRE}({ release: '1.2.3' }); monitor.report('a'); monitor.flush().then(() => { monitor.report('b'); });`, { env: settings(remediator) });
  const [first, second] = remediator.batches;
  assert.strictEqual(first.path, '/api/monitoring/errors');
  assert.strictEqual(first.authorization, 'Bearer ingest-token');
  assert.match(first.sender.boot, /^[0-9a-f]{32}$/);
  assert.match(first.sender.name, /^soulfra-node\//);
  assert.deepStrictEqual([first.seq, second.seq, first.sender.boot === second.sender.boot], [1, 2, true]);
  assert.strictEqual(first.events[0].release, '1.2.3');
  await remediator.close();
});

test('an error that the process survives is told in less than a second', async () => {
  const remediator = await Remediator.start();
  const code = `process.on('uncaughtException', () => {}); setTimeout(() => { throw new Error(String(Date.now())) }, 300); setTimeout(() => {}, 2500);`;
  await watchRun(code, remediator);
  const [event] = remediator.events;
  assert.ok(event.arrived - Number(event.message) < 1000, String(event.arrived - Number(event.message)));
  await remediator.close();
});

test('alike errors are counted, others are told by themselves, and no number is lost', async () => {
  const remediator = await Remediator.start();
  const code = `${REQUIRE}({ interval: 0.5 });
    function one() { monitor.report(new Error('alike ' + Math.random())) } function other() { monitor.report(new TypeError('other')) }
    for (let i = 0; i < 500; i++) one(); for (let i = 0; i < 30; i++) other(); setTimeout(() => { one(); other(); }, 1200); setTimeout(() => {}, 1500);`;
  await run(code, { env: settings(remediator) });
  const of = (type) => remediator.events.filter((event) => event.raised[0].type === type);
  assert.deepStrictEqual([countOf(of('Error')), countOf(of('TypeError'))], [501, 31]);
  assert.ok(remediator.events.length <= 8, String(remediator.events.length));
  await remediator.close();
});

test('a storm of different errors is bounded, and every error is told or counted as dropped', async () => {
  const remediator = await Remediator.start();
  const word = `[...String(i)].map((d) => 'abcdefghij'[d]).join('')`;
  const code = `Error.stackTraceLimit = 0; ${REQUIRE}({ queueEvents: 50 }); for (let i = 0; i < 10000; i++) monitor.report('strange ' + ${word}); console.log(monitor.stats().taken);`;
  const { stdout } = await run(code, { env: settings(remediator) });
  assert.strictEqual(stdout, '10000\n');
  assert.ok(remediator.events.length > 10 && remediator.events.length <= 100, String(remediator.events.length));
  assert.strictEqual(countOf(remediator.events) + droppedOf(remediator.batches), 10000);
  await remediator.close();
});

test('a monitor that costs more than it may does less, says so, and still counts', async () => {
  const remediator = await Remediator.start();
  const code = `${REQUIRE}({ overheadLimit: 0.0001, interval: 0.5 }); let n = 0; const one = () => { for (let i = 0; i < 5; i++) { n++; monitor.report(new Error('again')); } }; one();
    setInterval(() => { one(); if (monitor.stats().shedding && n > 50) { console.log(n); process.exit(); } }, 100);`;
  const { stdout } = await run(code, { env: settings(remediator) });
  assert.strictEqual(countOf(remediator.events), Number(stdout));
  assert.ok(remediator.batches.some((batch) => batch.shedding));
  await remediator.close();
});

test('a remediator that is away gets all of it when it is back', async () => {
  const remediator = await Remediator.start();
  remediator.statuses = [503, 500, 429];
  const code = `${REQUIRE}(); for (let i = 0; i < 20; i++) setTimeout(() => monitor.report(new Error('x')), i * 50); setTimeout(() => {}, 9000); setInterval(() => monitor.stats().delivered === 20 && process.exit(), 50);`;
  await run(code, { env: settings(remediator) });
  assert.strictEqual(countOf(remediator.events), 20);
  const seqs = remediator.batches.map((batch) => batch.seq);
  assert.deepStrictEqual(seqs, seqs.map((_, at) => at + 1));
  await remediator.close();
});

test('a 429 is obeyed for as long as it says', async () => {
  const remediator = await Remediator.start();
  remediator.statuses = [429];
  const began = Date.now();
  await run(`${REQUIRE}(); monitor.report('x'); setInterval(() => monitor.stats().delivered && process.exit(), 20);`, { env: settings(remediator) });
  assert.ok(Date.now() - began >= 1000);
  assert.strictEqual(remediator.requests, 2);
  await remediator.close();
});

test('what a remediator refuses is dropped with its number, and said once on stderr', async () => {
  const remediator = await Remediator.start();
  remediator.statuses = [422];
  const { stderr } = await run(`${REQUIRE}(); monitor.report('refused'); setTimeout(() => monitor.report('taken'), 500); setTimeout(() => {}, 1000);`, { env: settings(remediator) });
  assert.deepStrictEqual(remediator.events.map((event) => event.message), ['taken']);
  assert.deepStrictEqual(remediator.batches[0].dropped, { refused: 1 });
  assert.strictEqual(stderr, 'soulfra: remediator: a batch was refused with 422\n');
  await remediator.close();
});

test('what nobody took is told by the next start of the service, once', async () => {
  const spool = folder();
  const away = await watchRun(`throw new Error('while away')`, null, { env: { SOULFRA_SPOOL: spool } });
  assert.strictEqual(away.status, 1);
  const [file] = fs.readdirSync(spool);
  assert.strictEqual(fs.statSync(path.join(spool, file)).mode & 0o077, 0);
  const remediator = await Remediator.start();
  for (let i = 0; i < 2; i++) await watchRun(`setTimeout(() => {}, 800)`, remediator, { env: { SOULFRA_SPOOL: spool } });
  assert.deepStrictEqual(remediator.events.map(({ kind, message }) => [kind, message]), [['uncaught', 'while away']]);
  assert.deepStrictEqual(fs.readdirSync(spool), []);
  await remediator.close();
});

test('what waits for a remediator survives SIGKILL', async () => {
  const spool = folder();
  const { child, ended } = launch(`console.error(new Error('waiting')); setInterval(() => require('fs').readdirSync(${JSON.stringify(spool)}).length && console.log('kept'), 20);`, {
    args: ['-r', FILE], env: settings(null, { SOULFRA_SPOOL: spool }),
  });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  child.kill('SIGKILL');
  await ended;
  const remediator = await Remediator.start();
  await watchRun(`setTimeout(() => {}, 800)`, remediator, { env: { SOULFRA_SPOOL: spool } });
  assert.deepStrictEqual(remediator.events.map(({ kind, message }) => [kind, message]), [['logged', 'waiting']]);
  await remediator.close();
});

test('a spool that others may write to is not used', async () => {
  const spool = folder();
  fs.chmodSync(spool, 0o777);
  const { stderr } = await watchRun(`console.error('x', new Error('secret enough'))`, null, { env: { SOULFRA_SPOOL: spool } });
  assert.deepStrictEqual(fs.readdirSync(spool), []);
  assert.match(stderr, /must be a folder that only its user may write to/);
});

test('a spool that cannot be looked into is told, and nothing is thrown', async () => {
  const { status, stderr } = await run(`const fs = require('fs'); fs.readdirSync = () => { throw Object.assign(new Error('EMFILE: too many open files'), { code: 'EMFILE' }); }; ${REQUIRE}(); setTimeout(() => {}, 200);`, { env: settings() });
  assert.strictEqual(status, 0);
  assert.match(stderr, /^soulfra: spool: EMFILE: too many open files$/m);
});

test('a heartbeat that is not taken is told', async () => {
  const remediator = await Remediator.start();
  remediator.statuses = [404];
  const { stderr } = await run(`${REQUIRE}(); monitor.heartbeat('nightly'); monitor.heartbeat('nightly'); setTimeout(() => {}, 500);`, { env: settings(remediator) });
  assert.strictEqual(stderr, 'soulfra: heartbeat: nightly was not taken: status 404\n');
  await remediator.close();
});

test('a remediator that is away makes no work: no loop of errors about errors', async () => {
  const code = `${REQUIRE}(); monitor.report('x'); const began = process.cpuUsage(); setTimeout(() => { const { user, system } = process.cpuUsage(began); console.log((user + system) / 1e6); console.log(JSON.stringify(monitor.stats())); process.exit(); }, 3000);`;
  const { stdout, took } = await run(code, { env: settings(null) });
  const [cpu, stats] = stdout.split('\n');
  assert.ok(Number(cpu) < 1, cpu);
  const { taken, waiting, failures, remediatorAway } = JSON.parse(stats);
  assert.deepStrictEqual({ taken, waiting, failures, remediatorAway }, { taken: 1, waiting: 1, failures: 0, remediatorAway: true });
  assert.ok(took < 6000, String(took));
});

test('a loop that is blocked does not hold back what was on its way to our thread', async () => {
  const remediator = await Remediator.start();
  const code = `${REQUIRE}(); monitor.report('first'); setTimeout(() => { monitor.report('x'); setTimeout(() => { const end = Date.now() + 1500; while (Date.now() < end); console.log(Date.now()); }, 100); }, 300);`;
  const { stdout } = await run(code, { env: settings(remediator) });
  const event = remediator.events.find((one) => one.message === 'x');
  assert.ok(event.arrived < Number(stdout), `${event.arrived} ${stdout}`);
  await remediator.close();
});

test('the program\'s own fakes of timers and of http do not reach us', async () => {
  const remediator = await Remediator.start();
  const code = `globalThis.setTimeout = () => { throw new Error('fake') }; globalThis.setInterval = globalThis.setTimeout; require('http').request = () => { throw new Error('no network here') }; Date.now = () => 0; throw new Error('end');`;
  await watchRun(code, remediator);
  const event = await remediator.event('uncaught');
  assert.ok(event.at > 1e9);
  await remediator.close();
});
