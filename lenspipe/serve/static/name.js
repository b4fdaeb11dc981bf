// Who grades, where no token says it: asked once, and asked again for a name that the service refuses.

import { person } from "./waiting.js";

const at = (id) => document.getElementById(id);

// What the service says to the one who graded in this browser before; null where that is nobody.
export async function known(service) {
  if (person.name === null) return null;
  return begun(service, person.name).catch((error) => {
    if (!refused(error)) throw error;
    at("name").value = person.name;
    at("name-wrong").textContent = error.message;
    return null;
  });
}

// What it says to whoever gives a name now. leave: one may go without; null then.
export function askName(service, leave = false) {
  const dialog = at("name-dialog");
  if (leave) at("name").value = at("name-wrong").textContent = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const ended = (told) => {
      ending.abort();
      dialog.close();
      resolve(told);
    };
    const ending = new AbortController();
    const listening = { signal: ending.signal };
    dialog.addEventListener("close", () => { if (leave) ended(null); else dialog.showModal(); }, listening);
    at("name-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const name = at("name").value.trim();
      const asked = name ? begun(service, name) : Promise.reject(new Error("a name has letters"));
      asked.then(ended, (error) => { at("name-wrong").textContent = error.message; });
    }, listening);
  });
}

async function begun(service, name) {
  const told = await service.get("/api/inspection", { grader: name });
  person.name = name;
  return told;
}

function refused(error) { return error.status === 400 || error.status === 422; }
