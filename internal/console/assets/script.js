// The one script of the console. Pages work without it; it adds
//
//   - updates: an element with data-refresh="SECONDS" makes <main> be fetched again and
//     replaced that often while the tab is visible, and at once on a change that the
//     stream of data-events="URL" reports. An element with data-announce is read out
//     when an update changes its text;
//   - a button with data-copy="SELECTOR" copies the text of that element;
//   - times: each <time> has the reader's own time zone as its title.
"use strict";

(() => {
  const root = document.documentElement;
  root.classList.add("script");

  // announcer is what screen readers read out.
  const announcer = document.createElement("p");
  announcer.className = "visually-hidden";
  announcer.setAttribute("aria-live", "polite");
  document.body.append(announcer);

  const announce = (text) => {
    announcer.textContent = "";
    setTimeout(() => { announcer.textContent = text; }, 50);
  };

  // A notice about what the reader has just done, data-done, stays until another page is
  // opened. It does not come again when this one is opened again. One with data-waits is
  // replaced when the page has what it waits for.
  const forget = () => {
    const address = new URL(location.href);
    if (address.searchParams.has("asked") && !document.querySelector("[data-waits]")) {
      for (const name of ["asked", "asked_at", "evidence"]) {
        address.searchParams.delete(name);
      }
      history.replaceState(null, "", address);
    }
  };
  forget();

  // Times

  const localTimes = () => {
    for (const time of document.querySelectorAll("time[datetime]")) {
      const at = new Date(time.dateTime);
      if (!Number.isNaN(at.getTime())) {
        time.title = at.toLocaleString(undefined, { dateStyle: "full", timeStyle: "long" });
      }
    }
  };

  // Copying

  const select = (element) => {
    const range = document.createRange();
    range.selectNodeContents(element);
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    return selection;
  };

  // copy reports whether the text of element is in the clipboard; if not, it is selected.
  const copy = async (element) => {
    try {
      await navigator.clipboard.writeText(element.textContent.trim());
      return true;
    } catch { // plain HTTP has no clipboard, and the reader may refuse it
      const selection = select(element);
      if (!document.execCommand("copy")) {
        return false;
      }
      selection.removeAllRanges();
      return true;
    }
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) {
      return;
    }
    const element = document.querySelector(button.dataset.copy);
    if (!element) {
      return;
    }
    const label = button.dataset.label ?? button.textContent;
    button.dataset.label = label;
    const done = await copy(element);
    button.textContent = done ? "Copied" : "Selected: press Ctrl+C";
    announce(button.textContent);
    setTimeout(() => { button.textContent = label; }, 3000);
  });

  // Updates

  // keysOf names each <details> of a page, so that an open one can be found again.
  const keysOf = (page) => {
    const seen = new Map();
    const keys = new Map();
    for (const details of page.querySelectorAll("details")) {
      const name = details.id || details.textContent;
      const count = (seen.get(name) ?? 0) + 1;
      seen.set(name, count);
      keys.set(details, `${count} ${name}`);
    }
    return keys;
  };

  const isField = (element) => element.matches("input:not([type=hidden]), select, textarea");

  // twin is the element of a new page that is what element was.
  const twin = (page, element) => {
    if (element.id) {
      return page.querySelector(`#${CSS.escape(element.id)}`);
    }
    const like = [...page.querySelectorAll(element.tagName)];
    return like.find((other) => other.getAttribute("href") === element.getAttribute("href") && other.textContent === element.textContent);
  };

  const announced = (page) => [...page.querySelectorAll("[data-announce]")].map((element) => element.textContent.trim().replace(/\s+/g, " "));

  const replace = (main, next) => {
    const open = new Set([...keysOf(main)].filter(([details]) => details.open).map(([, key]) => key));
    for (const [details, key] of keysOf(next)) {
      details.open = details.open || open.has(key);
    }
    const before = announced(main);
    const news = announced(next).filter((text) => !before.includes(text));
    const done = main.querySelector("[data-done]");
    if (done) {
      next.querySelector(".head")?.after(done);
    }
    const focused = main.contains(document.activeElement) ? document.activeElement : null;
    let focus = focused && twin(next, focused);
    for (const field of [...main.querySelectorAll("[id]")].filter(isField)) {
      const other = twin(next, field);
      if (other && (field === focused || field.value !== field.defaultValue)) {
        other.replaceWith(field); // with what the reader has typed
        focus = field === focused ? field : focus;
      }
    }
    main.replaceChildren(...next.childNodes);
    focus?.focus({ preventScroll: true });
    localTimes();
    forget();
    if (news.length > 0) {
      announce(news.join(" "));
    }
  };

  const settings = () => document.querySelector("main [data-refresh]");

  const state = document.createElement("p");
  state.className = "live";
  const show = (text) => {
    state.textContent = text;
    if (!state.isConnected) { // moving it would change what is selected
      document.querySelector("main").append(state);
    }
  };

  const period = Math.max(1, Number(settings()?.dataset.refresh)) * 1000;

  let busy = false;
  let again = false; // an update was put off; the next tick does it
  let began = 0; // when the last update began
  let held = 0; // since when a selection holds one up
  let updated = new Date();

  // selecting reports whether text of main is selected.
  const selecting = (main) => {
    const selection = getSelection();
    return Boolean(selection) && !selection.isCollapsed && main.contains(selection.anchorNode);
  };

  const refresh = async () => {
    const main = document.querySelector("main");
    if (busy) {
      again = true;
      return;
    }
    // A selection holds an update up for one period: a page that is left alone with one
    // must not show for ever what is no longer so.
    held = selecting(main) ? held || Date.now() : 0;
    if (held && Date.now() - held < period) {
      again = true;
      show("Paused while text is selected.");
      return;
    }
    held = 0;
    busy = true;
    again = false;
    began = Date.now();
    try {
      const response = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "error", cache: "no-store", signal: AbortSignal.timeout(15000) });
      if (!response.ok) {
        throw new Error(String(response.status));
      }
      const next = new DOMParser().parseFromString(await response.text(), "text/html");
      replace(main, next.querySelector("main"));
      connect(); // the page may name another stream
      updated = new Date();
      show(`Updates itself. Last updated at ${updated.toLocaleTimeString()}.`);
    } catch {
      show(`Not updated since ${updated.toLocaleTimeString()}: the service does not answer, or you have been signed out. Reload the page to see more.`);
    } finally {
      busy = false;
    }
  };

  // changed updates the page soon, at most every two seconds; changes that come meanwhile
  // are part of the same update or of the next.
  let due = 0;
  const changed = () => {
    due ||= setTimeout(() => {
      due = 0;
      refresh();
    }, Math.max(250, began + 2000 - Date.now()));
  };

  let stream = null;
  let follows = ""; // the address of stream

  const disconnect = () => {
    stream?.close();
    stream = null;
  };

  // connect follows the stream that the page names now.
  const connect = () => {
    const url = settings()?.dataset.events ?? "";
    if (url !== follows) {
      disconnect();
    }
    if (!url || stream || document.hidden) {
      return;
    }
    follows = url;
    const opened = new EventSource(url);
    stream = opened;
    opened.addEventListener("change", (event) => {
      let initial = false;
      try {
        initial = Boolean(JSON.parse(event.data).change.initial);
      } catch { /* a message that is not understood may be a change */ }
      if (!initial) {
        changed();
      }
    });
    opened.addEventListener("error", () => {
      if (stream === opened && opened.readyState === EventSource.CLOSED) {
        disconnect(); // refused; tick begins a new one
      }
    });
  };

  localTimes();
  if (!settings()) {
    return;
  }
  show("Updates itself.");
  let last = Date.now();
  setInterval(() => {
    if (document.hidden) {
      return;
    }
    if (again || Date.now() - last >= period) {
      last = Date.now();
      connect();
      refresh();
    }
  }, 1000);
  connect();
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      disconnect();
      return;
    }
    last = Date.now();
    connect();
    refresh();
  });
  addEventListener("pagehide", disconnect);
})();
