// One candidate at a time: a grade by a key, a comment, all that is known of it.

import { element, picture, pictureUrl } from "./picture.js";

const HIDDEN = new Set(["rank", "has_stamp", "healpix_29", "model_hash", "object_id", "separation_arcsec"]);

const STRIPS = [["neighbours", "Neighbours in score"], ["similar", "Seen alike by the networks"]];

export class Single {
  constructor(app) {
    this.app = app;
    this.asked = [0, 0];
    this.cache = new Map();
    this.turns = 0;
    this.fetching = true;
    this.ready = false;
  }

  // In the grader's order, which stays when flags come and go.
  get place() { return this.told?.place ?? this.asked[0]; }

  // The first at a place or after it; step -1: the one before. By default what was asked last. Whether
  // it could be shown.
  async show(place, step = 0, focused = null) {
    if (place === undefined) [place, step] = this.asked;
    this.asked = [place, step];
    this.fetching = true;
    this.ready = false;
    const turn = ++this.turns;
    const told = await this.fetch(place, step);
    if (turn !== this.turns) return true;
    this.fetching = false;
    if (this.app.current !== this) return true;  // one went to the mosaic meanwhile
    this.total = told.total;
    this.index = told.start;
    this.told = told.objects[0];
    if (this.told) this.asked = [this.told.place, 0];
    this.began = performance.now();
    const image = this.draw();
    if (focused) this.app.view.querySelector(focused)?.focus();
    this.preload();
    return this.arrived(image, turn);
  }

  // What is not on the page yet is not to be graded.
  async arrived(image, turn) {
    const failed = await image?.decode?.().then(() => false, () => true);
    if (turn !== this.turns || !this.told) return true;
    if (failed) {
      document.getElementById("stage").replaceChildren(element("span", { class: "missing" }, "The picture did not come. ",
        element("button", { type: "button", onclick: () => this.app.redraw() }, "Try again")));
      return false;
    }
    this.ready = true;
    this.app.view.firstChild.setAttribute("aria-busy", "false");
    return true;
  }

  preload() {
    if (this.told && this.index + 1 < this.total) this.fetch(this.told.place + 1, 0).then((next) => {
      const each = next.objects[0];
      if (each?.has_picture) new Image().src = pictureUrl(each.object, this.app.look, 6);
    }, () => {});
  }

  // Which objects are flagged changes: those are asked anew.
  fetch(place, start) {
    const asked = { place, start, count: 1, details: "true" };
    if (this.app.which !== "all") return this.app.objects(asked);
    const at = Math.max(0, place + start);
    if (!this.cache.has(at)) {
      if (this.cache.size > 20) this.cache.clear();
      this.cache.set(at, this.app.objects(asked).catch((error) => { this.cache.delete(at); throw error; }));
    }
    return this.cache.get(at);
  }

  // Returns the picture.
  draw() {
    if (this.told === undefined) {
      this.drawEnd();
      return null;
    }
    const { told, app } = this;
    const image = picture(told, app.look, 6, "The candidate");
    const overlay = app.look.explain && told.has_picture
      ? element("img", { src: `/api/inspection/objects/${told.object}/explanation.png?scale=6`, alt: "what spoke for a lens" }) : null;
    const stage = element("div", { class: app.look.byFinger ? "stage by-finger" : "stage", id: "stage" }, image, overlay);
    this.drag(stage, image);
    const bands = told.has_picture ? app.bands.map((band) => element("figure", {},
      element("img", { src: pictureUrl(told.object, { ...app.look, band }, 2), alt: `band ${band}` }),
      element("figcaption", {}, band))) : [];
    const grades = app.grades.map((grade) => element("button", {
      type: "button", "data-grade": grade.name, "aria-pressed": String(told.grade === grade.name),
      title: grade.label, onclick: (event) => this.grade(grade.name, event.detail === 0),
    }, grade.name, " ", element("kbd", {}, grade.key)));
    const where = `${(this.index + 1).toLocaleString()} of ${this.total.toLocaleString()}`;
    app.view.replaceChildren(element("div", { class: "single", "aria-busy": "true" },
      element("div", { class: "seen" }, stage, element("div", { class: "bands" }, ...bands), this.hint(stage)),
      element("div", { class: "judged" },
        element("h2", { id: "title" }, `Candidate ${told.place + 1}`, told.about?.name ? ` · ${told.about.name}` : "",
          " ", told.about?.known_lens ? element("span", { class: "known" }, `known lens ${told.about.known_lens}`) : null,
          " ", element("span", { class: "hint", id: "where" }, where)),
        element("div", { class: "grades", role: "group", "aria-label": "Grade" }, ...grades,
          element("button", { type: "button", id: "flag", "aria-pressed": String(told.flagged), onclick: () => this.flag() }, "Flag ", element("kbd", {}, "f")),
          element("span", { class: "steps" },
            element("button", { type: "button", id: "back", "aria-label": "The one before", disabled: this.index === 0, onclick: () => this.step(-1) }, "←"),
            element("button", { type: "button", id: "on", "aria-label": "The next one", onclick: () => this.step(1) }, "→"))),
        this.field(told), this.about(told.about),
        ...STRIPS.map(([id, title]) => element("div", { class: "strip", id, role: "group", "aria-label": title })))));
    app.view.scrollTop = 0;
    app.now(`Candidate ${told.place + 1}, ${where}${told.grade ? `, grade ${told.grade}` : ""}`);
    if (told.about) for (const [id, title] of STRIPS) this.strip(told, id, title);
    return image;
  }

