// The client against a service that the tests play: what a real one would seldom answer.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

import { DEADLINE_MS, Eligibility, optionsOf } from './eligibility.js';

const path = (name) => fileURLToPath(new URL(name, import.meta.url));

const allowed = (more = {}) => ({
  decision: 'DECISION_ALLOWED', customer_id: 'c', evidence_time: { seconds: '1700000000', nanos: 123000000 },
  reasons: [{ code: 'REASON_CODE_ACCOUNT_ALLOWED', message: 'Microsoft allows this customer to buy.', remedy: 'REMEDY_NONE' }], ...more,
});

const load = (file, options = {}) => protoLoader.loadSync(file, { keepCase: true, longs: String, enums: String, defaults: true, ...options });
const { EligibilityService } = grpc.loadPackageDefinition(load('eligibility/v1/eligibility.proto', { includeDirs: [path('../../proto')] })).eligibility.v1;
const errors = load(path('errors.proto'));

/** The error of a service that states a reason and, if it is given, a delay. */
function failure(code, reason, delay) {
  const detail = (type, message) => ({ type_url: `type.googleapis.com/google.rpc.${type}`, value: errors[`google.rpc.${type}`].serialize(message) });
  const details = [detail('ErrorInfo', { reason, domain: 'eligibility', metadata: { right: 'check' } })];
  if (delay) {
    details.push(detail('RetryInfo', { retry_delay: delay }));
  }
  const metadata = new grpc.Metadata();
  metadata.set('grpc-status-details-bin', errors['google.rpc.Status'].serialize({ code, message: reason, details }));
  return { code, details: reason, metadata };
}

/** Plays a service: answers are given in turn, the last one for ever. */
async function play(deadlineMs, answers) {
  const calls = [];
  const server = new grpc.Server();
  server.addService(EligibilityService.service, {
    CheckEligibility: (call, callback) => {
      const answer = answers[Math.min(calls.length, answers.length - 1)];
      calls.push({ request: call.request, metadata: call.metadata, deadline: call.getDeadline() });
      if (answer === 'silent') {
        return;
      }
      if (answer.code) {
        callback(answer);
      } else {
        callback(null, answer);
      }
    },
  });
  const port = await new Promise((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, bound) => (error ? reject(error) : resolve(bound)));
  });
  const eligibility = new Eligibility({ target: `dns:///127.0.0.1:${port}`, deadlineMs });
  return {
    calls, eligibility,
    close: () => {
      eligibility.close();
      server.forceShutdown();
    },
  };
}

async function withService(answers, run, deadlineMs) {
  const service = await play(deadlineMs, answers);
  try {
    return await run(service);
  } finally {
    service.close();
  }
}

const QUESTION = { customerId: 'c', segment: 'SEGMENT_EDUCATION', operation: 'OPERATION_PURCHASE' };

