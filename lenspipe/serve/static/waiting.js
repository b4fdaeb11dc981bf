// What a grader did and the service does not have on disk yet, and what it refused: in the browser's
// storage under a key for each event, so that no window overwrites what another one wrote, and for
// each run and person apart, so that nobody's grades become another's.

const PERSON = "lenspipe grader";

export const person = {
  get name() { return localStorage.getItem(PERSON); },
  set name(name) { localStorage.setItem(PERSON, name); },
};

export class Waiting {
  constructor(run, grader) {
    this.run = run;
    this.own = `lenspipe ${run} ${encodeURIComponent(grader)}`;
    this.unstored = new Map();
    this.last = 0;
  }

  get events() { return this.entries("event"); }

  get refused() { return this.entries("refused"); }

  // words: what a person calls it, for the case that it is refused.
  add(event, words) {
    // A clock that was set back must not turn the order round.
    const before = Math.max(this.last, ...this.names("event").map((name) => Number(name.split(" ")[4])));
    this.last = Math.max(Date.now() * 1000, before + 1);
    this.put("event", `${String(this.last).padStart(17, "0")} ${event.key}`, { event, words });
  }

  remove(...entries) {
    for (const { name } of entries) {
      this.unstored.delete(name);
      localStorage.removeItem(name);
    }
  }

  // An undo that was meant for what is refused would take back something else.
  refuse(entry, why) {
    const undo = undoOf(entry, this.events);
    this.put("refused", entry.name.split(" ").slice(4).join(" "), { event: entry.event, words: entry.words, why });
    this.remove(entry, ...(undo ? [undo] : []));
  }

  // How many wait here for others: by name, and for other runs.
  get others() {
    const found = { persons: new Map(), runs: 0 };
    for (const name of Object.keys(localStorage)) {
      const [app, run, grader, what] = name.split(" ");
      if (app !== "lenspipe" || what !== "event" || name.startsWith(`${this.own} `)) continue;
      if (run !== this.run) found.runs += 1;
      else found.persons.set(decodeURIComponent(grader), (found.persons.get(decodeURIComponent(grader)) ?? 0) + 1);
    }
    return found;
  }

  names(what) {
    const all = new Set([...Object.keys(localStorage), ...this.unstored.keys()]);
    return [...all].filter((name) => name.startsWith(`${this.own} ${what} `)).sort();
  }

  entries(what) {
    return this.names(what)
      .map((name) => ({ name, ...JSON.parse(this.unstored.get(name) ?? localStorage.getItem(name)) }))
      .filter((entry) => entry.event);  // another window may have sent it just now
  }

  put(what, ending, entry) {
    const name = `${this.own} ${what} ${ending}`;
    const text = JSON.stringify(entry);
    try {
      localStorage.setItem(name, text);
    } catch {
      this.unstored.set(name, text);  // the storage is full: as long as this window lives
    }
  }
}

function undoOf(entry, events) {
  let depth = 0;
  for (const each of events.slice(events.findIndex(({ name }) => name === entry.name) + 1)) {
    if (each.event.kind === "undo" && depth === 0) return each;
    if (each.event.kind !== "seen") depth += each.event.kind === "undo" ? -1 : 1;
  }
  return null;
}
