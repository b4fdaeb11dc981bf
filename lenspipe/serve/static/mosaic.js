// As many candidates as the window holds: click or press a key to flag; the next page is fetched
// while this one is looked at.

import { element, picture, pictureUrl } from "./picture.js";

const MOST = 500;
const RESIZED_MS = 150;

export class Mosaic {
  constructor(app) {
    this.app = app;
    this.asked = [0, 0];
    this.start = 0;
    this.objects = [];
    this.ahead = null;
    this.turns = 0;
    this.turning = false;
    new ResizeObserver(() => this.resized()).observe(app.view);
  }

  // In the grader's order, which stays when flags come and go.
  get place() { return this.objects[0]?.place ?? this.asked[0]; }

  // How many tiles are seen whole: measured, as fonts, zoom and style sheet have their say.
  get size() {
    const view = this.app.view;
    const list = element("ul", { class: "mosaic" }, element("li", {}, element("span", { class: "tile" })));
    const probe = element("div", { class: "probe", "aria-hidden": "true" }, list, this.bar("0"));
    view.append(probe);
    const grid = getComputedStyle(list);
    const gap = parseFloat(grid.rowGap);
    const pitch = list.getBoundingClientRect().height + gap;
    const columns = grid.gridTemplateColumns.split(" ").length;
    const padding = parseFloat(getComputedStyle(view).paddingTop) + parseFloat(getComputedStyle(view).paddingBottom);
    const left = view.getBoundingClientRect().height - padding - probe.lastChild.getBoundingClientRect().height;
    probe.remove();
    const rows = Math.max(1, Math.floor((left + gap) / pitch));
    return Math.min(MOST, columns * rows);
  }

  // From the first at a place or after it, or from `step` further. By default what was asked last.
  async show(place, step = 0, focused = place === undefined ? this.at ?? 0 : 0) {
    if (place === undefined) [place, step] = this.asked;
    this.asked = [place, step];
    this.turning = true;
    const turn = ++this.turns;
    const count = this.size;
    const kept = this.ahead;
    const asked = kept && kept.place === place && step === 0 && kept.count === count && kept.which === this.app.which
      ? kept.told : this.app.objects({ place, start: step, count });
    this.ahead = null;
    const told = await asked;
    if (turn !== this.turns) return;
    this.turning = false;
    if (this.app.current !== this) return;
    if (told.objects.length === 0 && told.total > 0) {
      await this.show(0);
      return;
    }
    this.total = told.total;
    this.start = told.start;
    this.objects = told.objects;
    this.asked = [this.place, 0];
    this.count = count;
    this.draw(Math.min(focused, Math.max(0, told.objects.length - 1)));
    this.preload();
  }

  // In a window of another size another number is seen whole. Fewer need nothing of the service.
  resized() {
    clearTimeout(this.later);
    this.later = setTimeout(() => {
      if (this.app.current !== this || this.turning || this.count === undefined || this.app.broken) return;
      const size = this.size;
      if (size < this.objects.length) {
        this.objects = this.objects.slice(0, size);
        this.count = size;
        this.draw(Math.min(this.at ?? 0, size - 1));
        this.preload();
      } else if (size !== this.count && !this.app.service.failed) this.app.shown(this.show());
    }, RESIZED_MS);
  }

  draw(focused) {
    const active = document.activeElement;
    const free = active === document.body || this.app.view.contains(active);
    const tiles = this.objects.map((each, k) => element("li", {}, this.tile(each, k, focused)));
    const last = this.start + this.objects.length;
    const where = this.total === 0 ? "nothing to show"
      : `${(this.start + 1).toLocaleString()}–${last.toLocaleString()} of ${this.total.toLocaleString()}`;
    this.app.view.replaceChildren(
      element("ul", { class: "mosaic", "aria-label": `Candidates ${where}` }, ...tiles), this.bar(where, last));
    this.app.view.scrollTop = 0;
    this.app.now(`Candidates ${where}`);
    this.focus(focused, free);
  }

