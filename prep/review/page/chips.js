// The tags of a caption as chips, moved by mouse or keys, with the place where a row of the text encoder ends; and the field that adds one.

import { get } from "./api.js";
import { el, fill } from "./dom.js";
import { t } from "./words.js";

export function fold(tag) {
  return tag.replaceAll("_", " ").toLowerCase().split(/\s+/).filter(Boolean).join(" ");
}

// detail: what api/item tells; save(tags, focus): called with the new order, and the chip that is to have the focus after.
export function chips(detail, save, focus = -1) {
  const list = el("ul", { class: "chips", "aria-label": t("tags") });
  let dragged = -1;
  const move = (from, to) => {
    if (to < 0 || to >= detail.tags.length || from === to) return;
    const tags = [...detail.tags];
    tags.splice(to, 0, ...tags.splice(from, 1));
    save(tags, to);
  };
  const drop = (index) => save(detail.tags.filter((_, number) => number !== index), Math.min(index, detail.tags.length - 2));
  let row = 1;
  detail.tags.forEach((tag, index) => {
    if (detail.ends[index] > row * detail.chunk) {
      list.append(el("li", { class: "cut", role: "separator" }, t("cut", { count: row * detail.chunk })));
      row = Math.ceil(detail.ends[index] / detail.chunk);
    }
    const chip = chipOf(detail, index);
    chip.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: -1, ArrowRight: 1 };
      if (event.key in moves && event.altKey) move(index, index + moves[event.key]);
      else if (event.key in moves) list.querySelectorAll(".chip")[index + moves[event.key]]?.focus();
      else if (event.key === "Delete" || event.key === "Backspace") drop(index);
      else return;
      event.preventDefault();
    });
    chip.addEventListener("dblclick", () => drop(index));
    const item = el("li", { draggable: true }, chip);
    item.addEventListener("dragstart", (event) => {
      dragged = index;
      event.dataTransfer.effectAllowed = "move";
      event.dataTransfer.setData("text/plain", tag);
    });
    item.addEventListener("dragover", (event) => {
      event.preventDefault();
      item.classList.add("drop");
    });
    item.addEventListener("dragleave", () => item.classList.remove("drop"));
    item.addEventListener("drop", (event) => {
      event.preventDefault();
      item.classList.remove("drop");
      if (dragged >= 0) move(dragged, index);
    });
    list.append(item);
  });
  if (focus >= 0) queueMicrotask(() => list.querySelectorAll(".chip")[focus]?.focus());
  return list;
}

function chipOf(detail, index) {
  const tag = detail.tags[index];
  const role = detail.roles[index];
  const score = detail.scores[fold(tag)];
  const said = [tag, score === undefined ? "" : t("score", { score }), role ? t(`role.${role}`) : "", t("chip.keys")].filter(Boolean).join(", ");
  const look = `chip ${role}${detail.ends[index] > detail.chunk ? " over" : ""}`;
  return el("button", { type: "button", class: look, "aria-label": said, title: said }, tag, score === undefined ? "" : el("small", {}, score.toFixed(2)));
}

// A field with a list of proposals below, by the combobox pattern of WAI-ARIA.
export function adder(add, label) {
  const options = el("ul", { class: "options", role: "listbox", id: "options", "aria-label": t("completions"), hidden: true });
  const input = el("input", {
    id: "add", autocomplete: "off", spellcheck: false, placeholder: label, "aria-label": label, role: "combobox",
    "aria-expanded": "false", "aria-controls": "options", "aria-autocomplete": "list",
  });
  let found = [];
  let at = -1;
  let round = 0;
  const close = () => {
    found = [];
    at = -1;
    options.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const mark = (index) => {
    at = index;
    [...options.children].forEach((option, number) => option.setAttribute("aria-selected", String(number === at)));
    if (at >= 0) input.setAttribute("aria-activedescendant", `option-${at}`);
    else input.removeAttribute("aria-activedescendant");
  };
  const take = (tag) => {
    input.value = "";
    close();
    if (tag.trim()) add(tag.trim());
  };
  input.addEventListener("input", async () => {
    const mine = (round += 1);
    const typed = input.value.split(",").pop().trim();
    const answer = typed ? await get("api/complete", { q: typed }).catch(() => []) : [];
    if (mine !== round) return;
    found = answer;
    const choices = found.map((each, number) => {
      const option = el("li", { id: `option-${number}`, role: "option", "aria-selected": "false" }, el("span", {}, each.tag), el("small", {}, String(each.count)));
      option.addEventListener("mousedown", (event) => {
        event.preventDefault();
        take(each.tag);
      });
      return option;
    });
    fill(options, ...choices);
    options.hidden = !found.length;
    if (found.length) options.scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-expanded", String(Boolean(found.length)));
    mark(-1);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" && found.length) mark((at + 1) % found.length);
    else if (event.key === "ArrowUp" && found.length) mark(at <= 0 ? found.length - 1 : at - 1);
    else if (event.key === "Enter" && !event.ctrlKey) take(at >= 0 ? found[at].tag : input.value);
    else if (event.key === "Tab" && at >= 0) take(found[at].tag);
    else if (event.key === "Escape" && found.length) close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  input.addEventListener("blur", close);
  return { input, options };
}
