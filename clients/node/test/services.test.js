'use strict';
/* Watched objects behave as plain ones; what goes through them is counted, and what goes wrong is told. */

const assert = require('assert');
const { EventEmitter } = require('events');
const { test } = require('node:test');
const start = require('../silent-error-monitoring.js');
const { Remediator, folder } = require('./support');

class Base {
  #secret = 41;
  static made = 0;
  constructor(step = 1) {
    this.step = step;
    this.arrow = (x) => x * this.step;
    Base.made++;
  }
  reveal() {
    return ++this.#secret;
  }
  me() {
    return this;
  }
  get double() {
    return this.step * 2;
  }
  set double(value) {
    this.step = value / 2;
  }
  overridden() {
    return 'base';
  }
  fails() {
    throw new RangeError('method failed');
  }
  _hidden() {
    return 'hidden';
  }
  async later(value) {
    await null;
    return value;
  }
  async rejects() {
    await null;
    throw new TypeError('method rejected');
  }
  *numbers(n) {
    for (let i = 0; i < n; i++) {
      const got = yield i;
      if (got === 'stop') return 'stopped';
    }
    return 'done';
  }
  async *slowNumbers(n) {
    for (let i = 0; i < n; i++) yield i;
    if (n > 5) throw new Error('too many');
  }
  callback(value, done) {
    setImmediate(done, null, value);
  }
  outer() {
    return this.me() === this && this.overridden();
  }
  *[Symbol.iterator]() {
    yield* [this.step, this.step + 1];
  }
  [Symbol.toPrimitive]() {
    return this.step;
  }
  toString() {
    return `Base(${this.step})`;
  }
}

class Service extends Base {
  overridden() {
    return `${super.overridden()}+service`;
  }
}

class Emitting extends EventEmitter {
  work() {
    this.emit('done', 7);
  }
}

let remediator;
let monitor;
let name = 0;

function watch(object, options) {
  const service = `service-${++name}`;
  const returned = monitor.addService(service, object, options);
  assert.strictEqual(returned, object);
  return { service, object };
}

async function calls(service, method) {
  assert.ok(await monitor.flush());
  const found = remediator.calls.filter((call) => call.service === service && call.method === method);
  const sum = (key) => found.reduce((total, call) => total + call[key], 0);
  return { count: sum('count'), failures: sum('failures'), buckets: found.reduce((total, call) => total + call.buckets.reduce((a, b) => a + b, 0), 0) };
}

const told = (kind, service) => remediator.event(kind, (event) => event.service === service);

// Node 16 knows no hooks of a file. What is started here keeps no process alive.
async function begin() {
  remediator = await Remediator.start();
  monitor = start({ service: 'tests', url: remediator.url, spool: folder(), hung: 0.5, slow: 0.2, without: ['crash', 'rejections', 'exit'] });
}

const begun = begin();

function describe(what, tests) {
  tests((name, body) => test(`${what} ${name}`, async () => {
    await begun;
    await body();
  }));
}

