// The page of a run: asks every two seconds whether there is something new, and draws it.

const EVERY = 2000; // ms
const byId = (id) => document.getElementById(id);
const words = await (await fetch("api/strings")).json();
let language = localStorage.getItem("language") || (navigator.language.toLowerCase().startsWith("ru") ? "ru" : "en");
let stamp = "";
let sheets = [];
let asked = "";
let running = false;

const t = (key, values = {}) => words[key][language].replace(/\{(\w+)\}/g, (_, name) => values[name]);

function speak(name) {
  language = name === "ru" ? "ru" : "en";
  localStorage.setItem("language", language);
  document.documentElement.lang = language;
  for (const node of document.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  byId("language").value = language;
  tell();
  turn();
}

// Put in a part that the server has drawn, in which all that comes from files is escaped. The page's policy lets no style stand in HTML; a
// script may set it.
function put(id, html) {
  const node = byId(id);
  const open = [...node.querySelectorAll("details")].map((part) => part.open);
  node.replaceChildren(document.createRange().createContextualFragment(html.replaceAll(' style="', ' data-style="')));
  for (const part of node.querySelectorAll("[data-style]")) part.style.cssText = part.dataset.style;
  node.querySelectorAll("details").forEach((part, index) => (part.open = open[index] || false));
}

function tell() {
  byId("stop").hidden = byId("save").hidden = !running || Boolean(asked);
  byId("none").hidden = !running || asked !== "stop";
  byId("asked").textContent = running && `asked.${asked}` in words ? t(`asked.${asked}`) : "";
}

function turn() {
  const sheet = sheets[Number(byId("slider").value)];
  byId("sampled").hidden = !sheet;
  if (!sheet) return;
  byId("sheet").src = `sample?${new URLSearchParams({ file: sheet.file, step: sheet.step })}`;
  byId("sheet").alt = t("samples");
  byId("slider").hidden = sheets.length < 2;
  byId("at").textContent = t("step", { step: sheet.step });
  byId("slider").setAttribute("aria-valuetext", t("step", { step: sheet.step }));
}

function draw(found) {
  asked = found.asked;
  if (found.head) {
    const newest = Number(byId("slider").value) >= sheets.length - 1;
    ({ running } = found);
    byId("name").textContent = found.name;
    put("head", found.head);
    put("curves", found.curves);
    put("settings", found.settings);
    sheets = found.samples;
    byId("slider").max = String(Math.max(0, sheets.length - 1));
    if (newest) byId("slider").value = byId("slider").max;
    turn();
  }
  tell();
  stamp = found.stamp;
}

async function look() {
  try {
    const answer = await fetch(`api/state?${new URLSearchParams({ stamp, language })}`);
    const found = await answer.json();
    if (answer.ok) draw(found);
    else byId("asked").textContent = found.error;
  } catch {
    byId("asked").textContent = t("gone");
  }
}

async function watch() {
  await look();
  setTimeout(watch, document.hidden ? 5 * EVERY : EVERY);
}

for (const word of ["stop", "save", "none"]) {
  byId(word).addEventListener("click", async () => {
    const answer = await (await fetch(`api/ask?${new URLSearchParams({ word })}`, { method: "POST", body: "{}" })).json();
    asked = answer.asked || "";
    tell();
  });
}
byId("slider").addEventListener("input", turn);
byId("language").addEventListener("change", (event) => {
  speak(event.target.value);
  look();
});
speak(language);
await watch();
