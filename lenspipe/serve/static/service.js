// What the pages ask of the service, and how it gets what a grader did: an event waits in the
// browser until the service says that it is on disk, or that it never will be.

import { Waiting } from "./waiting.js";

const RETRY_MS = 2000;
const ANSWER_MS = 60_000;
const MOST = 100;
const REFUSED = new Set([400, 413, 422]);  // what is wrong with a request now is wrong with it for ever

export class Service {
  // on: saving(waiting, failed), kept(answer, events), refused(entry), leaving().
  constructor(on) {
    this.on = on;
    this.whose = {};
    this.waiting = null;
    this.sending = false;
    this.left = false;
    this.singly = 0;
    this.failed = null;
  }

  begin(run, grader) {
    this.whose = { run, grader };
    this.waiting = new Waiting(run, grader);
    addEventListener("storage", () => {
      this.saving();
      if (this.waiting.events.length) this.later();  // the other window may be gone by then
    });
    if (this.waiting.events.length) this.send();
  }

  get(path, given = {}) { return this.ask(path, given); }

  async ask(path, given, options = {}) {
    const query = new URLSearchParams({ ...this.whose, ...given });
    const signal = AbortSignal.timeout(ANSWER_MS);
    const reply = await fetch(`${path}?${query}`, { credentials: "same-origin", signal, ...options })
      .catch(() => { throw new Error("no answer"); });
    if (reply.status === 401) return this.leave("/login");
    const told = await reply.json().catch(() => null);
    if (reply.ok && told !== null) return told;
    throw Object.assign(new Error(told?.error ?? `status ${reply.status}`), { status: reply.status });
  }

  // Nothing goes on in a page that is left; what waits is sent when its person is back.
  leave(address) {
    this.left = true;
    this.on.leaving();
    location.assign(address);
    return new Promise(() => {});
  }

  // The key makes a resend the same event.
  add(event, words) {
    const known = { key: crypto.randomUUID?.() ?? key(), ...event };
    this.waiting.add(known, words);
    this.saving();
    this.send();
    return known.key;
  }

  saving() { this.on.saving(this.waiting.events.length, this.failed); }

  // Until what is on its way has arrived, or for a moment.
  async settled() {
    const end = performance.now() + 1500;
    while (this.sending && performance.now() < end) await new Promise((resolve) => setTimeout(resolve, 20));
  }

  async send() {
    if (this.sending || this.left) return;
    this.sending = true;
    try {
      for (let events = this.next(); events.length > 0 && !this.left; events = this.next()) await this.post(events);
      this.failed = null;
    } catch (error) {
      this.failed = error.message;
      this.later();
    } finally {
      this.sending = false;
    }
    this.saving();
  }

  later() {
    clearTimeout(this.again);
    this.again = setTimeout(() => this.send(), RETRY_MS);
  }

  // An undo goes alone, so that its answer says what it took back.
  next() {
    const events = this.waiting.events;
    const undo = events.findIndex(({ event }) => event.kind === "undo");
    const most = this.singly > 0 || undo === 0 ? 1 : undo > 0 ? Math.min(undo, MOST) : MOST;
    return events.slice(0, most);
  }

  // The service keeps all of a request or nothing: where it refuses one, each goes by itself.
  async post(events) {
    const asked = {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ events: events.map(({ event }) => event) }),
    };
    const told = await this.ask("/api/inspection/events", {}, asked).catch((error) => {
      if (!REFUSED.has(error.status)) throw error;
      return error;
    });
    if (told instanceof Error && events.length > 1) {
      this.singly = events.length;
      return;
    }
    this.singly = Math.max(0, this.singly - 1);
    this.failed = null;
    if (told instanceof Error) {
      this.waiting.refuse(events[0], told.message);
      this.on.refused(events[0]);
    } else {
      this.waiting.remove(...events);
      this.on.kept(told, events);
    }
    this.saving();
  }
}

function key() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
