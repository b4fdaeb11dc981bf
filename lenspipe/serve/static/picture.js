// How pictures are asked for and laid on the page.

export function pictureUrl(object, look, scale) {
  const given = { stretch: look.stretch, scale };
  if (look.band) given.band = look.band;
  if (look.noLight) given.without_lens_light = "true";
  return `/api/inspection/objects/${object}/picture.png?${new URLSearchParams(given)}`;
}

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

// A picture, or words where no pixels could be read.
export function picture(told, look, scale, alt) {
  if (!told.has_picture) return element("span", { class: "missing" }, "pixels could not be read");
  return element("img", { src: pictureUrl(told.object, look, scale), alt, decoding: "async", draggable: "false" });
}
