'use strict';
/* A remediator that writes down what it gets, and programs that run with and without the monitor. */

const { spawn } = require('child_process');
const fs = require('fs');
const http = require('http');
const os = require('os');
const path = require('path');

const FILE = path.resolve(__dirname, '..', 'silent-error-monitoring.js');
const DEADLINE = 15000;

class Remediator {
  constructor() {
    this.batches = [];
    this.requests = 0;
    this.paths = [];
    this.statuses = []; // answers of the next requests; 200 after them
    this.waiting = [];
    this.server = http.createServer((request, response) => this.take(request, response));
  }

  static async start(port = 0) {
    const remediator = new Remediator();
    await new Promise((resolve) => remediator.server.listen(port, '127.0.0.1', resolve));
    remediator.server.unref(); // a failed test leaves it behind, and must end all the same
    remediator.port = remediator.server.address().port;
    remediator.url = `http://127.0.0.1:${remediator.port}`;
    return remediator;
  }

  take(request, response) {
    const parts = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', () => {
      this.requests++;
      this.paths.push(request.url);
      const status = this.statuses.shift() || 200;
      if (status === 'silence') return;
      const body = JSON.parse(Buffer.concat(parts).toString());
      if (status < 300)
        this.batches.push({ ...body, at: Date.now(), path: request.url, authorization: request.headers.authorization });
      response.writeHead(status, { 'content-type': 'application/json', ...(status === 429 && { 'retry-after': '1' }) });
      response.end('{}');
      for (const look of [...this.waiting]) look();
    });
  }

  get events() {
    return this.batches.flatMap((batch) => (batch.events || []).map((event) => ({ ...event, arrived: batch.at })));
  }

  get calls() {
    return this.batches.flatMap((batch) => batch.calls || []);
  }

  /** Wait until *find(this)* gives something, and return it. */
  until(find, what = 'what was awaited') {
    return new Promise((resolve, reject) => {
      const done = () => {
        clearTimeout(timer);
        this.waiting = this.waiting.filter((one) => one !== look);
      };
      const look = () => {
        const found = find(this);
        if (!found) return;
        done();
        resolve(found);
      };
      const timer = setTimeout(() => {
        done();
        reject(
          new Error(
            `${what} did not come; there is ${JSON.stringify(this.events.map(({ kind, message }) => [kind, message]))}`
          )
        );
      }, DEADLINE);
      this.waiting.push(look);
      look();
    });
  }

  event(kind, more = () => true) {
    return this.until(
      () => this.events.find((event) => event.kind === kind && more(event)),
      `an event of kind ${kind}`
    );
  }

  close() {
    if (this.server.closeAllConnections) this.server.closeAllConnections();
    return new Promise((resolve) => this.server.close(resolve));
  }
}

const folders = [];

function folder() {
  const made = fs.mkdtempSync(path.join(os.tmpdir(), 'soulfra-node-test-'));
  folders.push(made);
  return made;
}

process.on('exit', () => folders.forEach((made) => fs.rmSync(made, { recursive: true, force: true })));

function settings(remediator, more = {}) {
  return {
    SOULFRA_URL: remediator ? remediator.url : 'http://127.0.0.1:9',
    SOULFRA_SERVICE: 'shop',
    SOULFRA_TOKEN: 'ingest-token',
    SOULFRA_SPOOL: folder(),
    ...more,
  };
}

/** Write a program to a file and start it; *args* stand before it. */
function launch(code, { args = [], env = {}, name = 'program.js', files = {} } = {}) {
  const home = folder();
  fs.symlinkSync(path.resolve(__dirname, '..', 'node_modules'), path.join(home, 'node_modules'));
  const file = path.join(home, name);
  fs.writeFileSync(file, code);
  for (const [other, text] of Object.entries(files)) fs.writeFileSync(path.join(home, other), text);
  const { NODE_OPTIONS, ...inherited } = process.env;
  for (const key of Object.keys(inherited))
    if (/^(SOULFRA_|NODE_TEST|ERROR_|MONITORING_)/.test(key)) delete inherited[key];
  const child = spawn(process.execPath, [...args, file], { cwd: home, env: { ...inherited, ...env } });
  const result = { stdout: '', stderr: '', home, file };
  child.stdout.on('data', (part) => (result.stdout += part));
  child.stderr.on('data', (part) => (result.stderr += part));
  const began = Date.now();
  const timer = setTimeout(() => child.kill('SIGKILL'), 30000);
  const ended = new Promise((resolve) => {
    child.on('close', (status, signal) => {
      clearTimeout(timer);
      resolve({ ...result, status, signal, took: Date.now() - began, endedAt: Date.now() });
    });
  });
  return { child, ended, result };
}

const run = (code, options) => launch(code, options).ended;

/** Run it under the preload. */
function watchRun(code, remediator, { env, args = [], ...more } = {}) {
  return run(code, { args: ['-r', FILE, ...args], env: settings(remediator, env), ...more });
}

const major = Number(process.versions.node.split('.')[0]);

module.exports = { FILE, Remediator, folder, settings, launch, run, watchRun, major };
