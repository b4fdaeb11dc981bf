// The pages: which view is shown, how pictures look, keys, and what waits to be kept.

import { Mosaic } from "./mosaic.js";
import { element } from "./picture.js";
import { Service } from "./service.js";
import { Single } from "./single.js";

const at = (id) => document.getElementById(id);

class App {
  constructor() {
    this.view = at("view");
    this.look = { stretch: "asinh", band: "", noLight: false, explain: false };
    this.which = "all";
    this.service = new Service((waiting, failed) => this.saving(waiting, failed));
    this.service.onKept = (told) => this.kept(told);
    this.views = { mosaic: new Mosaic(this), single: new Single(this) };
    this.current = this.views.mosaic;
  }

  async begin() {
    let told = await this.service.get("/api/inspection");
    if (!told.named_by_token) {
      const name = localStorage.getItem("lenspipe grader") ?? await this.askName();
      localStorage.setItem("lenspipe grader", name);
      this.service.grader = name;
      told = await this.service.get("/api/inspection");
    }
    this.service.begin(told.named_by_token ? null : told.grader);
    this.grades = told.grades;
    this.bands = told.bands;
    this.blind = told.blind;
    at("who").textContent = told.blind ? `${told.grader}, blind` : told.grader;
    at("explained").hidden = told.blind || !told.has_explanation;
    for (const band of told.bands) at("band").append(element("option", { value: band }, band));
    this.progress(told);
    this.listen();
    const run = await this.service.get("/api/run");
    at("run-name").textContent = run.name;
    document.title = `${run.name}: candidates`;
    const asked = new URLSearchParams(location.hash.slice(1));
    if (asked.get("view") === "single") {
      await this.to("single", Number(asked.get("at") ?? told.progress.next_ungraded));
    } else {
      const start = Number(asked.get("at") ?? told.progress.next_unseen);
      await this.to("mosaic", start >= told.progress.objects ? 0 : start);
    }
  }

  askName() {
    const dialog = at("name-dialog");
    dialog.showModal();
    return new Promise((resolve) => dialog.addEventListener("close", () => resolve(at("name").value.trim() || "anyone"), { once: true }));
  }

  objects(start, count, details = false) {
    const given = { start, count };
    if (details) given.details = "true";
    if (this.which === "flagged") given.flagged = "true";
    return this.service.get("/api/inspection/objects", given);
  }

  async to(name, start) {
    this.current = this.views[name];
    this.name = name;
    at("to-mosaic").setAttribute("aria-pressed", String(name === "mosaic"));
    at("to-single").setAttribute("aria-pressed", String(name === "single"));
    await this.shown(this.current.show(start));
  }

  async shown(showing) {
    try {
      await showing;
      const k = this.name === "mosaic" ? this.current.start : this.current.at;
      history.replaceState(null, "", `#view=${this.name}&at=${k}`);
    } catch (error) {
      this.view.replaceChildren(element("p", { role: "alert" }, `The service did not answer: ${error.message}`),
        element("button", { type: "button", onclick: () => this.shown(this.current.show()) }, "Try again"));
    }
  }

  // Flags of the mosaic are looked at one by one.
  async single() {
    const told = this.told?.progress;
    if (told && told.flagged > 0 && this.name === "mosaic") this.select("flagged");
    await this.to("single", this.which === "flagged" ? 0 : (told?.next_ungraded ?? 0));
  }

  select(which) {
    this.which = which;
    at("which").value = which;
    this.views.single.cache.clear();
    this.views.mosaic.ahead = null;
  }

  did(event) { return this.service.add(event); }

  undo() { if (this.told?.undoable || this.service.queue.length) this.did({ kind: "undo" }); }

  kept(told) {
    this.progress(told);
    if (told.undone) this.shown(this.current.changed(told.undone) ?? Promise.resolve());
  }

  progress(told) {
    this.told = told;
    const { graded, flagged, seen, objects } = told.progress;
    at("bar").max = Math.max(objects, 1);
    at("bar").value = Math.max(seen, graded);
    at("progress").textContent = `${seen.toLocaleString()} seen, ${flagged.toLocaleString()} flagged, ${graded.toLocaleString()} graded of ${objects.toLocaleString()}`;
    at("undo").disabled = !told.undoable;
  }

  saving(waiting, failed) {
    const place = at("saving");
    place.classList.toggle("waiting", Boolean(failed));
    if (failed) place.textContent = `${waiting} not kept yet (${failed}), trying again`;
    else place.textContent = waiting ? `keeping ${waiting} …` : "all kept";
  }

  redraw() { this.views.single.cache.clear(); this.shown(this.current.show()); }

  listen() {
    at("to-mosaic").addEventListener("click", () => { this.select("all"); this.to("mosaic"); });
    at("to-single").addEventListener("click", () => this.single());
    at("which").addEventListener("change", (event) => { this.select(event.target.value); this.to(this.name, 0); });
    at("stretch").addEventListener("change", (event) => { this.look.stretch = event.target.value; this.redraw(); });
    at("band").addEventListener("change", (event) => { this.look.band = event.target.value; this.redraw(); });
    at("no-light").addEventListener("change", (event) => { this.look.noLight = event.target.checked; this.redraw(); });
    at("explain").addEventListener("change", (event) => { this.look.explain = event.target.checked; this.redraw(); });
    at("undo").addEventListener("click", () => this.undo());
    at("help-button").addEventListener("click", () => this.help());
    document.addEventListener("keydown", (event) => this.keydown(event));
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
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "checkbox") return;
    const own = {
      m: () => { this.select("all"); this.to("mosaic"); },
      o: () => this.single(),
      u: () => this.undo(),
      l: () => at("no-light").click(),
      e: () => { if (!at("explained").hidden) at("explain").click(); },
      "?": () => this.help(),
    };
    // A scheme's own keys go first: a grade may be called m.
    const typed = event.key;
    if (this.current.key(typed)) event.preventDefault();
    else if (own[typed.toLowerCase()]) { event.preventDefault(); own[typed.toLowerCase()](); }
  }
}

new App().begin().catch((error) => {
  at("view").replaceChildren(element("p", { role: "alert" }, `The service did not answer: ${error.message}`));
});
