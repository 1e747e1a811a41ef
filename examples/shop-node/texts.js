// The shop's own words: what a reason or an error means for the person who reads it. The
// service's message states what is so; these texts state what happens next. A customer is
// never asked to do what the partner has to do, and is spared what only staff can use.

/** The languages of the shop, the default first. */
export const LANGUAGES = ['en', 'de'];

/**
 * Returns which of the shop's languages an Accept-Language header prefers.
 */
export function languageOf(header = '') {
  let best = LANGUAGES[0];
  let highest = 0;
  for (const item of header.slice(0, 512).split(',')) {
    const [range, ...parameters] = item.trim().toLowerCase().split(/\s*;\s*/);
    const weight = parameters.find((parameter) => parameter.startsWith('q='));
    const q = weight === undefined ? 1 : Number(weight.slice(2));
    const language = range.split('-')[0];
    if (LANGUAGES.includes(language) && q > highest) {
      [best, highest] = [language, q];
    }
  }
  return best;
}

// Each text of a reason gets `when`, a time from which on asking again is worthwhile, or
// ''; `word`, a status that the service does not know; and `why`, Microsoft's own words
// about a denial, or ''.

const en = {
  title: 'Checkout',
  allowed: { customer: 'You can place your order.', staff: 'This customer may buy.' },
  blocked: { customer: 'We cannot take this order at the moment.', staff: 'This customer may not buy at the moment.' },
  undecided: { customer: 'We cannot take this order at the moment.', staff: 'It is not known whether this customer may buy.' },
  placed: { customer: 'Thank you. Your order has been placed.', staff: 'The order has been placed.' },
  expired: { customer: 'This page has expired. Your order has not been placed.', staff: 'This page has expired. The order has not been placed.' },
  order: 'Place order',
  again: 'Try again',
  back: 'Back to the checkout',
  details: { customer_id: 'Customer ID', correlation_id: 'Correlation ID', evidence_time: 'As of', request_id: 'Request ID', order_id: 'Order number', reason: 'Reason', stale: 'Microsoft could not be asked again: this is the last answer.' },
  remedy: {
    REMEDY_NONE: { customer: () => '', staff: () => '' },
    REMEDY_WAIT: {
      customer: ({ when }) => `You need not do anything. You can try again ${when ? `after ${when}` : 'later'}.`,
      staff: ({ when }) => `This changes without our doing anything. ${when ? `Check again after ${when}.` : 'Check again later.'}`,
    },
    REMEDY_UPDATE_CUSTOMER: {
      customer: () => 'We will correct your organization’s data at Microsoft and apply again. We will contact you if we need anything from you for that.',
      staff: ({ why }) => `Correct the customer’s data in Partner Center and submit the qualification again.${why && ` Microsoft’s reason: “${why}”.`}`,
    },
    REMEDY_REQUEST_QUALIFICATION: {
      customer: () => 'We will apply to Microsoft for this qualification on your behalf. We will contact you about it.',
      staff: () => 'Request the qualification for the customer in Partner Center.',
    },
    REMEDY_CONTACT_SUPPORT: {
      customer: () => 'We will clarify this with Microsoft and contact you. There is nothing for you to do.',
      staff: () => 'Open a ticket with Microsoft support in Partner Center, and quote the details below.',
    },
    // A remedy that was added to the service later.
    OTHER: {
      customer: () => 'We will look into this and contact you. There is nothing for you to do.',
      staff: () => 'Ask the operator of eligibilityd what can be done, and quote the details below.',
    },
  },
  // Codes for which more can be stated than for their remedy.
  code: {
    REASON_CODE_ACCOUNT_STATUS_UNRECOGNIZED: { staff: ({ word }) => unknownWord.en(word) },
    REASON_CODE_QUALIFICATION_UNRECOGNIZED: { staff: ({ word }) => unknownWord.en(word) },
    REASON_CODE_UNDECIDABLE: {
      staff: ({ when }) => `Partner Center could not be asked. Check again ${when ? `after ${when}` : 'later'}. If this lasts, report it to the operator of eligibilityd.`,
    },
  },
  failure: {
    LATER: {
      customer: ({ seconds }) => `We cannot check with Microsoft right now whether we may sell to you. Your order has not been placed. ${later.en(seconds)}`,
    },
    OURS: {
      customer: () => 'A fault on our side keeps us from checking your order. Your order has not been placed. Please contact our customer service and quote the number below.',
    },
    CUSTOMER_NOT_FOUND: {
      customer: () => 'The customer ID that we have stored for you is not known to Microsoft. Your order has not been placed. Please contact our customer service and quote the number below.',
      staff: () => 'Partner Center has no such customer. Compare the ID with the customer’s tenant ID in Partner Center.',
    },
    CUSTOMER_NOT_SERVED: {
      customer: () => 'Your organization is not connected with us at Microsoft yet. We will send you an invitation: once you have accepted it, you can place your order.',
      staff: () => 'The customer has no relationship with this partner. Send the customer a reseller invitation from Partner Center.',
    },
    INVALID_ARGUMENT: { staff: () => 'The customer ID is not a GUID, or the shop has sent something else that is not valid. Compare the ID with the customer’s tenant ID in Partner Center.' },
    UNAUTHENTICATED: { staff: () => 'eligibilityd does not accept the shop’s credentials. Give the shop’s administrators the details below.' },
    PERMISSION_DENIED: { staff: ({ right }) => `The shop lacks a right${right && ` (${right})`}. The operator of eligibilityd has to grant it.` },
    PARTNER_CENTER_UNAVAILABLE: { staff: () => 'Partner Center or Microsoft’s login does not work. See Microsoft’s service health, and check again later.' },
    PARTNER_CENTER_THROTTLED: { staff: ({ seconds }) => `The limit on calls to Partner Center is reached. ${later.en(seconds)}` },
    PARTNER_CENTER_CREDENTIALS: { staff: () => 'Partner Center refuses the credentials of eligibilityd. Report this to its operator at once.' },
    PARTNER_CENTER_INVALID_RESPONSE: { staff: () => 'Partner Center has answered something that cannot be read. Report this to the operator of eligibilityd at once.' },
    OVERLOADED: { staff: ({ seconds }) => `Too many checks at once. ${later.en(seconds)}` },
    CALLER_LIMITED: { staff: ({ seconds }) => `The shop has used up what it may ask for now. ${later.en(seconds)}` },
    DEADLINE_EXCEEDED: { staff: () => 'Partner Center needed more time than the shop had. Check again: the answer is usually there by then.' },
    CANCELLED: { staff: () => 'The check was cut off. Check again.' },
    INTERNAL: { staff: () => 'eligibilityd has a fault. Report this to its operator at once.' },
    UNREACHABLE: { staff: () => 'eligibilityd cannot be reached. Check again in a moment; if this lasts, report it to its operator.' },
    UNKNOWN: { staff: () => 'The check failed for a reason that this shop does not know. Report this to the operator of eligibilityd.' },
  },
};