  // The last page counts as seen when one says so; there is none to turn to.
  bar(where, last = 0) {
    return element("div", { class: "turn" },
      element("button", { type: "button", id: "before", disabled: this.start === 0, onclick: () => this.turn(-1) }, "Page before"),
      element("span", { id: "where" }, where),
      element("button", {
        type: "button", id: "next", disabled: last >= this.total && this.app.which !== "all", onclick: () => this.turn(1),
      }, last >= this.total && this.app.which === "all" ? "All seen" : "Next page"));
  }

  tile(told, k, focused = k) {
    const about = told.about;
    const lens = about?.known_lens;
    const words = `Candidate ${told.place + 1}${told.grade ? `, grade ${told.grade}` : ""}${lens ? `, known lens ${lens}` : ""}`;
    return element("button", {
      type: "button", class: "tile", "aria-pressed": String(told.flagged), "data-k": k,
      "aria-label": words, tabindex: k === focused ? "0" : "-1",
      onclick: () => { this.focus(k); this.flag(k); },
    },
    picture(told, this.app.look, 2, ""),
    lens ? element("span", { class: "known", title: `known lens ${lens}` }, "known") : null,
    told.grade ? element("span", { class: "grade" }, told.grade) : null,
    about && about.probability !== undefined && about.probability !== null
      ? element("span", { class: "score" }, about.probability.toPrecision(2)) : null);
  }

  // Pictures are asked for as the page will ask for them, so that they come out of the cache.
  preload() {
    if (this.start + this.objects.length >= this.total || this.objects.length < this.count) return;
    const place = this.objects.at(-1).place + 1;
    const told = this.app.objects({ place, count: this.count });
    this.ahead = { place, count: this.count, which: this.app.which, told };
    told.then((next) => {
      for (const each of next.objects) {
        if (each.has_picture) new Image().src = pictureUrl(each.object, this.app.look, 2);
      }
    }, () => { this.ahead = null; });
  }

  // Only what was on the page is seen: not while the next one is on its way.
  turn(pages) {
    if (this.turning || this.app.broken) return;
    const last = this.objects.at(-1);
    if (last === undefined) return;
    if (pages > 0) {
      if (this.app.which === "all") this.app.did({ kind: "seen", object: last.object, view: "mosaic" }, last);
      if (this.start + this.objects.length >= this.total) {
        this.app.say("That was the last page.");
        return;
      }
    } else if (this.start === 0) return;
    this.app.shown(pages > 0 ? this.show(last.place + 1) : this.show(this.place, -this.count));
  }

  flag(k) {
    const told = this.objects[k];
    if (told === undefined || this.turning || this.app.broken) return;
    told.flagged = !told.flagged;
    if (this.app.which !== "all") this.ahead = null;  // another count goes before it now
    this.button(k).setAttribute("aria-pressed", String(told.flagged));
    this.app.did({ kind: told.flagged ? "flag" : "unflag", object: told.object, view: "mosaic" }, told);
  }

  button(k) { return this.app.view.querySelector(`[data-k="${k}"]`); }

  focus(k, really = true) {
    const before = this.app.view.querySelector('.tile[tabindex="0"]');
    before?.setAttribute("tabindex", "-1");
    const tile = this.button(k);
    if (!tile) return;
    tile.setAttribute("tabindex", "0");
    if (really) tile.focus();
    this.at = k;
  }

  get columns() {
    const grid = this.app.view.querySelector(".mosaic");
    return grid ? getComputedStyle(grid).gridTemplateColumns.split(" ").length : 1;
  }

  // An object is another than it was shown: on the page that it is on.
  async changed(told) {
    const k = this.objects.findIndex((each) => each.object === told.object);
    if (k < 0) {
      if (this.app.which === "all") await this.show(told.place - told.place % this.count, 0, told.place % this.count);
      return;
    }
    this.objects[k] = told;
    this.button(k).replaceWith(this.tile(told, k));
    this.focus(k);
  }

  has(object) { return this.objects.some((each) => each.object === object); }

  counted() {}

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
