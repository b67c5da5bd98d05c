'use strict';
/* No secret leaves: neither over the network nor into the spool. tests/clients compares with the Python tables. */

const assert = require('assert');
const fs = require('fs');
const path = require('path');
const { test } = require('node:test');
const { internals } = require('../silent-error-monitoring.js');
const { FILE, Remediator, folder, run, settings } = require('./support');

// Pieces, so that no scanner takes them for real ones.
const SECRETS = {
  password: 'hunter2' + 'hunter2',
  jwt: 'eyJhbGciOiJIUzI1NiJ9' + '.' + 'eyJzdWIiOiIxMjM0NTY3ODkwIn0' + '.' + 'dozjgNryP4J3jVmNHl0w5N',
  github: 'ghp' + '_' + 'a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8',
  aws: 'AKIA' + 'IOSFODNN7EXAMPLE',
  stripe: 'sk' + '_live_' + '4eC39HqLyjWDarjtT1zdp7dc',
  bearer: 'abcdef1234567890' + 'abcdef',
  address: 's3cr3t' + 'pass',
};

const CARRIERS = {
  message: (s) => `new Error(${JSON.stringify(`login failed: password=${s.password} ${s.github} Authorization: Bearer ${s.bearer}`)})`,
  'address in a message': (s) => `new Error(${JSON.stringify(`connect to redis://user:${s.address}@cache:6379/0`)})`,
  cause: (s) => `Object.assign(new Error('outer'), { cause: new Error(${JSON.stringify(s.jwt)}) })`,
  member: (s) => `new AggregateError([new Error(${JSON.stringify(`token: ${s.stripe}`)})], 'several')`,
  'JSON in a text': (s) => `new Error(JSON.stringify({ user: 'x', password: ${JSON.stringify(s.password)}, nested: { apiKey: ${JSON.stringify(s.bearer)} } }))`,
  'a rejected object': (s) => `({ password: ${JSON.stringify(s.password)}, list: [{ token: ${JSON.stringify(s.aws)} }] })`,
  'the name of an error': (s) => `Object.assign(new Error('x'), { name: ${JSON.stringify(s.github)} })`,
  'the path of a file': (s) => `Object.assign(new Error('x'), { code: 'ENOENT', errno: -2, path: ${JSON.stringify(`/data/${s.github}`)} })`,
};

for (const [name, make] of Object.entries(CARRIERS)) {
  test(`a secret does not leave in ${name}`, async () => {
    const remediator = await Remediator.start();
    const code = `const monitor = require(${JSON.stringify(FILE)})(); monitor.report(${make(SECRETS)}, { context: { config: { db: { password: ${JSON.stringify(SECRETS.password)} } }, headers: ['cookie: sid=${SECRETS.bearer}'], bytes: Buffer.from(${JSON.stringify(`token=${SECRETS.jwt}`)}) }, facts: { url: 'http://u:${SECRETS.address}@h/p' } });`;
    const spool = folder();
    await run(code, { env: settings(remediator) });
    await run(code, { env: settings(null, { SOULFRA_SPOOL: spool }) });
    const sent = JSON.stringify(remediator.batches);
    const spooled = fs.readdirSync(spool).map((file) => fs.readFileSync(path.join(spool, file), 'utf8')).join('');
    await remediator.close();
    assert.ok(sent.includes('"reported"') && spooled.includes('"reported"'));
    for (const secret of Object.values(SECRETS)) assert.ok(!sent.includes(secret) && !spooled.includes(secret), secret);
  });
}

test('ordinary texts stay as they are', () => {
  for (const text of ['token_count=5 of 10', 'password_file=/etc/x', 'GET /users/7 answered 503 in 12 ms', "Cannot read properties of undefined (reading 'token')", 'author: Ann', 'the secret garden', 'https://host/path?page=2']) {
    assert.strictEqual(internals.redact(text), text);
  }
});

test('redaction twice is redaction once', () => {
  for (const secret of Object.values(SECRETS)) {
    const once = internals.redact(`x password=${secret} {"token": "${secret}"} https://a:${secret}@b/ Bearer ${secret}1`);
    assert.strictEqual(internals.redact(once), once);
  }
});

test('its time grows with the length of hostile texts and no faster', () => {
  const texts = [(n) => 'a'.repeat(n), (n) => '://'.repeat(n / 3), (n) => 'password='.repeat(n / 9), (n) => '-----BEGIN PRIVATE KEY-----'.repeat(n / 27), (n) => 'eyJ'.repeat(n / 3), (n) => "token='".repeat(n / 7), (n) => '\\'.repeat(n), (n) => 'bearer '.repeat(n / 7), (n) => 'x'.repeat(100) + ' '.repeat(n), ...['a1B', 'a1B2/', 'password is ', 'token a1b2 ', 'pin 1', ' password\n---\n x\n', '| a |\n|--|\n', '-+-\n', '│ token │\n', 'sqlplus -a -a ', 'htpasswd -b x y ', '--pass a1 ', 'password for a is ', '-'].map((piece) => (n) => piece.repeat(n / piece.length))];
  const took = (text) => {
    const began = process.hrtime.bigint();
    internals.redact(text);
    return Number(process.hrtime.bigint() - began) / 1e6;
  };
  for (const text of texts) {
    const long = Math.min(...[1, 2, 3].map(() => took(text(200000))));
    assert.ok(long < 2000, `${text(20)} ${long} ms`);
  }
});

test('values that are hostile to whoever reads them do no harm', () => {
  const cyclic = {};
  cyclic.self = cyclic;
  assert.ok(JSON.stringify(internals.cleanValue(cyclic)).includes('***'));
  const trap = new Proxy({}, { get() { throw new Error('trap'); }, ownKeys() { throw new Error('trap'); }, getPrototypeOf() { return null; } });
  assert.ok(Array.isArray(internals.chainOf(trap)));
  assert.ok(Array.isArray(internals.chainOf(Object.create(null))));
});