const de = {
  title: 'Kasse',
  allowed: { customer: 'Sie können Ihre Bestellung aufgeben.', staff: 'Dieser Kunde darf kaufen.' },
  blocked: { customer: 'Wir können diese Bestellung derzeit nicht annehmen.', staff: 'Dieser Kunde darf derzeit nicht kaufen.' },
  undecided: { customer: 'Wir können diese Bestellung derzeit nicht annehmen.', staff: 'Es ist nicht bekannt, ob dieser Kunde kaufen darf.' },
  placed: { customer: 'Vielen Dank. Ihre Bestellung ist eingegangen.', staff: 'Die Bestellung ist eingegangen.' },
  expired: { customer: 'Diese Seite ist abgelaufen. Es wurde nichts bestellt.', staff: 'Diese Seite ist abgelaufen. Es wurde nichts bestellt.' },
  order: 'Jetzt bestellen',
  again: 'Erneut versuchen',
  back: 'Zurück zur Kasse',
  details: { customer_id: 'Kunden-ID', correlation_id: 'Korrelations-ID', evidence_time: 'Stand', request_id: 'Anfrage-ID', order_id: 'Bestellnummer', reason: 'Grund', stale: 'Microsoft konnte nicht erneut gefragt werden: Dies ist die letzte Antwort.' },
  remedy: {
    REMEDY_NONE: { customer: () => '', staff: () => '' },
    REMEDY_WAIT: {
      customer: ({ when }) => `Sie müssen nichts unternehmen. ${when ? `Nach dem ${when}` : 'Später'} können Sie es erneut versuchen.`,
      staff: ({ when }) => `Das ändert sich ohne unser Zutun. Bitte ${when ? `nach dem ${when}` : 'später'} erneut prüfen.`,
    },
    REMEDY_UPDATE_CUSTOMER: {
      customer: () => 'Wir berichtigen die Daten Ihrer Organisation bei Microsoft und stellen den Antrag erneut. Falls wir dafür etwas von Ihnen brauchen, melden wir uns bei Ihnen.',
      staff: ({ why }) => `Bitte die Daten des Kunden im Partner Center berichtigen und die Qualifikation erneut einreichen.${why && ` Begründung von Microsoft: „${why}“.`}`,
    },
    REMEDY_REQUEST_QUALIFICATION: {
      customer: () => 'Wir beantragen diese Qualifikation für Sie bei Microsoft. Dazu melden wir uns bei Ihnen.',
      staff: () => 'Bitte die Qualifikation für den Kunden im Partner Center beantragen.',
    },
    REMEDY_CONTACT_SUPPORT: {
      customer: () => 'Wir klären das mit Microsoft und melden uns bei Ihnen. Sie müssen nichts tun.',
      staff: () => 'Bitte im Partner Center ein Ticket beim Microsoft-Support eröffnen und die Angaben unten nennen.',
    },
    OTHER: {
      customer: () => 'Wir gehen dem nach und melden uns bei Ihnen. Sie müssen nichts tun.',
      staff: () => 'Bitte den Betreiber von eligibilityd fragen, was zu tun ist, und die Angaben unten nennen.',
    },
  },
  code: {
    REASON_CODE_ACCOUNT_STATUS_UNRECOGNIZED: { staff: ({ word }) => unknownWord.de(word) },
    REASON_CODE_QUALIFICATION_UNRECOGNIZED: { staff: ({ word }) => unknownWord.de(word) },
    REASON_CODE_UNDECIDABLE: {
      staff: ({ when }) => `Das Partner Center war nicht erreichbar. Bitte ${when ? `nach dem ${when}` : 'später'} erneut prüfen. Hält das an, bitte dem Betreiber von eligibilityd melden.`,
    },
  },
  failure: {
    LATER: {
      customer: ({ seconds }) => `Wir können derzeit nicht bei Microsoft prüfen, ob wir Sie beliefern dürfen. Es wurde nichts bestellt. ${later.de(seconds)}`,
    },
    OURS: {
      customer: () => 'Wegen eines Fehlers auf unserer Seite können wir Ihre Bestellung nicht prüfen. Es wurde nichts bestellt. Bitte wenden Sie sich mit der Nummer unten an unseren Kundendienst.',
    },
    CUSTOMER_NOT_FOUND: {
      customer: () => 'Microsoft kennt die Kunden-ID nicht, die bei uns für Sie hinterlegt ist. Es wurde nichts bestellt. Bitte wenden Sie sich mit der Nummer unten an unseren Kundendienst.',
      staff: () => 'Das Partner Center hat keinen solchen Kunden. Bitte die ID mit der Mandanten-ID des Kunden im Partner Center vergleichen.',
    },
    CUSTOMER_NOT_SERVED: {
      customer: () => 'Ihre Organisation ist bei Microsoft noch nicht mit uns verbunden. Wir senden Ihnen eine Einladung: Sobald Sie sie angenommen haben, können Sie bestellen.',
      staff: () => 'Der Kunde hat keine Beziehung zu diesem Partner. Bitte dem Kunden aus dem Partner Center eine Reseller-Einladung senden.',
    },
    INVALID_ARGUMENT: { staff: () => 'Die Kunden-ID ist keine GUID, oder der Shop hat etwas anderes Ungültiges gesendet. Bitte die ID mit der Mandanten-ID des Kunden im Partner Center vergleichen.' },
    UNAUTHENTICATED: { staff: () => 'eligibilityd akzeptiert die Anmeldedaten des Shops nicht. Bitte die Angaben unten der Administration des Shops geben.' },
    PERMISSION_DENIED: { staff: ({ right }) => `Dem Shop fehlt ein Recht${right && ` (${right})`}. Der Betreiber von eligibilityd muss es erteilen.` },
    PARTNER_CENTER_UNAVAILABLE: { staff: () => 'Das Partner Center oder die Anmeldung bei Microsoft ist gestört. Bitte den Dienststatus von Microsoft ansehen und später erneut prüfen.' },
    PARTNER_CENTER_THROTTLED: { staff: ({ seconds }) => `Die Grenze für Abfragen des Partner Centers ist erreicht. ${later.de(seconds)}` },
    PARTNER_CENTER_CREDENTIALS: { staff: () => 'Das Partner Center lehnt die Anmeldedaten von eligibilityd ab. Bitte sofort dem Betreiber melden.' },
    PARTNER_CENTER_INVALID_RESPONSE: { staff: () => 'Das Partner Center hat etwas geantwortet, das nicht lesbar ist. Bitte sofort dem Betreiber von eligibilityd melden.' },
    OVERLOADED: { staff: ({ seconds }) => `Zu viele Prüfungen auf einmal. ${later.de(seconds)}` },
    CALLER_LIMITED: { staff: ({ seconds }) => `Der Shop hat verbraucht, was er jetzt abfragen darf. ${later.de(seconds)}` },
    DEADLINE_EXCEEDED: { staff: () => 'Das Partner Center hat länger gebraucht, als der Shop warten konnte. Bitte erneut prüfen: Meist liegt die Antwort dann vor.' },
    CANCELLED: { staff: () => 'Die Prüfung wurde abgebrochen. Bitte erneut prüfen.' },
    INTERNAL: { staff: () => 'eligibilityd hat einen Fehler. Bitte sofort dem Betreiber melden.' },
    UNREACHABLE: { staff: () => 'eligibilityd ist nicht erreichbar. Bitte gleich erneut prüfen; hält das an, bitte dem Betreiber melden.' },
    UNKNOWN: { staff: () => 'Die Prüfung ist aus einem Grund gescheitert, den dieser Shop nicht kennt. Bitte dem Betreiber von eligibilityd melden.' },
  },
};