describe('a watched object', (it) => {
  it('keeps identity, class, private fields, accessors, symbols and super calls', () => {
    const { object } = watch(new Service(3));
    assert.ok(object instanceof Service && object instanceof Base);
    assert.strictEqual(object.constructor, Service);
    assert.strictEqual(object.me(), object);
    assert.strictEqual(object.reveal(), 42);
    assert.strictEqual(object.double, 6);
    object.double = 10;
    assert.strictEqual(object.step, 5);
    assert.deepStrictEqual([...object], [5, 6]);
    assert.strictEqual(+object, 5);
    assert.strictEqual(object.toString(), 'Base(5)');
    assert.strictEqual(object.overridden(), 'base+service');
    assert.strictEqual(object.outer(), 'base+service');
    assert.strictEqual(object.arrow(2), 10);
    assert.strictEqual(object._hidden(), 'hidden');
  });

  it('has the same own keys, and methods with the same names and lengths', () => {
    const plain = new Service(1);
    const { object } = watch(new Service(1));
    assert.deepStrictEqual(Reflect.ownKeys(object), Reflect.ownKeys(plain));
    assert.strictEqual(JSON.stringify(object), JSON.stringify(plain));
    for (const method of ['later', 'numbers', 'slowNumbers', 'callback', 'arrow']) {
      assert.deepStrictEqual([object[method].name, object[method].length], [plain[method].name, plain[method].length]);
      assert.strictEqual(Object.prototype.toString.call(object[method]), Object.prototype.toString.call(plain[method]));
      assert.strictEqual(object[method].constructor, plain[method].constructor);
    }
    assert.throws(() => new object.me(), TypeError);
    assert.deepStrictEqual(Object.keys(Object.getPrototypeOf(object)), []);
  });

  it('leaves other objects of its class alone', () => {
    const other = new Service(1);
    watch(new Service(1));
    assert.strictEqual(other.me, Base.prototype.me);
  });

  it('raises the very error, and rejects with it', async () => {
    const { object, service } = watch(new Service());
    const error = new Error('own');
    object.own = function own() {
      throw error;
    };
    assert.throws(() => object.fails(), RangeError);
    await assert.rejects(object.rejects(), TypeError);
    const event = await told('method', service);
    assert.deepStrictEqual([event.facts.method, event.raised[0].type, event.handled], ['fails', 'RangeError', true]);
    assert.ok(!event.raised[0].frames.some((frame) => frame.file.endsWith('silent-error-monitoring.js')));
    assert.deepStrictEqual(await calls(service, 'fails'), { count: 1, failures: 1, buckets: 1 });
    assert.deepStrictEqual(await calls(service, 'rejects'), { count: 1, failures: 1, buckets: 1 });
  });

  it('gives generators their send, throw and return', async () => {
    const { object, service } = watch(new Service());
    const numbers = object.numbers(5);
    assert.strictEqual(Object.prototype.toString.call(numbers), '[object Generator]');
    assert.deepStrictEqual(numbers.next(), { value: 0, done: false });
    assert.deepStrictEqual(numbers.next('stop'), { value: 'stopped', done: true });
    assert.deepStrictEqual([...object.numbers(3)], [0, 1, 2]);
    const broken = object.numbers(3);
    broken.next();
    assert.throws(() => broken.throw(new Error('thrown in')), /thrown in/);
    for (const value of object.numbers(9)) if (value === 2) break;
    assert.deepStrictEqual(await calls(service, 'numbers'), { count: 4, failures: 1, buckets: 4 });
  });

  it('gives async generators theirs', async () => {
    const { object, service } = watch(new Service());
    const got = [];
    for await (const value of object.slowNumbers(3)) got.push(value);
    assert.deepStrictEqual(got, [0, 1, 2]);
    await assert.rejects(async () => {
      for await (const value of object.slowNumbers(6)) got.push(value);
    }, /too many/);
    assert.deepStrictEqual(await calls(service, 'slowNumbers'), { count: 2, failures: 1, buckets: 2 });
  });

  it('hands callbacks on untouched', async () => {
    const { object } = watch(new Service());
    const value = await new Promise((resolve) => object.callback(9, (error, result) => resolve(result)));
    assert.strictEqual(value, 9);
  });

  it('hands on promises that have more to them, and thenables, as they are', () => {
    const special = Object.assign(Promise.resolve(1), { cancel() {} });
    class Lazy extends Promise {}
    const lazy = Lazy.resolve(2);
    const query = { then() { throw new Error('started too early'); } };
    const { object } = watch({ special: () => special, lazy: () => lazy, query: () => query });
    assert.strictEqual(object.special(), special);
    assert.strictEqual(object.lazy(), lazy);
    assert.strictEqual(object.query(), query);
  });

  it('gives the same promise for the same promise', async () => {
    const promise = Promise.resolve(5);
    const { object } = watch({ cached: () => promise });
    assert.strictEqual(object.cached(), object.cached());
    assert.strictEqual(await object.cached(), 5);
  });

  it('may be an emitter: its own methods are watched, the emitter\'s are not', async () => {
    const { object, service } = watch(new Emitting());
    const got = new Promise((resolve) => object.once('done', resolve));
    object.work();
    assert.strictEqual(await got, 7);
    assert.deepStrictEqual(await calls(service, 'work'), { count: 1, failures: 0, buckets: 1 });
    assert.deepStrictEqual(await calls(service, 'emit'), { count: 0, failures: 0, buckets: 0 });
  });

  it('may be frozen: then it is left as it is', () => {
    const { object } = watch(Object.freeze({ f: () => 1 }));
    assert.strictEqual(object.f(), 1);
  });

  it('may hold classes: they stay as they are', () => {
    class Model {}
    function Old() {}
    const { object } = watch({ Model, Old, run: () => new Model() });
    assert.strictEqual(object.Model, Model);
    assert.strictEqual(object.Old, Old);
    assert.ok(object.run() instanceof Model);
  });

  it('is as before after removeService', () => {
    const object = new Service();
    const before = [Object.getPrototypeOf(object), object.arrow];
    const { service } = watch(object);
    assert.notStrictEqual(Object.getPrototypeOf(object), before[0]);
    monitor.removeService(service);
    assert.deepStrictEqual([Object.getPrototypeOf(object), object.arrow], before);
  });
});

