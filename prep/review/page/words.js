// The page's words in the reader's language, from the server's one table.

let table = {};
let language = "en";

export function t(key, values = {}) {
  const words = table[key] ? table[key][language] : key;
  return words.replace(/\{(\w+)\}/g, (_, name) => (name in values ? String(values[name]) : `{${name}}`));
}

// A reason in snake_case as words; one that the table lacks is said as it is.
export function reason(name) {
  return table[`reason.${name}`] ? t(`reason.${name}`) : name.replaceAll("_", " ");
}

// A reason with its detail, which either goes on with the words ("of mira_03") or stands for itself.
export function because(name, detail) {
  return `${reason(name)}${!detail || detail.startsWith("of ") ? " " : ": "}${detail}`;
}

export function current() {
  return language;
}

export function start(strings, asked) {
  table = strings;
  const kept = localStorage.getItem("language");
  const own = navigator.language.toLowerCase().startsWith("ru") ? "ru" : "en";
  choose(asked !== "auto" ? asked : kept || own);
}

export function choose(name) {
  language = name === "ru" ? "ru" : "en";
  localStorage.setItem("language", language);
  document.documentElement.lang = language;
  translate(document);
}

export function translate(root) {
  for (const node of root.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of root.querySelectorAll("[data-label]")) node.setAttribute("aria-label", t(node.dataset.label));
  for (const node of root.querySelectorAll("[data-hint]")) node.setAttribute("placeholder", t(node.dataset.hint));
  for (const node of root.querySelectorAll("[data-title]")) node.setAttribute("title", t(node.dataset.title));
}
