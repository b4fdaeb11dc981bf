// Hundreds of candidates at once: click or press a key to flag; the next page is fetched while this
// one is looked at.

import { element, picture, pictureUrl } from "./picture.js";

export class Mosaic {
  constructor(app) {
    this.app = app;
    this.start = 0;
    this.objects = [];
    this.ahead = null;
  }

  get size() {
    const width = this.app.view.clientWidth - 20;
    const tile = parseInt(getComputedStyle(document.documentElement).getPropertyValue("--tile"), 10) + 4;
    const columns = Math.max(2, Math.floor(width / tile));
    const rows = Math.max(2, Math.floor((this.app.view.clientHeight - 70) / tile));
    return Math.min(500, columns * rows);
  }

  async show(start = this.start) {
    this.start = Math.max(0, start);
    const count = this.size;
    const kept = this.ahead;
    const asked = kept && kept.start === this.start && kept.count === count && kept.which === this.app.which
      ? kept.told : this.app.objects(this.start, count);
    this.ahead = null;
    const told = await asked;
    this.total = told.total;
    this.objects = told.objects;
    this.count = count;
    this.draw();
    this.preload();
  }

  draw() {
    const tiles = this.objects.map((each, k) => element("li", {}, this.tile(each, k)));
    const last = this.start + this.objects.length;
    const where = this.total === 0 ? "nothing to show"
      : `${(this.start + 1).toLocaleString()}–${last.toLocaleString()} of ${this.total.toLocaleString()}`;
    this.app.view.replaceChildren(
      element("ul", { class: "mosaic", "aria-label": `Candidates ${where}` }, ...tiles),
      element("div", { class: "turn" },
        element("button", { type: "button", id: "before", disabled: this.start === 0, onclick: () => this.turn(-1) }, "Page before"),
        element("span", { id: "where" }, where),
        element("button", { type: "button", id: "next", disabled: last >= this.total, onclick: () => this.turn(1) }, "Next page")));
    this.app.view.scrollTop = 0;
    this.focus(0);
  }

  tile(told, k) {
    const about = told.about;
    const words = `Candidate ${told.place + 1}${told.grade ? `, grade ${told.grade}` : ""}`;
    return element("button", {
      type: "button", class: "tile", "aria-pressed": String(told.flagged), "data-k": k,
      "aria-label": words, tabindex: k === 0 ? "0" : "-1",
      onclick: () => { this.focus(k); this.flag(k); },
    },
    picture(told, this.app.look, 2, ""),
    told.grade ? element("span", { class: "grade" }, told.grade) : null,
    about && about.probability !== undefined && about.probability !== null
      ? element("span", { class: "score" }, about.probability.toPrecision(2)) : null);
  }

  // Pictures are asked for as the page will ask for them, so that they come out of the cache.
  preload() {
    const start = this.start + this.objects.length;
    if (start >= this.total || this.objects.length < this.count) return;
    const told = this.app.objects(start, this.count);
    this.ahead = { start, count: this.count, which: this.app.which, told };
    told.then((next) => {
      for (const each of next.objects) {
        if (each.has_picture) new Image().src = pictureUrl(each.object, this.app.look, 2);
      }
    }, () => { this.ahead = null; });
  }

  async turn(pages) {
    if (pages > 0) {
      const last = this.objects.at(-1);
      if (last === undefined) return;
      if (this.app.which === "all") this.app.did({ kind: "seen", object: last.object, view: "mosaic" });
      if (this.start + this.objects.length >= this.total) return;
    }
    await this.show(this.start + pages * (this.count ?? this.size));
  }

  flag(k) {
    const told = this.objects[k];
    if (told === undefined) return;
    told.flagged = !told.flagged;
    this.button(k).setAttribute("aria-pressed", String(told.flagged));
    this.app.did({ kind: told.flagged ? "flag" : "unflag", object: told.object, view: "mosaic" });
  }

  button(k) { return this.app.view.querySelector(`[data-k="${k}"]`); }

  focus(k) {
    const before = this.app.view.querySelector('.tile[tabindex="0"]');
    before?.setAttribute("tabindex", "-1");
    const tile = this.button(k);
    if (!tile) return;
    tile.setAttribute("tabindex", "0");
    tile.focus({ preventScroll: false });
    this.at = k;
  }

  get columns() {
    const grid = this.app.view.querySelector(".mosaic");
    return grid ? getComputedStyle(grid).gridTemplateColumns.split(" ").length : 1;
  }

  changed(told) {
    const k = this.objects.findIndex((each) => each.object === told.object);
    if (k < 0) return;
    this.objects[k] = told;
    this.button(k).replaceWith(this.tile(told, k));
    this.focus(k);
  }

  key(key) {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns };
    if (key in steps) {
      const to = (this.at ?? 0) + steps[key];
      if (to >= 0 && to < this.objects.length) this.focus(to);
      return true;
    }
    if (key === " " || key === "f") { this.flag(this.at ?? 0); return true; }
    if (key === "n" || key === "PageDown") { this.turn(1); return true; }
    if (key === "p" || key === "PageUp") { this.turn(-1); return true; }
    return false;
  }

  static keys = [
    ["arrows", "from tile to tile"], ["space or f", "flag it, or take the flag away"],
    ["n, page down", "next page"], ["p, page up", "page before"],
  ];
}
