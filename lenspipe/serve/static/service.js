// What the pages ask of the service, and the queue of what a grader did: an event stays in the
// browser's storage until the service says that it is on disk, through outages and reloads.

const RETRY_MS = 2000;

export class Service {
  constructor(onSaving) {
    this.grader = null;
    this.onSaving = onSaving;
    this.queue = [];
    this.sending = false;
    this.onKept = () => {};
  }

  begin(grader) {
    this.grader = grader;
    this.storage = `lenspipe events ${location.host} ${grader ?? ""}`;
    this.queue = JSON.parse(localStorage.getItem(this.storage) ?? "[]");
    this.send();
  }

  async get(path, given = {}) {
    const query = new URLSearchParams(given);
    if (this.grader !== null) query.set("grader", this.grader);
    const reply = await fetch(`${path}?${query}`, { credentials: "same-origin" });
    if (reply.status === 401) location.assign("/login");
    const told = await reply.json();
    if (!reply.ok) throw new Error(told.error ?? reply.statusText);
    return told;
  }

  // The key makes a resend the same event.
  add(event) {
    this.queue.push({ key: crypto.randomUUID?.() ?? key(), ...event });
    this.store();
    return this.send();
  }

  store() {
    localStorage.setItem(this.storage, JSON.stringify(this.queue));
    this.onSaving(this.queue.length, this.failed);
  }

  async send() {
    if (this.sending || this.queue.length === 0) return;
    this.sending = true;
    try {
      while (this.queue.length > 0) {
        // An undo goes alone, so that its answer says what it took back.
        const first = this.queue.findIndex((event) => event.kind === "undo");
        const events = this.queue.slice(0, first === 0 ? 1 : first > 0 ? Math.min(first, 100) : 100);
        const query = this.grader === null ? "" : `?${new URLSearchParams({ grader: this.grader })}`;
        const reply = await fetch(`/api/inspection/events${query}`, {
          method: "POST",
          credentials: "same-origin",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify({ events }),
        });
        if (reply.status === 401) location.assign("/login");
        const told = await reply.json();
        if (reply.status >= 500) throw new Error(told.error);
        // What the service refuses would be refused for ever: it is said, and let go.
        if (!reply.ok) this.onSaving(this.queue.length, told.error);
        this.queue.splice(0, events.length);
        this.failed = null;
        this.store();
        if (reply.ok) this.onKept(told);
      }
    } catch (error) {
      this.failed = error.message || "no answer";
      this.store();
      setTimeout(() => this.send(), RETRY_MS);
    } finally {
      this.sending = false;
    }
  }
}

function key() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
