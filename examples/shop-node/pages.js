// The shop's pages. Whatever they show is escaped: the words of Microsoft too.

import { TEXTS, adviceFor, failureFor } from './texts.js';

class Markup {
  constructor(text) {
    this.text = text;
  }
}

const escapes = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

function markup(value) {
  if (value instanceof Markup) {
    return value.text;
  }
  if (Array.isArray(value)) {
    return value.map(markup).join('');
  }
  return String(value ?? '').replace(/[&<>"']/g, (character) => escapes[character]);
}

function html(strings, ...values) {
  return new Markup(strings.reduce((text, string, i) => text + markup(values[i - 1]) + string));
}

function page({ language, audience }, state, heading, ...content) {
  const texts = TEXTS[language];
  return html`<!doctype html>
<html lang="${language}">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${texts.title}</title>
<link rel="stylesheet" href="/shop.css">
<main class="${state}" data-audience="${audience}">
<h1>${heading}</h1>
${content}
</main>
</html>
`.text;
}

/**
 * Returns the page of a verdict. cart is the cart that can be ordered.
 */
export function verdictPage(reader, verdict, { customerId, cart, href }) {
  const texts = TEXTS[reader.language];
  // A block for want of an answer is no statement about the customer.
  const unknown = verdict.answer?.reasons.some(({ code }) => code === 'REASON_CODE_UNDECIDABLE');
  const heading = texts[unknown ? 'undecided' : verdict.outcome][reader.audience];
  if (verdict.outcome === 'undecided') {
    return page(reader, 'undecided', heading,
      html`<p>${failureFor(verdict.failure, reader.language, reader.audience)}</p>`,
      cart ? orderForm(cart, texts.again) : html`<p><a class="button" href="${href}">${texts.again}</a></p>`,
      detailsOf(reader, { request_id: verdict.requestId }, { customer_id: customerId, reason: verdict.failure.reason }));
  }
  const { answer } = verdict;
  // Beside what blocks, a customer has no use for what does not.
  const blocking = answer.reasons.filter((reason) => reason.remedy !== 'REMEDY_NONE');
  const shown = verdict.outcome === 'blocked' && blocking.length > 0 && reader.audience === 'customer' ? blocking : answer.reasons;
  return page(reader, verdict.outcome, heading,
    shown.map((reason) => html`<section class="${reason.remedy === 'REMEDY_NONE' ? 'allows' : 'blocks'}" data-code="${reason.code}">
<p class="message">${reason.message}</p>
<p class="advice">${adviceFor(reason, reader.language, reader.audience, factsOf(reason, answer, reader.language))}</p>
</section>
`),
    answer.stale && reader.audience === 'staff' ? html`<p>${texts.details.stale}</p>` : '',
    verdict.outcome === 'allowed' && cart ? orderForm(cart, texts.order) : '',
    detailsOf(reader, {}, {
      customer_id: answer.customer_id, correlation_id: answer.correlation_id, request_id: verdict.requestId,
      evidence_time: answer.evidence_time && timeText(answer.evidence_time, reader.language),
    }));
}

/** Returns the page of an order that was placed. */
export function placedPage(reader, order) {
  const texts = TEXTS[reader.language];
  return page(reader, 'placed', texts.placed[reader.audience], detailsOf(reader, { order_id: order.id }, {}));
}

/** Returns the page of a cart that is not known, or no longer. */
export function expiredPage(reader) {
  const texts = TEXTS[reader.language];
  return page(reader, 'undecided', texts.expired[reader.audience], html`<p><a class="button" href="/">${texts.back}</a></p>`);
}

function orderForm(cart, label) {
  return html`<form method="post" action="/order"><input type="hidden" name="cart" value="${cart}"><button>${label}</button></form>`;
}

function detailsOf({ language, audience }, forAll, forStaff) {
  const names = TEXTS[language].details;
  const shown = Object.entries(audience === 'staff' ? { ...forStaff, ...forAll } : forAll).filter(([, value]) => value);
  return shown.length === 0 ? '' : html`<dl>${shown.map(([name, value]) => html`<dt>${names[name]}<dd>${value}`)}</dl>`;
}

function factsOf(reason, answer, language) {
  const qualification = answer.qualifications.find(({ vetting_status: status }) => status !== 'VETTING_STATUS_APPROVED');
  return {
    when: answer.recheck_time ? timeText(answer.recheck_time, language, { up: true }) : '',
    why: answer.qualifications.find(({ vetting_reason: why }) => why)?.vetting_reason ?? '',
    word: reason.code === 'REASON_CODE_QUALIFICATION_UNRECOGNIZED' ? qualification?.vetting_status_text ?? '' : answer.account_status_text,
  };
}

/**
 * Returns a time for reading, in whole minutes. Never sent back to the service: it needs
 * the time as it was given.
 */
function timeText({ seconds }, language, { up = false } = {}) {
  const minute = 60;
  const whole = up ? Math.ceil((Number(seconds) + 1) / minute) : Math.floor(Number(seconds) / minute);
  return new Intl.DateTimeFormat(language, {
    year: 'numeric', month: 'long', day: 'numeric', hour: '2-digit', minute: '2-digit', timeZoneName: 'short',
  }).format(new Date(whole * minute * 1000));
}
