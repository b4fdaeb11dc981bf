// One candidate at a time: a grade by a key, a comment, all that is known of it.

import { element, picture, pictureUrl } from "./picture.js";

const HIDDEN = new Set(["rank", "has_stamp", "healpix_29", "model_hash", "object_id", "separation_arcsec"]);

const STRIPS = [["neighbours", "Neighbours in score"], ["similar", "Seen alike by the networks"]];

export class Single {
  constructor(app) {
    this.app = app;
    this.at = 0;
    this.cache = new Map();
  }

  async show(at = this.at) {
    const told = await this.fetch(at);
    this.at = told.objects.length ? at : 0;
    this.total = told.total;
    this.told = told.objects[0];
    this.began = performance.now();
    this.draw();
    if (at + 1 < this.total) this.fetch(at + 1).then((next) => {
      const each = next.objects[0];
      if (each?.has_picture) new Image().src = pictureUrl(each.object, this.app.look, 6);
    }, () => {});
  }

  // Of the objects that are flagged, places change with flags: those are asked anew.
  fetch(at) {
    if (this.app.which !== "all") return this.app.objects(at, 1, true);
    if (!this.cache.has(at)) {
      if (this.cache.size > 20) this.cache.clear();
      this.cache.set(at, this.app.objects(at, 1, true).catch((error) => { this.cache.delete(at); throw error; }));
    }
    return this.cache.get(at);
  }

  draw() {
    if (this.told === undefined) {
      this.app.view.replaceChildren(element("p", {}, "Nothing is left here."));
      return;
    }
    const { told, app } = this;
    const image = picture(told, app.look, 6, "The candidate");
    const overlay = app.look.explain && told.has_picture
      ? element("img", { src: `/api/inspection/objects/${told.object}/explanation.png?scale=6`, alt: "what spoke for a lens" }) : null;
    const stage = element("div", { class: "stage", id: "stage" }, image, overlay);
    this.drag(stage, image);
    const bands = told.has_picture ? app.bands.map((band) => element("figure", {},
      element("img", { src: pictureUrl(told.object, { ...app.look, band }, 2), alt: `band ${band}` }),
      element("figcaption", {}, band))) : [];
    const grades = app.grades.map((grade) => element("button", {
      type: "button", "data-grade": grade.name, "aria-pressed": String(told.grade === grade.name),
      title: grade.label, onclick: () => this.grade(grade.name),
    }, grade.name, " ", element("kbd", {}, grade.key)));
    const comment = element("textarea", {
      id: "comment", "aria-label": "Comment", placeholder: "Comment (Enter keeps it)", maxlength: "10000",
      onkeydown: (event) => {
        if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); comment.blur(); }
        if (event.key === "Escape") { comment.value = told.comment; comment.blur(); }
        event.stopPropagation();
      },
      onblur: () => this.comment(comment.value),
    }, told.comment);
    app.view.replaceChildren(element("div", { class: "single" },
      element("div", {}, stage, element("div", { class: "bands" }, ...bands),
        element("p", { class: "hint" }, "Drag over the picture: contrast across, brightness up and down; double click sets both back.")),
      element("div", {},
        element("h2", { id: "title" }, `Candidate ${told.place + 1}`, told.about?.name ? ` · ${told.about.name}` : ""),
        element("div", { class: "grades", role: "group", "aria-label": "Grade" }, ...grades,
          element("button", { type: "button", id: "flag", "aria-pressed": String(told.flagged), onclick: () => this.flag() }, "Flag ", element("kbd", {}, "f"))),
        comment, this.about(told.about),
        ...STRIPS.map(([id, title]) => element("div", { class: "strip", id, role: "group", "aria-label": title })),
        element("p", { class: "hint", id: "where" }, `${(this.at + 1).toLocaleString()} of ${this.total.toLocaleString()}`))));
    app.view.scrollTop = 0;
    if (told.about) for (const [id, title] of STRIPS) this.strip(told, id, title);
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
    stage.addEventListener("pointerup", () => { from = null; });
    stage.addEventListener("dblclick", () => { look.contrast = look.brightness = 1; apply(); });
  }

  get seconds() { return Math.min(86400, Math.round((performance.now() - this.began) / 100) / 10); }

  async grade(name) {
    if (this.told === undefined) return;
    this.told.grade = name;
    this.app.did({ kind: "grade", object: this.told.object, grade: name, view: "single", seconds_looked: this.seconds });
    await this.step(1);
  }

  flag() {
    if (this.told === undefined) return;
    this.told.flagged = !this.told.flagged;
    document.getElementById("flag").setAttribute("aria-pressed", String(this.told.flagged));
    this.app.did({ kind: this.told.flagged ? "flag" : "unflag", object: this.told.object, view: "single" });
  }

  comment(text) {
    if (this.told === undefined || text === this.told.comment) return;
    this.told.comment = text;
    this.app.did({ kind: "comment", object: this.told.object, comment: text, view: "single" });
  }

  async step(by) {
    const to = this.at + by;
    if (to < 0) return;
    if (to >= this.total) { this.draw(); return; }
    await this.show(to);
  }

  async changed(told) {
    this.cache.clear();
    await this.show(this.app.which === "all" ? told.place : this.at);
  }

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
