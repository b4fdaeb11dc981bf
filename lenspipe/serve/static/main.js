// The pages: which view is shown, how pictures look, keys, and what waits to be kept.

import { Mosaic } from "./mosaic.js";
import { askName, known } from "./name.js";
import { element } from "./picture.js";
import { Service } from "./service.js";
import { Single } from "./single.js";

const SAID_MS = 8000;
const at = (id) => document.getElementById(id);

class App {
  constructor() {
    this.view = at("view");
    this.look = { stretch: "asinh", band: "", noLight: false, explain: false, byFinger: false };
    this.which = "all";
    this.undos = new Set();
    this.turns = 0;
    this.service = new Service({
      saving: (waiting, failed) => this.saving(waiting, failed),
      kept: (told, events) => this.kept(told, events),
      refused: (entry) => this.refused(entry),
      // What is written in a field is kept when it loses the focus.
      leaving: () => document.activeElement?.blur(),
    });
    this.views = { mosaic: new Mosaic(this), single: new Single(this) };
    this.current = this.views.mosaic;
  }

  async begin() {
    const first = await this.service.get("/api/inspection");
    const told = first.named_by_token ? first : await known(this.service) ?? await askName(this.service);
    this.byToken = told.named_by_token;
    this.grades = told.grades;
    this.bands = told.bands;
    this.blind = told.blind;
    at("who").textContent = told.blind ? `${told.grader}, blind` : told.grader;
    at("not-you").hidden = false;
    at("explained").hidden = told.blind || !told.has_explanation;
    for (const band of told.bands) at("band").append(element("option", { value: band }, band));
    this.progress(told);
    this.listen();
    this.service.begin(told.run, told.grader);
    this.listRefused();
    this.listOthers();
    const run = await this.service.get("/api/run");
    at("run-name").textContent = run.name;
    document.title = `${run.name}: candidates`;
    const asked = new URLSearchParams(location.hash.slice(1));
    const place = /^\d{1,9}$/.test(asked.get("at")) ? Number(asked.get("at")) : null;
    if (asked.get("which") === "flagged") this.select("flagged");
    if (asked.get("view") === "single") {
      await this.to("single", place ?? told.progress.next_ungraded);
    } else {
      const start = place ?? told.progress.next_unseen;
      await this.to("mosaic", start >= told.progress.objects ? 0 : start);
    }
  }

  objects(given) {
    return this.service.get("/api/inspection/objects", this.which === "flagged" ? { ...given, flagged: "true" } : given);
  }

  async to(name, start) {
    this.current = this.views[name];
    this.name = name;
    at("to-mosaic").setAttribute("aria-pressed", String(name === "mosaic"));
    at("to-single").setAttribute("aria-pressed", String(name === "single"));
    document.activeElement?.blur();
    await this.shown(this.current.show(start));
    if (document.activeElement === document.body) this.view.focus({ preventScroll: true });
  }

  async shown(showing) {
    const turn = ++this.turns;
    try {
      const whole = await showing;
      if (turn !== this.turns) return;
      this.broken = whole === false;
      history.replaceState(null, "", `#view=${this.name}&which=${this.which}&at=${this.current.place}`);
    } catch (error) {
      if (turn !== this.turns) return;
      this.broken = true;
      this.view.replaceChildren(element("p", { role: "alert" }, `The service did not answer: ${error.message}`),
        element("button", { type: "button", onclick: () => this.shown(this.current.show()) }, "Try again"));
    }
  }

  // Flags of the mosaic are looked at one by one, from the first that has no grade.
  async single() {
    await this.service.settled();
    const { flagged, next_flagged, next_ungraded, objects } = this.told.progress;
    if (flagged > 0 && this.name === "mosaic") this.select("flagged");
    const next = this.which === "flagged" ? next_flagged : next_ungraded;
    await this.to("single", next < objects ? next : 0);
  }

  mosaic() {
    this.select("all");
    return this.to("mosaic");
  }

  select(which) {
    this.which = which;
    at("which").value = which;
    this.forget();
  }

  forget() {
    this.views.single.cache.clear();
    this.views.mosaic.ahead = null;
  }

  // What a grader did to an object; words for the case that the service refuses it.
  did(event, told) {
    this.say("");
    const what = [event.kind, event.grade ?? event.comment].filter(Boolean).join(" ");
    return this.service.add(event, told ? `${what}, candidate ${told.place + 1}` : what);
  }

  undo() {
    if (this.told.undoable || this.service.waiting.events.length) this.undos.add(this.did({ kind: "undo" }));
  }

  kept(told, events) {
    this.progress(told);
    // An undo of another window takes nobody away from here.
    if (this.undos.delete(events[0].event.key)) this.undone(told.undone);
    else if (this.broken) this.shown(this.current.show());
  }

  undone(told) {
    this.forget();
    if (!told) {
      this.say("Undone. It was about nothing that is shown here.");
      return;
    }
    const grade = told.grade ? `grade ${told.grade}` : "no grade";
    this.say(`Undone. Candidate ${told.place + 1} has ${grade}${told.flagged ? " and a flag" : ""}.`);
    this.shown(this.current.changed(told));
  }

  // The page shows what the service has again; there may be other grades than when it was opened.
  async refused(entry) {
    this.forget();
    this.listRefused();
    const { grades } = await this.service.get("/api/inspection").catch(() => this);
    const same = JSON.stringify(grades) === JSON.stringify(this.grades);
    this.grades = grades;
    const writing = document.activeElement?.tagName === "TEXTAREA";
    if (!writing && (!same || this.current.has(entry.event.object))) this.redraw();
  }