describe('calls of watched services', (it) => {
  it('are counted, every one, with the caller', async () => {
    const inner = watch({ get: (x) => x });
    const outer = watch({ ask: () => inner.object.get(1) });
    for (let i = 0; i < 1000; i++) outer.object.ask();
    inner.object.get(1);
    assert.deepStrictEqual(await calls(inner.service, 'get'), { count: 1001, failures: 0, buckets: 1001 });
    const edge = remediator.calls.find((call) => call.service === inner.service && call.caller === outer.service);
    assert.strictEqual(edge.count, 1000);
    assert.strictEqual(edge.buckets.length, 13);
  });

  it('that are slow are told', async () => {
    const { object, service } = watch({ crawl: () => new Promise((resolve) => setTimeout(resolve, 260)) });
    await object.crawl();
    const event = await told('slow', service);
    assert.strictEqual(event.facts.method, 'crawl');
    assert.ok(event.facts.seconds >= 0.2 && event.facts.limit === 0.2);
  });

  it('that do not come back are told', async () => {
    const { object, service } = watch({ hang: () => new Promise(() => {}) });
    object.hang();
    const event = await told('hung', service);
    assert.strictEqual(event.facts.method, 'hang');
  });

  it('that return what means failure are told', async () => {
    const failed = (value) => (value.ok === false ? `refused: ${value.why}` : false);
    const { object, service } = watch({ pay: () => ({ ok: false, why: 'no funds' }), payLater: async () => ({ ok: true }) }, { failed });
    object.pay();
    await object.payLater();
    const event = await told('returned', service);
    assert.strictEqual(event.message, 'refused: no funds');
    assert.deepStrictEqual(await calls(service, 'pay'), { count: 1, failures: 1, buckets: 1 });
    assert.deepStrictEqual(await calls(service, 'payLater'), { count: 1, failures: 0, buckets: 1 });
  });
});

describe('a program may', (it) => {
  it('report what it knows, with an opinion', async () => {
    monitor.report(new Error('known'), { severity: 'high', problem: 'queue_stuck', facts: { value: 3 } });
    const event = await remediator.event('reported', (one) => one.message === 'known');
    assert.deepStrictEqual([event.severity, event.problem, event.facts.value], ['high', 'queue_stuck', 3]);
  });

  it('declare gauges and counters', async () => {
    monitor.gauge('quality', 0.9, { low: 0.5, help: 'of conversions' });
    monitor.count('cost', 2);
    monitor.count('cost', 3);
    assert.ok(await monitor.flush());
    const declared = remediator.batches.flatMap((batch) => batch.declared || []);
    assert.deepStrictEqual(declared.find((item) => item.name === 'quality'), { service: 'tests', name: 'quality', value: 0.9, low: 0.5, help: 'of conversions' });
    assert.deepStrictEqual(declared.find((item) => item.name === 'cost'), { service: 'tests', name: 'cost', value: 5, counter: true });
  });

  it('say that a job is alive', async () => {
    monitor.heartbeat('nightly export');
    monitor.heartbeat('nightly export', 'fail');
    monitor.heartbeat('nightly export', 3);
    const path = '/api/monitoring/heartbeats/nightly%20export';
    await remediator.until(() => remediator.paths.includes(`${path}/3`));
    assert.deepStrictEqual(remediator.paths.filter((one) => one.startsWith(path)), [path, `${path}/fail`, `${path}/3`]);
  });

  it('have the error events of an emitter heard, without a listener for them', async () => {
    const emitter = monitor.watchEmitter(new EventEmitter(), 'queue', { kind: 'database' });
    assert.throws(() => emitter.emit('error', new Error('unheard')), /unheard/);
    assert.strictEqual(emitter.listenerCount('error'), 0);
    await remediator.event('database', (event) => event.context.emitter === 'queue');
  });
});