  field(told) {
    const comment = element("textarea", {
      id: "comment", "aria-label": "Comment", placeholder: "Comment (Enter keeps it)", maxlength: "10000",
      onkeydown: (event) => {
        if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); comment.blur(); }
        if (event.key === "Escape") { comment.value = told.comment; comment.blur(); }
        event.stopPropagation();
      },
      onblur: () => this.comment(told, comment.value),
    }, told.comment);
    return comment;
  }

  // A finger scrolls, unless one says that it is for contrast.
  hint(stage) {
    const finger = element("button", {
      type: "button", id: "by-finger", "aria-pressed": String(this.app.look.byFinger),
      onclick: () => {
        this.app.look.byFinger = !this.app.look.byFinger;
        stage.classList.toggle("by-finger", this.app.look.byFinger);
        finger.setAttribute("aria-pressed", String(this.app.look.byFinger));
      },
    }, "Contrast by finger");
    return element("p", { class: "hint drag" }, finger,
      element("span", {}, "Drag over the picture: contrast across, brightness up and down; double click sets both back."));
  }

  drawEnd() {
    const nothing = this.app.which === "flagged" ? "Nothing is flagged." : "There is nothing to show.";
    this.app.view.replaceChildren(element("div", { class: "end" },
      element("p", { id: "end" }, this.total ? this.end : nothing),
      this.total ? element("button", { type: "button", onclick: () => this.step(-1) }, "Back ", element("kbd", {}, "←")) : null,
      this.total ? element("button", { type: "button", id: "to-left", hidden: this.left === 0, onclick: () => this.app.single() }, "To those left ", element("kbd", {}, "o")) : null,
      element("button", { type: "button", onclick: () => this.app.mosaic() }, "Mosaic ", element("kbd", {}, "m"))));
    this.app.now(this.total ? this.end : nothing);
  }

  // Counted as the service has it, so it changes when the last grade is kept.
  get left() {
    const { graded, objects, flagged_left: left } = this.app.told.progress;
    return this.app.which === "flagged" ? left : objects - graded;
  }

  get end() {
    const { graded, flagged } = this.app.told.progress;
    const done = this.app.which === "flagged" ? flagged - this.left : graded;
    return `That was the last one: ${done.toLocaleString()} graded, ${this.left.toLocaleString()} left.`;
  }

  counted() {
    const place = document.getElementById("end");
    if (!place || !this.total || place.textContent === this.end) return;
    place.textContent = this.end;
    document.getElementById("to-left").hidden = this.left === 0;
    this.app.now(this.end);
  }

  // Others beside it, once they are there; the next candidate may be on the page by then.
  async strip(told, id, title) {
    const found = await this.app.service.get(`/api/inspection/objects/${told.object}/${id}`).catch(() => ({ objects: [] }));
    const place = document.getElementById(id);
    if (this.told !== told || !place || !found.objects.length) return;
    place.replaceChildren(element("h3", {}, title), ...found.objects.map((each) => element("button", {
      type: "button", class: "other", "aria-label": `Candidate ${each.place + 1}, score ${format(each.about.score)}`,
      onclick: () => { this.app.select("all"); this.app.to("single", each.place); },
    }, picture(each, this.app.look, 2, ""), element("span", {}, format(each.about.score)))));
  }

  about(about) {
    if (!about) return element("p", { class: "hint" }, "Blind: scores and positions are not shown.");
    const rows = Object.entries(about).filter(([name, value]) => !HIDDEN.has(name) && value !== null && name !== "name")
      .flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, format(value))]);
    return element("div", {},
      element("dl", { class: "about" }, element("dt", {}, "rank"), element("dd", {}, String(about.rank)),
        element("dt", {}, "object_id"), element("dd", {}, String(about.object_id)), ...rows),
      element("div", { class: "links" }, ...links(about.ra, about.dec).map(([name, url]) =>
        element("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, name)),
        element("a", { href: `/api/candidates/${about.rank}/stamp.fits` }, "FITS")));
  }

  drag(stage, image) {
    let from = null;
    const look = { contrast: 1, brightness: 1 };
    const apply = () => { image.style.filter = `contrast(${look.contrast}) brightness(${look.brightness})`; };
    stage.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "touch" && !this.app.look.byFinger) return;
      from = { x: event.clientX, y: event.clientY, ...look };
      stage.setPointerCapture(event.pointerId);
    });
    stage.addEventListener("pointermove", (event) => {
      if (from === null) return;
      const side = stage.clientWidth || 1;
      look.contrast = from.contrast * 4 ** ((event.clientX - from.x) / side);
      look.brightness = from.brightness * 4 ** ((from.y - event.clientY) / side);
      apply();
    });
    for (const ended of ["pointerup", "pointercancel"]) stage.addEventListener(ended, () => { from = null; });
    stage.addEventListener("dblclick", () => { look.contrast = look.brightness = 1; apply(); });
  }

  get seconds() { return Math.min(86400, Math.round((performance.now() - this.began) / 100) / 10); }

  // byKey: on its button, where the focus then stays.
  grade(name, byKey = false) {
    if (!this.ready || this.told === undefined) return;
    this.told.grade = name;
    this.app.did({ kind: "grade", object: this.told.object, grade: name, view: "single", seconds_looked: this.seconds }, this.told);
    this.step(1, byKey ? `[data-grade="${CSS.escape(name)}"]` : null);
  }

  flag() {
    if (!this.ready || this.told === undefined) return;
    this.told.flagged = !this.told.flagged;
    document.getElementById("flag").setAttribute("aria-pressed", String(this.told.flagged));
    this.app.did({ kind: this.told.flagged ? "flag" : "unflag", object: this.told.object, view: "single" }, this.told);
  }

  // told: what it is about, which need not be on the page any more.
  comment(told, text) {
    if (text === told.comment) return;
    told.comment = text;
    this.app.did({ kind: "comment", object: told.object, comment: text, view: "single" }, told);
  }

  step(by, focused = null) {
    if (this.fetching || (by < 0 ? this.index === 0 : this.told === undefined)) return;
    this.app.shown(by < 0 ? this.show(this.place, -1) : this.show(this.told.place + 1, 0, focused));
  }

  // What was taken back is what one looks at; where that was its flag, the nearest one that has one.
  async changed(told) {
    const whole = await this.show(told.place);
    return this.told === undefined && this.total > 0 ? this.show(told.place, -1) : whole;
  }

  has(object) { return this.told?.object === object; }

  key(key) {
    const grade = this.app.grades.find((each) => each.key.toLowerCase() === key.toLowerCase());
    if (grade) { this.grade(grade.name); return true; }
    if (key === "ArrowRight") { this.step(1); return true; }
    if (key === "ArrowLeft") { this.step(-1); return true; }
    if (key === "f" || key === " ") { this.flag(); return true; }
    if (key === "Enter") { document.getElementById("comment")?.focus(); return true; }
    return false;
  }

  static keys = [
    ["→ ←", "next, and the one before"], ["f or space", "flag it, or take the flag away"],
    ["Enter", "comment"],
  ];
}

function format(value) {
  if (typeof value === "number" && !Number.isInteger(value)) return Math.abs(value) >= 1e-3 ? value.toFixed(5).replace(/0+$/, "") : value.toExponential(3);
  return String(value);
}

function links(ra, dec) {
  if (ra === undefined || dec === undefined) return [];
  const at = `${ra},${dec}`;
  return [
    ["Aladin Lite", `https://aladin.cds.unistra.fr/AladinLite/?target=${encodeURIComponent(`${ra} ${dec}`)}&fov=0.02`],
    ["Legacy Surveys", `https://www.legacysurvey.org/viewer?ra=${ra}&dec=${dec}&zoom=16`],
    ["PS1", `https://ps1images.stsci.edu/cgi-bin/ps1cutouts?pos=${at}`],
    ["ESASky", `https://sky.esa.int/esasky/?target=${encodeURIComponent(`${ra} ${dec}`)}&fov=0.02`],
    ["SIMBAD", `https://simbad.cds.unistra.fr/simbad/sim-coo?Coord=${encodeURIComponent(`${ra} ${dec}`)}&Radius=10&Radius.unit=arcsec`],
  ];
}
