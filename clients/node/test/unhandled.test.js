'use strict';
/* Rejections of watched methods stay what they were: handled by whom they were, fatal where they were. */

const assert = require('assert');
const { test } = require('node:test');
const { FILE, Remediator, run, settings } = require('./support');

const service = (watch) => `const o = ${watch ? `require(${JSON.stringify(FILE)})().addService('svc', ` : '('}{
  async fails() { await null; throw new Error('inside'); }, cached: ((p) => () => p)(Promise.reject(new Error('kept'))) });`;

const USES = {
  'nobody handles': `o.fails();`,
  'somebody catches': `o.fails().catch((e) => console.log(e.message)); o.cached().catch(() => console.log('kept')); `,
  'somebody awaits': `(async () => { try { await o.fails() } catch (e) { console.log(e.message) } })(); o.cached().catch(() => {});`,
  'somebody handles late': `process.on('unhandledRejection', (e) => console.log('unhandled', e.message)); process.on('rejectionHandled', () => console.log('late')); const p = o.fails(); o.cached().catch(() => {}); setTimeout(() => p.catch(() => {}), 30);`,
};

for (const [name, code] of Object.entries(USES)) {
  test(`a rejection of a watched method that ${name}`, async () => {
    const remediator = await Remediator.start();
    const plain = await run(service(false) + code);
    const watched = await run(service(true) + code, { env: settings(remediator) });
    await remediator.close();
    // A wrapper is on the stacks of what it calls: stacks are compared without.
    const first = ({ stderr, status, stdout }) => ({ status, stdout, stderr: stderr.split('\n').filter((line) => /^Error/.test(line)) });
    assert.deepStrictEqual(first(watched), first(plain));
  });
}

test('an error of a watched method that ends the program is told as uncaught', async () => {
  const remediator = await Remediator.start();
  await run(`const o = require(${JSON.stringify(FILE)})().addService('svc', { fails() { throw new Error('fatal') } }); o.fails();`, { env: settings(remediator) });
  const events = remediator.events.map(({ kind, service: of, handled }) => [kind, of, handled]);
  await remediator.close();
  assert.deepStrictEqual(events, [['uncaught', 'svc', undefined]]);
});
