// The shop's texts and pages, by verdicts that the tests make. It needs no packages.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { createShop } from './server.js';
import { LANGUAGES, TEXTS, adviceFor, failureFor, languageOf } from './texts.js';

process.env.TZ = 'UTC';

const path = (name) => fileURLToPath(new URL(name, import.meta.url));
const contract = readFileSync(path('../../proto/eligibility/v1/eligibility.proto'), 'utf8');
const named = (pattern) => [...contract.matchAll(pattern)].map(([, name]) => name);
const CODES = named(/^ {2}(REASON_CODE_\w+) = [1-9]/gm);
const REMEDIES = named(/^ {2}(REMEDY_\w+) = [1-9]/gm);
const REASONS = named(/^\/\/ {3}- ([A-Z_]+) \(code/gm);
const AUDIENCES = ['customer', 'staff'];

// The errors that a check over gRPC does not get: of streams, explanations and REST.
const ELSEWHERE = new Set([
  'RESUME_TOKEN_EXPIRED', 'FEED_UNAVAILABLE', 'NOT_KNOWN', 'PATH_NOT_FOUND', 'METHOD_NOT_ALLOWED', 'UNSUPPORTED_MEDIA_TYPE',
]);

// What only the partner's staff can do, or use.
const NOT_FOR_CUSTOMERS = /Partner Center|eligibilityd|ticket|Microsoft support|Microsoft-Support|(contact|ask|call|write to) Microsoft|an Microsoft|operator|Betreiber|correlation|Korrelation/i;

const allowed = (more = {}) => ({
  decision: 'DECISION_ALLOWED', customer_id: 'c', evidence_time: { seconds: '1700000000', nanos: 123000000 },
  reasons: [{ code: 'REASON_CODE_ACCOUNT_ALLOWED', message: 'Microsoft allows this customer to buy.', remedy: 'REMEDY_NONE' }], ...more,
});

describe('the texts', () => {
  test('are there for each reason, remedy and error, in each language, for each audience', () => {
    assert.ok(CODES.length >= 14 && REMEDIES.length >= 5 && REASONS.length >= 20, 'the contract was not read');
    for (const language of LANGUAGES) {
      for (const audience of AUDIENCES) {
        const check = (what, text) => {
          assert.match(text, /^[A-ZÄÖÜe].{20,}\.$/s, `${what} in ${language} for ${audience}: ${text}`);
          assert.doesNotMatch(text, /undefined|\[object|\$\{| {2}/, `${what} in ${language} for ${audience}`);
          if (audience === 'customer') {
            assert.doesNotMatch(text, NOT_FOR_CUSTOMERS, `${what} in ${language}`);
          }
        };
        for (const facts of [{ when: 'noon', why: 'why', word: 'word' }, { when: '', why: '', word: '' }]) {
          for (const code of CODES) {
            for (const remedy of [...REMEDIES, 'REMEDY_OF_TOMORROW', 17].filter((name) => name !== 'REMEDY_NONE')) {
              check(`${code}, ${remedy}`, adviceFor({ code, remedy }, language, audience, facts));
            }
          }
        }
        for (const reason of [...REASONS, 'UNREACHABLE', 'UNKNOWN', 'ADDED_TOMORROW', 'constructor']) {
          for (const retryAfterMs of [undefined, 0, 1, 1500, 60_000]) {
            check(reason, failureFor({ reason, retryAfterMs, metadata: {} }, language, audience));
          }
        }
        for (const outcome of ['allowed', 'blocked', 'undecided', 'placed', 'expired']) {
          check(outcome, TEXTS[language][outcome][audience]);
        }
      }
    }
  });

  test('differ for each error that staff can get', () => {
    for (const language of LANGUAGES) {
      const seen = new Set();
      for (const reason of [...REASONS.filter((name) => !ELSEWHERE.has(name)), 'UNREACHABLE', 'UNKNOWN']) {
        assert.ok(TEXTS[language].failure[reason]?.staff, `${reason} has no text of its own in ${language}`);
        seen.add(failureFor({ reason, metadata: {} }, language, 'staff'));
      }
      assert.equal(seen.size, REASONS.length - ELSEWHERE.size + 2);
    }
  });

  test('have the same parts in each language', () => {
    const shape = (value) => (typeof value === 'object' ? Object.fromEntries(Object.entries(value).map(([key, part]) => [key, shape(part)])) : typeof value);
    for (const language of LANGUAGES) {
      assert.deepEqual(shape(TEXTS[language]), shape(TEXTS.en));
    }
  });

  test('are in the language of the browser', () => {
    for (const [header, language] of Object.entries({
      '': 'en', de: 'de', 'de-AT,de;q=0.9,en;q=0.8': 'de', 'en-GB, de;q=0.5': 'en', 'en;q=0.1, DE;q=0.2': 'de',
      'fr': 'en', 'fr, de;q=0.3': 'de', 'de;q=0': 'en', 'de;q=x': 'en', ',;,*': 'en', [`${'x,'.repeat(5000)}de`]: 'en',
    })) {
      assert.equal(languageOf(header), language, header.slice(0, 40));
    }
    assert.equal(languageOf(undefined), 'en');
  });
});

describe('the shop', () => {
  let shop, base, verdicts, asked, placed;

  before(async () => {
    const eligibility = {
      check: async (question) => {
        asked.push(question);
        return verdicts.length > 1 ? verdicts.shift() : verdicts[0];
      },
    };
    shop = createShop({ eligibility, place: async (order) => placed.push(order) });
    shop.listen(0, '127.0.0.1');
    await once(shop, 'listening');
    base = `http://127.0.0.1:${shop.address().port}`;
  });
  after(() => shop.close());

  const setUp = (...given) => {
    [verdicts, asked, placed] = [given, [], []];
  };
  const visit = async (query = '', headers = {}) => {
    const response = await fetch(`${base}/checkout?customer=c${query}`, { headers });
    return { response, text: await response.text() };
  };
  const press = async (cart) => {
    const response = await fetch(`${base}/order`, { method: 'POST', body: new URLSearchParams({ cart }) });
    return { response, text: await response.text() };
  };
  const cartIn = (text) => text.match(/name="cart" value="([^"]+)"/)?.[1];
  const verdict = (outcome, more = {}) => ({ outcome, requestId: 'r1', answer: { ...allowed(), qualifications: [], ...more } });
  const undecided = (reason, retryAfterMs) => ({ outcome: 'undecided', requestId: 'r1', failure: { reason, retryAfterMs, metadata: {} } });

  test('sells once, by evidence that is no older than the checkout’s', async () => {
    setUp(verdict('allowed'));
    const cart = cartIn((await visit('&offer=education')).text);
    const pressed = await Promise.all([press(cart), press(cart), press(cart)]);
    assert.ok(pressed.every(({ text }) => text.includes(TEXTS.en.placed.customer)));
    assert.equal((await press(cart)).response.status, 200);
    assert.deepEqual(placed.map(({ id, customerId }) => [id, customerId]), [[cart, 'c']]);
    assert.equal(asked.length, 2);
    assert.deepEqual(asked.map(({ minEvidenceTime }) => minEvidenceTime), [undefined, verdicts[0].answer.evidence_time]);
    assert.equal(asked[1].segment, 'SEGMENT_EDUCATION');
  });

  test('sells nothing unless the order step is allowed', async () => {
    const blocked = verdict('blocked', { reasons: [{ code: 'REASON_CODE_ACCOUNT_NOT_ALLOWED', message: 'M.', remedy: 'REMEDY_CONTACT_SUPPORT' }] });
    for (const [second, status, again] of [[blocked, 200, false], [undecided('PARTNER_CENTER_THROTTLED', 1500), 503, true]]) {
      setUp(verdict('allowed'), second);
      const cart = cartIn((await visit()).text);
      const { response, text } = await press(cart);
      assert.equal(response.status, status);
      assert.equal(cartIn(text) === cart, again);
      assert.deepEqual(placed, []);
      assert.equal(response.headers.get('retry-after'), again ? '2' : null);
    }
    for (const cart of ['', 'unknown', 'x'.repeat(5000)]) {
      const { response } = await press(cart).catch(() => ({ response: { status: 404 } })); // cut off
      assert.equal(response.status, 404);
    }
    assert.deepEqual(placed, []);
  });

  test('offers no order unless the checkout is allowed', async () => {
    for (const given of [undecided('INTERNAL'), undecided('ADDED_TOMORROW'), verdict('blocked', { reasons: [] })]) {
      setUp(given);
      const { text } = await visit();
      assert.equal(cartIn(text), undefined);
      assert.ok(!text.includes('<form'));
    }
  });

  test('escapes whatever it was given', async () => {
    const evil = '<script>alert("&\')</script>';
    setUp(verdict('blocked', {
      customer_id: evil, correlation_id: evil, account_status_text: evil, qualifications: [{ vetting_reason: evil, vetting_status_text: evil }],
      reasons: ['REMEDY_UPDATE_CUSTOMER', 'REMEDY_CONTACT_SUPPORT'].map((remedy) => ({ code: 'REASON_CODE_QUALIFICATION_UNRECOGNIZED', message: evil, remedy })),
    }));
    for (const audience of AUDIENCES) {
      const { response, text } = await visit(`&audience=${audience}`);
      assert.ok(!text.includes('<script'), text);
      assert.match(response.headers.get('content-security-policy'), /default-src 'none'/);
    }
  });

  test('shows a customer what blocks, and staff all there is', async () => {
    setUp(verdict('blocked', {
      correlation_id: 'the-correlation', qualifications: [{ vetting_status: 'VETTING_STATUS_DENIED', vetting_reason: 'Not a school' }],
      recheck_time: { seconds: '1700000001', nanos: 5 },
      reasons: [
        { code: 'REASON_CODE_ACCOUNT_ALLOWED', message: 'Account allowed.', remedy: 'REMEDY_NONE' },
        { code: 'REASON_CODE_QUALIFICATION_DENIED', message: 'Denied.', remedy: 'REMEDY_UPDATE_CUSTOMER' },
      ],
    }));
    const forCustomer = (await visit()).text;
    assert.ok(forCustomer.includes('Denied.') && !forCustomer.includes('Account allowed.') && !forCustomer.includes('the-correlation'));
    const forStaff = (await visit('&audience=staff', { 'Accept-Language': 'de' })).text;
    for (const part of ['Denied.', 'Account allowed.', 'the-correlation', 'Not a school', 'r1', '<html lang="de">']) {
      assert.ok(forStaff.includes(part), part);
    }
    assert.equal(asked.at(-1).language, 'de');
  });

  test('rounds the time to ask again up', async () => {
    for (const [seconds, shown] of [['1700000039', '10:14'], ['1700000040', '10:15'], ['1700000099', '10:15']]) {
      setUp(verdict('blocked', { recheck_time: { seconds, nanos: 999 }, reasons: [{ code: 'REASON_CODE_ACCOUNT_UNDER_REVIEW', message: 'M.', remedy: 'REMEDY_WAIT' }] }));
      assert.match((await visit()).text, new RegExp(`after November 14, 2023 at ${shown}\\sPM`));
    }
  });

  test('has answers for what it does not have', async () => {
    setUp(verdict('allowed'));
    for (const [target, status] of [['/', 302], ['/shop.css', 200], ['/nothing', 404], ['/checkout?offer=none', 404], ['/order', 404], ['//', 404]]) {
      assert.equal((await fetch(base + target, { redirect: 'manual' })).status, status, target);
    }
  });
});
