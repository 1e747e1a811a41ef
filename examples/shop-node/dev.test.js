// The shop against a real eligibilityd: `eligibilityd dev`, whose customers the simulator
// plays. ELIGIBILITY_TARGET is its gRPC address. POLICY_TARGET is a second one, with the
// script customers.yaml, policy.not_ready: allow, policy.under_review: allow_reducing and
// policy.when_undecidable: block.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, test } from 'node:test';

import { Eligibility, optionsOf } from './eligibility.js';
import { createShop } from './server.js';
import { TEXTS, failureFor } from './texts.js';

const { ELIGIBILITY_TARGET: target, POLICY_TARGET: policyTarget } = process.env;
const skip = target && policyTarget ? false : 'ELIGIBILITY_TARGET and POLICY_TARGET are not set';

const shops = {};
const placed = [];

before(async () => {
  if (skip) {
    return;
  }
  for (const [name, address] of Object.entries({ usual: target, policy: policyTarget })) {
    const eligibility = new Eligibility({ ...optionsOf(process.env), target: address });
    const server = createShop({ eligibility, place: async (order) => placed.push(order) });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    shops[name] = { eligibility, server, base: `http://127.0.0.1:${server.address().port}` };
  }
});
after(() => Object.values(shops).forEach(({ eligibility, server }) => {
  server.close();
  eligibility.close();
}));

async function visit(shop, customer, offer, language, audience) {
  const url = `${shops[shop].base}/checkout?${new URLSearchParams({ customer, offer, audience })}`;
  const response = await fetch(url, { headers: { 'Accept-Language': language } });
  return { response, text: await response.text() };
}

const a = (n) => `a0000000-0000-4000-8000-00000000000${n}`;
const e = (n) => `e0000000-0000-4000-8000-00000000000${n}`;

// Who gets which reason: from which shop, for which offer, and what the page states.
const CAST = [
  ['ACCOUNT_ALLOWED', 'usual', a(1), 'commercial', 'allowed'],
  ['ACCOUNT_HAS_NO_STATUS', 'usual', a(6), 'commercial', 'allowed'],
  ['ACCOUNT_UNDER_REVIEW', 'usual', a(2), 'commercial', 'blocked'],
  ['ACCOUNT_NOT_ALLOWED', 'usual', a(3), 'commercial', 'blocked'],
  ['ACCOUNT_UNKNOWN', 'usual', a(4), 'commercial', 'blocked'],
  ['ACCOUNT_NOT_READY', 'usual', a(5), 'commercial', 'blocked'],
  ['ACCOUNT_NOT_READY', 'policy', a(5), 'commercial', 'allowed'],
  ['ACCOUNT_STATUS_UNRECOGNIZED', 'usual', a(8), 'commercial', 'blocked'],
  ['ACCOUNT_REVIEW_EXEMPT', 'policy', a(2), 'renewal', 'allowed'],
  ['QUALIFICATION_APPROVED', 'usual', e(1), 'education', 'allowed'],
  ['QUALIFICATION_IN_REVIEW', 'usual', e(2), 'education', 'blocked'],
  ['QUALIFICATION_DENIED', 'usual', e(3), 'education', 'blocked'],
  ['QUALIFICATION_MISSING', 'usual', e(4), 'education', 'blocked'],
  ['QUALIFICATION_UNRECOGNIZED', 'usual', e(8), 'education', 'blocked'],
  ['UNDECIDABLE', 'policy', 'f0000000-0000-4000-8000-0000000000aa', 'commercial', 'blocked'],
];

for (const [code, shop, customer, offer, outcome] of CAST) {
  test(`${code} is ${outcome}`, { skip }, async () => {
    const messages = new Set();
    for (const language of ['en', 'de', 'fr-CA,fr;q=0.9']) {
      for (const audience of ['customer', 'staff']) {
        const { response, text } = await visit(shop, customer, offer, language, audience);
        assert.equal(response.status, 200, text);
        assert.ok(text.includes(`<main class="${outcome}"`) && text.includes(`data-code="REASON_CODE_${code}"`), text);
        const heading = code === 'UNDECIDABLE' ? 'undecided' : outcome;
        assert.ok(text.includes(`<h1>${TEXTS[language === 'de' ? 'de' : 'en'][heading][audience]}</h1>`), text);
        assert.equal(text.includes('action="/order"'), outcome === 'allowed', text);
        messages.add(text.match(new RegExp(`data-code="REASON_CODE_${code}">\\n<p class="message">([^<]+)`))[1]);
      }
    }
    assert.equal(messages.size, 3, [...messages].join(' | ')); // one for each language, the same for both audiences
  });
}

for (const [reason, customer, status] of [
  ['CUSTOMER_NOT_FOUND', 'f0000000-0000-4000-8000-000000000001', 404],
  ['CUSTOMER_NOT_SERVED', 'f0000000-0000-4000-8000-000000000002', 404],
  ['INVALID_ARGUMENT', 'no-guid', 400],
]) {
  test(`the error ${reason}`, { skip }, async () => {
    for (const language of ['en', 'de']) {
      for (const audience of ['customer', 'staff']) {
        const { response, text } = await visit('usual', customer, 'commercial', language, audience);
        assert.equal(response.status, status);
        assert.ok(text.includes(failureFor({ reason, metadata: {} }, language, audience).replaceAll("'", '&#39;')), text);
      }
    }
  });
}

test('an order is placed by the evidence of the checkout', { skip }, async () => {
  const { text } = await visit('usual', a(1), 'commercial', 'en', 'customer');
  const cart = text.match(/name="cart" value="([^"]+)"/)[1];
  const response = await fetch(`${shops.usual.base}/order`, { method: 'POST', body: new URLSearchParams({ cart }) });
  assert.ok((await response.text()).includes(TEXTS.en.placed.customer));
  assert.deepEqual(placed, [{ id: cart, customerId: a(1), offer: { segment: 'SEGMENT_COMMERCIAL', operation: 'OPERATION_PURCHASE' } }]);
});
