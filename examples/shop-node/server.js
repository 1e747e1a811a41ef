// The shop: a checkout page that asks whether the customer may buy, and an order step
// that asks again before it sells.

import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';

import { expiredPage, placedPage, verdictPage } from './pages.js';
import { languageOf } from './texts.js';

/** What the shop sells: the segment and the operation of a check. */
export const OFFERS = {
  commercial: { segment: 'SEGMENT_COMMERCIAL', operation: 'OPERATION_PURCHASE' },
  education: { segment: 'SEGMENT_EDUCATION', operation: 'OPERATION_PURCHASE' },
  government: { segment: 'SEGMENT_GOVERNMENT', operation: 'OPERATION_PURCHASE' },
  nonprofit: { segment: 'SEGMENT_NONPROFIT', operation: 'OPERATION_PURCHASE' },
  renewal: { segment: 'SEGMENT_COMMERCIAL', operation: 'OPERATION_RENEWAL' },
};

const MAX_CARTS = 10_000;
const MAX_FORM_BYTES = 1024;

const style = readFileSync(new URL('shop.css', import.meta.url));

/**
 * Returns the shop's HTTP server. place puts an order into the shop's order system; it is
 * called once for each cart, and only if eligibilityd allows the sale.
 */
export function createShop({ eligibility, place }) {
  const carts = new Map(); // the shop's database, by ID
  const handlers = {
    'GET /': (_, response) => redirect(response, '/checkout?customer=a0000000-0000-4000-8000-000000000001&offer=commercial'),
    'GET /shop.css': (_, response) => respond(response, 200, style, { 'Content-Type': 'text/css', 'Cache-Control': 'max-age=300' }),
    'GET /checkout': checkout,
    'POST /order': order,
  };

  async function checkout(request, response, url) {
    // A shop takes both from the session of whoever has signed in.
    const customerId = url.searchParams.get('customer') ?? '';
    const offer = OFFERS[url.searchParams.get('offer') ?? 'commercial'];
    if (!offer) {
      return respond(response, 404, 'no such offer\n');
    }
    const reader = readerOf(request, url.searchParams.get('audience') === 'staff' ? 'staff' : 'customer');
    const verdict = await eligibility.check({ customerId, ...offer, language: request.headers['accept-language'] });
    let cart;
    if (verdict.outcome === 'allowed') {
      cart = { id: randomUUID(), customerId, offer, audience: reader.audience, evidenceTime: verdict.answer.evidence_time };
      carts.set(cart.id, cart);
      if (carts.size > MAX_CARTS) {
        carts.delete(carts.keys().next().value);
      }
    }
    return respondVerdict(response, verdict, verdictPage(reader, verdict, { customerId, cart: cart?.id, href: url.pathname + url.search }));
  }

  async function order(request, response) {
    const form = await readForm(request);
    const cart = form && carts.get(form.get('cart'));
    if (!cart) {
      return respond(response, 404, expiredPage(readerOf(request, 'customer')));
    }
    const reader = readerOf(request, cart.audience);
    // The button may be pressed twice: the second waits for the first.
    cart.placing ??= placeOnce(cart, request.headers['accept-language']).finally(() => {
      cart.placing = undefined;
    });
    const verdict = await cart.placing;
    if (cart.placed) {
      return respond(response, 200, placedPage(reader, cart));
    }
    return respondVerdict(response, verdict, verdictPage(reader, verdict, {
      customerId: cart.customerId, cart: verdict.outcome === 'undecided' ? cart.id : undefined,
    }));
  }

  async function placeOnce(cart, language) {
    if (cart.placed) {
      return undefined;
    }
    // Nothing older than what the customer was shown decides.
    const verdict = await eligibility.check({
      customerId: cart.customerId, ...cart.offer, minEvidenceTime: cart.evidenceTime, language,
    });
    if (verdict.outcome === 'allowed') {
      await place({ id: cart.id, customerId: cart.customerId, offer: cart.offer });
      cart.placed = true;
    }
    return verdict;
  }

  return createServer(async (request, response) => {
    try {
      const url = new URL(`http://shop${request.url}`);
      const handler = handlers[`${request.method} ${url.pathname}`];
      await (handler ? handler(request, response, url) : respond(response, 404, 'no such page\n'));
    } catch (error) {
      console.error(error);
      if (!response.headersSent) {
        respond(response, 500, 'a fault of the shop\n');
      }
      response.end();
    }
  });
}

function readerOf(request, audience) {
  return { language: languageOf(request.headers['accept-language']), audience };
}

function respondVerdict(response, verdict, page) {
  if (verdict.outcome !== 'undecided') {
    return respond(response, 200, page);
  }
  const { reason, retryAfterMs } = verdict.failure;
  console.error(JSON.stringify({ msg: 'not decided', reason, request_id: verdict.requestId }));
  const status = { CUSTOMER_NOT_FOUND: 404, CUSTOMER_NOT_SERVED: 404, INVALID_ARGUMENT: 400 }[reason] ?? 503;
  return respond(response, status, page, retryAfterMs === undefined ? {} : { 'Retry-After': String(Math.ceil(retryAfterMs / 1000)) });
}

function redirect(response, to) {
  respond(response, 302, '', { Location: to });
}

function respond(response, status, body, headers = {}) {
  const isPage = typeof body === 'string' && body.startsWith('<');
  response.writeHead(status, {
    'Content-Type': isPage ? 'text/html; charset=utf-8' : 'text/plain; charset=utf-8',
    'Cache-Control': 'no-store',
    'Content-Security-Policy': "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    'X-Content-Type-Options': 'nosniff',
    ...headers,
  });
  response.end(body);
}

async function readForm(request) {
  let text = '';
  for await (const part of request) {
    text += part;
    if (text.length > MAX_FORM_BYTES) {
      return undefined;
    }
  }
  return new URLSearchParams(text);
}