describe('the client', () => {
  test('sells on DECISION_ALLOWED and on nothing else', async () => {
    for (const [decision, outcome] of Object.entries({
      DECISION_ALLOWED: 'allowed', DECISION_BLOCKED: 'blocked', DECISION_UNSPECIFIED: 'undecided', 7: 'undecided',
    })) {
      await withService([allowed({ decision: Number(decision) || decision })], async ({ eligibility }) => {
        assert.equal((await eligibility.check(QUESTION)).outcome, outcome, decision);
      });
    }
  });

  test('sells on an answer about the customer that was asked, and on no other', async () => {
    const id = 'a0000000-0000-4000-8000-00000000000b';
    for (const [asked, answered, outcome] of [
      [id, id, 'allowed'],
      [` {${id.replaceAll('-', '').toUpperCase()}}`, id, 'allowed'],
      [id, 'a0000000-0000-4000-8000-00000000000c', 'undecided'],
      [id, '', 'undecided'],
      ['', '', 'undecided'],
    ]) {
      await withService([allowed({ customer_id: answered })], async ({ eligibility }) => {
        assert.equal((await eligibility.check({ ...QUESTION, customerId: asked })).outcome, outcome, `${asked} ${answered}`);
      });
    }
  });

  test('passes times on as they are', async () => {
    // More than a Date holds: nanoseconds, and seconds beyond 2 to the power of 53.
    for (const evidence of [{ seconds: '1700000000', nanos: 123456789 }, { seconds: '9007199254740993', nanos: 1 }, { seconds: '-1', nanos: 999999999 }]) {
      await withService([allowed({ evidence_time: evidence })], async ({ calls, eligibility }) => {
        const first = await eligibility.check(QUESTION);
        await eligibility.check({ ...QUESTION, minEvidenceTime: first.answer.evidence_time });
        assert.ok(!calls[0].request.min_evidence_time);
        assert.deepEqual({ ...calls[1].request.min_evidence_time }, evidence);
      });
    }
  });

  test('has a deadline, names its questions, and passes the language on', async () => {
    await withService([allowed()], async ({ calls, eligibility }) => {
      const verdict = await eligibility.check({ ...QUESTION, language: 'de-AT,de;q=0.9' });
      const [{ request, metadata, deadline }] = calls;
      assert.deepEqual(metadata.get('accept-language'), ['de-AT,de;q=0.9']);
      assert.deepEqual(metadata.get('x-request-id'), [verdict.requestId]);
      assert.ok(Number(deadline) - Date.now() <= DEADLINE_MS);
      assert.equal(request.segment, 'SEGMENT_EDUCATION');
      assert.equal(request.operation, 'OPERATION_PURCHASE');
      for (const language of [undefined, '', 'x'.repeat(513), 'd\u00e9', 'de\nx: y']) {
        await eligibility.check({ ...QUESTION, language });
        assert.deepEqual(calls.at(-1).metadata.get('accept-language'), []);
      }
    });
  });

  test('asks again when the service says so, and only then', async () => {
    const soon = { seconds: 0, nanos: 1_000_000 };
    for (const [name, answers, outcome, asked] of [
      ['a delay that fits', [failure(14, 'PARTNER_CENTER_UNAVAILABLE', soon), failure(8, 'OVERLOADED', soon), allowed()], 'allowed', 3],
      ['a delay that does not fit', [failure(14, 'PARTNER_CENTER_THROTTLED', { seconds: 60, nanos: 0 }), allowed()], 'undecided', 1],
      ['no delay', [failure(14, 'PARTNER_CENTER_CREDENTIALS'), allowed()], 'undecided', 1],
      ['no such customer', [failure(5, 'CUSTOMER_NOT_FOUND'), allowed()], 'undecided', 1],
      ['no details', [{ code: 13, details: 'x' }, allowed()], 'undecided', 1],
      ['a connection that failed', [{ code: 14, details: 'x' }, allowed()], 'allowed', 2],
    ]) {
      await withService(answers, async ({ calls, eligibility }) => {
        const verdict = await eligibility.check(QUESTION);
        assert.equal(verdict.outcome, outcome, name);
        assert.equal(calls.length, asked, name);
      });
    }
  });

  test('stops at the deadline, however often it is told to ask again', async () => {
    await withService([failure(14, 'PARTNER_CENTER_UNAVAILABLE', { seconds: 0, nanos: 0 })], async ({ calls, eligibility }) => {
      const verdict = await eligibility.check(QUESTION);
      // The last call may be answered, or still be under way.
      assert.match(verdict.failure.reason, /^(PARTNER_CENTER_UNAVAILABLE|DEADLINE_EXCEEDED)$/);
      assert.ok(calls.length > 1 && calls.length < 6, `${calls.length} calls`);
    }, 500);
    await withService(['silent'], async ({ calls, eligibility }) => {
      const verdict = await eligibility.check(QUESTION);
      assert.equal(verdict.failure.reason, 'DEADLINE_EXCEEDED');
      assert.equal(calls.length, 1);
    }, 300);
  });

  test('is undecided if the service cannot be reached', async () => {
    const eligibility = new Eligibility({ target: 'dns:///127.0.0.1:1', deadlineMs: 300 });
    const verdict = await eligibility.check(QUESTION);
    eligibility.close();
    assert.deepEqual([verdict.outcome, verdict.failure.reason], ['undecided', 'UNREACHABLE']);
  });

  test('survives details that are no details', async () => {
    const metadata = new grpc.Metadata();
    metadata.set('grpc-status-details-bin', Buffer.from('\xff\xff\xff\xff no protobuf', 'latin1'));
    await withService([{ code: 13, details: 'x', metadata }], async ({ eligibility }) => {
      assert.equal((await eligibility.check(QUESTION)).failure.reason, 'UNKNOWN');
    });
  });

  test('takes its options from the environment, and sends no token without TLS', () => {
    assert.equal(optionsOf({}).tls, false);
    assert.equal(optionsOf({ ELIGIBILITY_TOKEN_FILE: '/t' }).tls, true);
    assert.equal(optionsOf({ ELIGIBILITY_CA_FILE: '/c' }).tls, true);
    assert.equal(optionsOf({ ELIGIBILITY_TARGET: 'dns:///x:1' }).target, 'dns:///x:1');
  });
});