  listRefused() {
    const entries = this.service.waiting.refused;
    at("refused").hidden = entries.length === 0;
    at("refused-title").textContent = `${entries.length} not taken`;
    at("refused-list").replaceChildren(...entries.map(({ words, why }) => element("li", {}, `${words}: ${why}`)));
  }

  dismiss() {
    this.service.waiting.remove(...this.service.waiting.refused);
    this.listRefused();
  }

  // Whose grades wait in this browser till they are back.
  listOthers() {
    const { persons, runs } = this.service.waiting.others;
    const told = [...persons].map(([name, n]) => `${n} of ${name}`);
    if (runs) told.push(`${runs} of another run`);
    at("others").textContent = told.length ? `Waiting in this browser: ${told.join(", ")}` : "";
  }

  async notYou() {
    await this.service.settled();
    if (!this.byToken) {
      if (await askName(this.service, true)) this.service.leave("/");
      return;
    }
    const reply = await fetch("/logout", { method: "POST", credentials: "same-origin" }).catch(() => null);
    if (reply?.ok || reply?.status === 401) this.service.leave("/login");
    else this.say("The service did not answer: you are still logged in.");
  }

  progress(told) {
    this.told = told;
    const { graded, flagged, seen, objects } = told.progress;
    at("bar").max = Math.max(objects, 1);
    at("bar").value = Math.max(seen, graded);
    at("progress").textContent = `${seen.toLocaleString()} seen, ${flagged.toLocaleString()} flagged, ${graded.toLocaleString()} graded of ${objects.toLocaleString()}`;
    at("undo").disabled = !told.undoable;
    this.current.counted();
  }

  saving(waiting, failed) {
    const place = at("saving");
    place.classList.toggle("waiting", Boolean(failed));
    if (failed) place.textContent = `${waiting} not kept yet (${failed}), trying again`;
    else place.textContent = waiting ? `keeping ${waiting} …` : "all kept";
    if (waiting) at("undo").disabled = false;
  }

  // What happened that the page does not show by itself.
  say(words) {
    clearTimeout(this.silence);
    at("said").textContent = words;
    if (words) this.silence = setTimeout(() => this.say(""), SAID_MS);
  }

  // For those who hear the page: what is on it now.
  now(words) { at("now").textContent = words; }

  redraw() { this.forget(); this.shown(this.current.show()); }

  listen() {
    // Keys are for the candidates again once something was chosen or clicked.
    const chosen = (id, then) => at(id).addEventListener("change", (event) => { event.target.blur(); then(event.target); });
    document.addEventListener("click", (event) => {
      if (event.detail > 0) event.target.closest("header button, header input, footer button, .grades button")?.blur();
    });
    at("to-mosaic").addEventListener("click", () => this.mosaic());
    at("to-single").addEventListener("click", () => this.single());
    chosen("which", ({ value }) => { this.select(value); this.to(this.name, 0); });
    chosen("stretch", ({ value }) => { this.look.stretch = value; this.redraw(); });
    chosen("band", ({ value }) => { this.look.band = value; this.redraw(); });
    at("no-light").addEventListener("change", (event) => { this.look.noLight = event.target.checked; this.redraw(); });
    at("explain").addEventListener("change", (event) => { this.look.explain = event.target.checked; this.redraw(); });
    at("look-button").addEventListener("click", () => this.open(!at("header").classList.contains("open")));
    this.view.addEventListener("pointerdown", () => this.open(false));
    at("not-you").addEventListener("click", () => this.notYou());
    at("dismiss").addEventListener("click", () => this.dismiss());
    at("undo").addEventListener("click", () => this.undo());
    at("help-button").addEventListener("click", () => this.help());
    document.addEventListener("keydown", (event) => this.keydown(event));
    addEventListener("pagehide", () => document.activeElement?.blur());
    addEventListener("storage", () => { this.listRefused(); this.listOthers(); });
  }

  // On narrow windows, where how pictures look is not always on the page.
  open(look) {
    at("header").classList.toggle("open", look);
    at("look-button").setAttribute("aria-expanded", String(look));
  }

  help() {
    const own = [["m", "mosaic"], ["o", "one by one; the flagged ones where some are"], ["u", "undo"],
      ["l", "without the lens's light"], ["e", "what spoke for a lens"], ["?", "these keys"]];
    const grades = this.name === "single" ? this.grades.map((grade) => [grade.key, `grade ${grade.name}: ${grade.label}`]) : [];
    const all = [...grades, ...this.current.constructor.keys, ...own];
    at("keys").replaceChildren(...all.flatMap(([key, what]) => [element("dt", {}, element("kbd", {}, key)), element("dd", {}, what)]));
    at("help").showModal();
  }

  keydown(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const { target, key: typed } = event;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName) && target.type !== "checkbox") return;
    // One press is one deed, however long it lasts; only ways may be walked like that, and what the
    // browser itself walks by (Tab, End) is left to it.
    if (event.repeat && !typed.startsWith("Arrow")) {
      if (typed.length === 1 || typed === "Enter") event.preventDefault();
      return;
    }
    // Whatever is activated by these keys has them for itself.
    if ((typed === "Enter" || typed === " ") && target.closest("a, button, input, summary")) return;
    const own = {
      m: () => this.mosaic(),
      o: () => this.single(),
      u: () => this.undo(),
      l: () => at("no-light").click(),
      e: () => { if (!at("explained").hidden) at("explain").click(); },
      "?": () => this.help(),
    };
    // A scheme's own keys go first: a grade may be called m.
    if (this.current.key(typed)) event.preventDefault();
    else if (own[typed.toLowerCase()]) { event.preventDefault(); own[typed.toLowerCase()](); }
  }
}

new App().begin().catch((error) => {
  at("view").replaceChildren(element("p", { role: "alert" }, `The service did not answer: ${error.message}`));
});
