// The client of eligibilityd: one question, one verdict.

import { randomUUID } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';

import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

const path = (name) => fileURLToPath(new URL(name, import.meta.url));

// Times stay as they are: seconds as a string, since a JavaScript number does not hold
// every 64-bit one, and nanoseconds apart, since a Date has milliseconds only.
const loading = { keepCase: true, longs: String, enums: String, defaults: true, oneofs: true };
const service = protoLoader.loadSync('eligibility/v1/eligibility.proto', {
  ...loading, includeDirs: [path('../../proto')],
});
const { EligibilityService } = grpc.loadPackageDefinition(service).eligibility.v1;
const errors = protoLoader.loadSync(path('errors.proto'), loading);

// How long a page waits for an answer.
export const DEADLINE_MS = 2000;
// The first pause after a connection has failed; each further one is twice as long.
const RECONNECT_MS = 50;

/**
 * Reads the options of Eligibility from environment variables.
 */
export function optionsOf(env) {
  return {
    target: env.ELIGIBILITY_TARGET || 'dns:///localhost:9090',
    tls: env.ELIGIBILITY_TLS === 'true' || Boolean(env.ELIGIBILITY_CA_FILE || env.ELIGIBILITY_TOKEN_FILE),
    caFile: env.ELIGIBILITY_CA_FILE,
    certFile: env.ELIGIBILITY_CERT_FILE,
    keyFile: env.ELIGIBILITY_KEY_FILE,
    tokenFile: env.ELIGIBILITY_TOKEN_FILE,
    partner: env.ELIGIBILITY_PARTNER,
  };
}

/**
 * Eligibility asks eligibilityd. One object serves the whole shop.
 *
 * A verdict has an outcome: 'allowed', 'blocked' or 'undecided'. Sell on 'allowed', and on
 * nothing else. The first two have the answer; 'undecided' has the failure, with its
 * reason and, if asking again may help, retryAfterMs.
 */
export class Eligibility {
  #client;
  #partner;
  #deadlineMs;

  constructor({ target, tls, caFile, certFile, keyFile, tokenFile, partner = '', deadlineMs = DEADLINE_MS }) {
    let credentials = grpc.credentials.createInsecure();
    if (tls) {
      const read = (file) => (file ? readFileSync(file) : null);
      credentials = grpc.credentials.createSsl(read(caFile), read(keyFile), read(certFile));
      if (tokenFile) {
        credentials = grpc.credentials.combineChannelCredentials(credentials, tokenFrom(tokenFile));
      }
    }
    this.#partner = partner;
    this.#deadlineMs = deadlineMs;
    this.#client = new EligibilityService(target, credentials, {
      // Every address of the target gets its share of the questions.
      'grpc.service_config': JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
      'grpc.max_reconnect_backoff_ms': 2000,
    });
  }

  /**
   * Checks a customer. minEvidenceTime is the evidence_time of an earlier verdict of the
   * same sale: nothing older decides then. language is the browser's Accept-Language.
   * requestId names the question in the service's log.
   */
  async check({ customerId, segment, operation, minEvidenceTime, language, requestId = randomUUID() }) {
    const request = { customer_id: customerId, segment, operation, partner: this.#partner };
    if (minEvidenceTime) {
      request.min_evidence_time = minEvidenceTime;
    }
    const metadata = new grpc.Metadata();
    metadata.set('x-request-id', requestId);
    if (isSendable(language)) {
      metadata.set('accept-language', language);
    }
    const deadline = Date.now() + this.#deadlineMs;
    let failure;
    for (let attempt = 0; ; attempt++) {
      try {
        const answer = await this.#call(request, metadata, deadline);
        const outcome = isAbout(answer, customerId) && { DECISION_ALLOWED: 'allowed', DECISION_BLOCKED: 'blocked' }[answer.decision];
        return outcome ? { outcome, answer, requestId } : undecided({ reason: 'UNKNOWN' }, requestId);
      } catch (error) {
        failure = failureOf(error);
      }
      const pause = pauseAfter(failure, attempt);
      if (pause === undefined || Date.now() + pause >= deadline) {
        return undecided(failure, requestId);
      }
      await sleep(pause);
    }
  }

  #call(request, metadata, deadline) {
    return new Promise((resolve, reject) => {
      this.#client.CheckEligibility(request, metadata, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
    });
  }

  close() {
    this.#client.close();
  }
}

function undecided(failure, requestId) {
  return { outcome: 'undecided', failure, requestId };
}

/**
 * Reports whether an answer is about the customer that was asked, in any form of its ID.
 */
function isAbout(answer, customerId) {
  const canonical = (id) => id.replace(/[^0-9a-f]/gi, '').toLowerCase();
  const id = canonical(answer.customer_id);
  return id !== '' && id === canonical(customerId);
}

/**
 * Returns how long to wait before another attempt, or undefined if none helps: a service
 * that wants to be asked again says when. A connection that has failed says nothing.
 */
function pauseAfter(failure, attempt) {
  const backoff = RECONNECT_MS * 2 ** attempt;
  const spread = Math.random() / 2; // so that not all come back at once
  if (failure.retryAfterMs !== undefined) {
    return Math.max(failure.retryAfterMs, backoff) + backoff * spread;
  }
  return failure.reason === 'UNREACHABLE' ? backoff * (1 + spread) : undefined;
}

/**
 * Reads reason and delay from the details of an error. An error that is not the
 * service's own has none: then the connection has failed, or the deadline has ended.
 */
export function failureOf(error) {
  const failure = { reason: REASON_OF_CODE[error.code] || 'UNKNOWN', retryAfterMs: undefined, metadata: {} };
  for (const bytes of error.metadata?.get('grpc-status-details-bin') ?? []) {
    for (const { type_url: type, value } of decode('Status', bytes)?.details ?? []) {
      if (type.endsWith('/google.rpc.ErrorInfo')) {
        const info = decode('ErrorInfo', value);
        failure.reason = info?.reason || failure.reason;
        failure.metadata = info?.metadata ?? {};
      } else if (type.endsWith('/google.rpc.RetryInfo')) {
        const delay = decode('RetryInfo', value)?.retry_delay;
        if (delay) {
          failure.retryAfterMs = Number(delay.seconds) * 1000 + Math.ceil(delay.nanos / 1e6);
        }
      }
    }
  }
  return failure;
}

const REASON_OF_CODE = {
  [grpc.status.UNAVAILABLE]: 'UNREACHABLE',
  [grpc.status.DEADLINE_EXCEEDED]: 'DEADLINE_EXCEEDED',
  [grpc.status.CANCELLED]: 'CANCELLED',
};

function decode(type, bytes) {
  try {
    return errors[`google.rpc.${type}`].deserialize(Buffer.from(bytes));
  } catch {
    return undefined; // of a proxy, perhaps
  }
}

/**
 * Reports whether a header of the browser may be sent on as metadata. The service does
 * not read longer ones.
 */
function isSendable(language) {
  return typeof language === 'string' && /^[\x20-\x7e]{1,512}$/.test(language);
}

/**
 * Sends the token in a file, which it reads again when the file has changed.
 */
function tokenFrom(file) {
  let token, read;
  return grpc.credentials.createFromMetadataGenerator((_, callback) => {
    try {
      const { mtimeMs } = statSync(file);
      if (mtimeMs !== read) {
        [token, read] = [readFileSync(file, 'utf8').trim(), mtimeMs];
      }
      const metadata = new grpc.Metadata();
      metadata.set('authorization', `Bearer ${token}`);
      callback(null, metadata);
    } catch (error) {
      callback(new Error(`the token cannot be read: ${error.code}`));
    }
  });
}
