// Edits of many captions at once: each is shown before it is done.

import { post } from "./api.js";
import { byId, el, fill } from "./dom.js";
import { t } from "./words.js";

const FIELDS = {
  add: [["tags", "batch.tags"]],
  remove: [["tags", "batch.tags"]],
  replace: [["old", "batch.old"], ["new", "batch.new"]],
  regex: [["pattern", "batch.pattern"], ["new", "batch.new"]],
};

export class Batch {
  constructor(app) {
    this.app = app;
    this.side = byId("side");
    this.kind = "add";
  }

  draw() {
    const versions = this.app.gallery.selected;
    const choice = el("select", { "aria-label": t("batch.kind"), id: "batch-kind" }, ...Object.keys(FIELDS).map((kind) => el("option", { value: kind }, t(`batch.${kind}`))));
    choice.value = this.kind;
    choice.addEventListener("change", () => {
      this.kind = choice.value;
      this.draw();
      byId("batch-kind").focus();
    });
    const fields = FIELDS[this.kind].map(([name, label]) => el("label", {}, t(label), el("input", { name, autocomplete: "off", spellcheck: false })));
    const first = this.kind === "add" ? el("label", { class: "inline" }, el("input", { type: "checkbox", name: "first" }), t("batch.first")) : "";
    const found = el("div", { "aria-live": "polite" });
    const form = el("form", {}, el("fieldset", {}, choice, ...fields, first,
      el("div", { class: "bar" }, el("button", { type: "submit" }, t("batch.preview")))), found);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.preview(form, found, versions);
    });
    const deeds = el("div", { class: "bar" },
      el("button", { type: "button", onclick: () => this.app.many({ kind: "aside" }, t("aside.do")) }, t("aside.do")),
      el("button", { type: "button", onclick: () => this.app.many({ kind: "back" }, t("aside.back")) }, t("aside.back")), this.repeats());
    fill(this.side, el("h2", {}, t("selected", { count: versions.size })), deeds, el("h3", {}, t("captions")), form);
  }

  repeats() {
    const times = el("input", { type: "number", min: 0.05, max: 100, step: "any", placeholder: "1", "aria-label": t("repeats") });
    times.addEventListener("change", () => this.app.many({ kind: "repeats", times: Number(times.value) }, t("repeats")));
    return el("label", { class: "inline" }, t("repeats"), times);
  }

  edit(form) {
    const edit = { kind: this.kind };
    for (const [name] of FIELDS[this.kind]) edit[name] = form.elements[name].value;
    if (form.elements.first) edit.first = form.elements.first.checked;
    return edit;
  }

  async preview(form, found, versions) {
    const edit = this.edit(form);
    let answer;
    try {
      answer = await post("api/preview", { versions: Object.fromEntries(versions), edit });
    } catch (error) {
      fill(found, el("p", { class: "fault" }, error.message));
      return;
    }
    const rows = answer.changes.map((change) => el("li", {}, el("b", {}, change.key), el("br"), ...marked(change.before, change.after)));
    const title = `${t(`batch.${edit.kind}`)}: ${Object.entries(edit).filter(([name]) => name !== "kind").map(([, value]) => value).join(", ")}`;
    const go = el("button", { type: "button", class: "main", disabled: !answer.count, onclick: () => this.app.many(edit, title) }, t("batch.do", { count: answer.count }));
    fill(found, el("p", {}, t("batch.would", { count: answer.count, of: answer.of })), go, el("ul", { class: "changes" }, ...rows));
    go.focus();
  }
}

// Show which tags leave and enter; a text of one tag is shown whole, before and after.
export function marked(before, after) {
  const old = before.split(/[,\n]/).map((tag) => tag.trim()).filter(Boolean);
  const now = after.split(/[,\n]/).map((tag) => tag.trim()).filter(Boolean);
  const gone = old.filter((tag) => !now.includes(tag)).map((tag) => el("del", {}, tag));
  const come = now.filter((tag) => !old.includes(tag)).map((tag) => el("ins", {}, tag));
  const parts = gone.length || come.length ? [...gone, ...come] : [el("del", {}, before), el("ins", {}, after)];
  return parts.flatMap((part) => [part, " "]);
}
