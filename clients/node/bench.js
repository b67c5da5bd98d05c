'use strict';
/*
 * What watching costs: node bench.js [--quick]. It starts itself as the programs that are measured, and a remediator
 * that takes everything. Numbers are medians; they mean something on a machine that does nothing else.
 */

const { spawnSync } = require('child_process');
const fs = require('fs');
const http = require('http');
const os = require('os');
const path = require('path');
const { performance } = require('perf_hooks');
const { Worker } = require('worker_threads');

const FILE = path.join(__dirname, 'silent-error-monitoring.js');
const quick = process.argv.includes('--quick');
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const times = (count, measure) => Array.from({ length: count }, measure);

/** A remediator in a thread of its own, so that it costs the measured program nothing. */
function remediator() {
  const code = `require('http').createServer((q, s) => { q.resume(); q.on('end', () => s.end('{}')); }).listen(0, '127.0.0.1', function () { require('worker_threads').parentPort.postMessage(this.address().port) })`;
  const worker = new Worker(code, { eval: true });
  worker.unref();
  return new Promise((resolve) => worker.once('message', (port) => resolve(`http://127.0.0.1:${port}`)));
}

/** Nanoseconds of one call, the least of some rounds: what else runs only ever adds. */
function perCall(call, rounds = quick ? 5 : 15, calls = quick ? 2e5 : 1e6) {
  const round = () => {
    const began = performance.now();
    for (let i = 0; i < calls; i++) call(i);
    return ((performance.now() - began) * 1e6) / calls;
  };
  round();
  return Math.min(...times(rounds, round));
}

async function perAwait(call, rounds = quick ? 5 : 11, calls = quick ? 5e4 : 2e5) {
  const round = async () => {
    const began = performance.now();
    for (let i = 0; i < calls; i++) await call(i);
    return ((performance.now() - began) * 1e6) / calls;
  };
  await round();
  let least = Infinity;
  for (let i = 0; i < rounds; i++) least = Math.min(least, await round());
  return least;
}

class Service {
  constructor() {
    this.total = 0;
  }
  add(x) {
    this.total = (this.total + x) | 0;
    return this.total;
  }
  async later(x) {
    return x;
  }
  fails(x) {
    throw new Error(`failed ${x & 7}`);
  }
}

async function calls(url) {
  const monitor = require(FILE)({ service: 'bench', url, overheadLimit: 100 });
  const plain = new Service();
  const watched = monitor.addService('service', new Service());
  const sync = [perCall((i) => plain.add(i)), perCall((i) => watched.add(i))];
  const awaited = [await perAwait((i) => plain.later(i)), await perAwait((i) => watched.later(i))];
  const failing = (service) =>
    perCall(
      (i) => {
        try {
          service.fails(i);
        } catch {
          return 0;
        }
        return 1;
      },
      3,
      2e4
    );
  return { sync, awaited, failing: [failing(plain), failing(watched)] };
}

/** Run this file as a program that does one thing, and give back what it prints. */
function child(part, args, env) {
  const { stdout, stderr, status } = spawnSync(process.execPath, [...args, __filename, part], {
    env: { ...process.env, ...env },
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`${part}: ${stderr}`);
  return Number(stdout.trim().split('\n').pop());
}

/** Milliseconds from start to end of a process. */
function duration(code, args, env) {
  const began = performance.now();
  spawnSync(process.execPath, [...args, '-e', code], { env: { ...process.env, ...env }, stdio: 'ignore' });
  return performance.now() - began;
}

const PARTS = {
  /** Resident bytes after half a second, with what a server loads anyway. */
  rss() {
    require('http');
    setTimeout(() => {
      if (global.gc) global.gc();
      console.log(process.memoryUsage.rss());
    }, 500);
  },
  /** The same after an error was sent. */
  rssAfterError() {
    require('http');
    console.error(new Error('one'));
    setTimeout(() => console.log(process.memoryUsage.rss()), 1500);
  },
  /** CPU milliseconds of three idle seconds. */
  idle() {
    setTimeout(() => {
      const before = process.cpuUsage();
      setTimeout(() => {
        const { user, system } = process.cpuUsage(before);
        console.log((user + system) / 1000);
      }, 3000);
    }, 500);
  },
  /** CPU microseconds of one HTTP request that is answered and asked in one process. */
  requests() {
    const server = http
      .createServer((q, s) => s.end('ok'))
      .listen(0, '127.0.0.1', async () => {
        const agent = new http.Agent({ keepAlive: true });
        const get = () =>
          new Promise((resolve) =>
            http.get({ port: server.address().port, agent }, (r) => r.resume().on('end', resolve))
          );
        for (let i = 0; i < 500; i++) await get();
        const count = quick ? 2000 : 10000;
        const before = process.cpuUsage();
        for (let i = 0; i < count; i++) await get();
        const { user, system } = process.cpuUsage(before);
        console.log((user + system) / count);
        process.exit();
      });
  },
};

async function main() {
  const url = await remediator();
  const spool = fs.mkdtempSync(path.join(os.tmpdir(), 'soulfra-bench-'));
  const env = { SOULFRA_URL: url, SOULFRA_SERVICE: 'bench', SOULFRA_SPOOL: spool };
  const away = { ...env, SOULFRA_URL: 'http://127.0.0.1:9', SOULFRA_SERVICE: 'away' }; // what it leaves is not for the others
  const preload = ['-r', FILE];
  const rounds = quick ? 3 : 9;
  const pair = (measure, count = rounds) => {
    const both = times(count, () => [measure([]), measure(preload)]);
    return [median(both.map(([plain]) => plain)), median(both.map(([, watched]) => watched))];
  };
  const line = (what, [plain, watched], unit, digits = 1) => {
    console.log(
      `${what.padEnd(44)} ${plain.toFixed(digits).padStart(9)} ${watched.toFixed(digits).padStart(9)} ${(watched - plain).toFixed(digits).padStart(9)} ${unit}`
    );
  };
  console.log(`Node ${process.version}${' '.repeat(33)} without   watched     added`);
  const { sync, awaited, failing } = await calls(url);
  line('a sync call', sync, 'ns');
  line('an awaited call of an async method', awaited, 'ns');
  line('a call that throws', failing, 'ns', 0);
  line(
    'an HTTP request, asked and answered (CPU)',
    pair((args) => child('requests', args, env), quick ? 1 : 5),
    'us'
  );
  line(
    'start and end of an empty program',
    pair((args) => duration('', args, env)),
    'ms'
  );
  line(
    'start and end by an uncaught exception',
    pair((args) => duration('throw new Error("x")', args, env)),
    'ms'
  );
  line(
    'the same, the remediator away',
    pair((args) => duration('throw new Error("x")', args, away)),
    'ms'
  );
  const mb = (part) => pair((args) => child(part, args, env) / 1e6, quick ? 1 : 3);
  line('resident memory, nothing to say', mb('rss'), 'MB');
  line('resident memory, once something was sent', mb('rssAfterError'), 'MB');
  line(
    'CPU of an idle second',
    pair((args) => child('idle', args, env) / 3, quick ? 1 : 3),
    'ms',
    2
  );
  fs.rmSync(spool, { recursive: true });
  process.exit();
}

const part = PARTS[process.argv[2]];
if (part) part();
else main();