const later = {
  en: (seconds) => (seconds ? `Please try again in ${seconds} ${seconds === 1 ? 'second' : 'seconds'}.` : 'Please try again in a few minutes.'),
  de: (seconds) => (seconds ? `Bitte versuchen Sie es in ${seconds} ${seconds === 1 ? 'Sekunde' : 'Sekunden'} erneut.` : 'Bitte versuchen Sie es in einigen Minuten erneut.'),
};

const unknownWord = {
  en: (word) => `eligibilityd does not know this status: “${word}”. Report it to the operator of eligibilityd. Microsoft support can explain it, on a ticket with the details below.`,
  de: (word) => `eligibilityd kennt diesen Status nicht: „${word}“. Bitte dem Betreiber von eligibilityd melden. Der Microsoft-Support kann ihn erklären, auf ein Ticket mit den Angaben unten.`,
};

/** The shop's texts, by language. */
export const TEXTS = { en, de };

// What customers are shown for errors that none of them can do anything about.
const LATER = new Set([
  'PARTNER_CENTER_UNAVAILABLE', 'PARTNER_CENTER_THROTTLED', 'OVERLOADED', 'CALLER_LIMITED', 'DEADLINE_EXCEEDED', 'CANCELLED', 'UNREACHABLE',
]);

/**
 * Returns what the shop adds to a reason's message for an audience, customer or staff.
 */
export function adviceFor(reason, language, audience, facts) {
  const texts = TEXTS[language];
  const text = texts.code[reason.code]?.[audience] ?? texts.remedy[reason.remedy]?.[audience] ?? texts.remedy.OTHER[audience];
  return text(facts);
}

/**
 * Returns what the shop tells an audience about an error.
 */
export function failureFor(failure, language, audience) {
  const { failure: texts } = TEXTS[language];
  const seconds = failure.retryAfterMs === undefined ? undefined : Math.max(Math.ceil(failure.retryAfterMs / 1000), 1);
  const facts = { seconds, right: failure.metadata?.right ?? '' };
  const own = texts[failure.reason]?.[audience];
  if (own) {
    return own(facts);
  }
  return audience === 'customer' ? texts[LATER.has(failure.reason) ? 'LATER' : 'OURS'].customer(facts) : texts.UNKNOWN.staff();
}
