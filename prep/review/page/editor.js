// The editor: one picture's caption as chips or as text, with scores, tokens, and why a tag is not there.

import { get, picture, post } from "./api.js";
import { adder, chips } from "./chips.js";
import { byId, el, fill } from "./dom.js";
import { because, t } from "./words.js";

export class Editor {
  constructor(app) {
    this.app = app;
    this.side = byId("side");
    this.detail = null;
    this.asText = false;
    this.wanted = ""; // key of the picture that was asked for last
    this.mine = new Map(); // key -> text that another tab's change kept from being saved
  }

  async open(key, focus = {}) {
    const round = this.leave(key);
    let detail;
    try {
      detail = await get("api/item", { key });
    } catch (error) {
      this.app.say(error.message);
      return;
    }
    if (round !== this.round) return;
    this.detail = detail;
    this.app.gallery.update([detail]);
    this.draw(focus);
  }

  // Have answers that are under way come too late, as another picture or several are chosen.
  leave(key = "") {
    this.wanted = key;
    return (this.round = (this.round || 0) + 1);
  }

  draw(focus = {}) {
    const one = this.detail;
    // With its size told, what is below does not move when the picture comes.
    const image = el("img", { class: "big", src: picture(one), alt: one.text || one.name, width: one.width, height: one.height });
    image.addEventListener("dblclick", () => this.app.stage.open(one));
    const state = one.dropped ? el("p", { class: "fault" }, t("aside.because", { why: because(one.dropped, one.detail) })) : "";
    const proposed = one.proposed ? el("p", { class: "soft" }, t("proposed.because", { why: because(one.proposed, one.detail) })) : "";
    fill(this.side, el("h2", {}, one.name), image, this.deeds(one), state, proposed, this.conflict(), ...this.caption(one, focus), this.why(one));
    if (focus.add) byId("add")?.focus();
  }

  deeds(one) {
    const aside = one.dropped ? ["back", "aside.back"] : ["aside", "aside.do"];
    const times = el("input", { type: "number", min: 0.05, max: 100, step: "any", value: String(one.emphasis), "aria-label": t("repeats") });
    times.addEventListener("change", () => this.send({ kind: "repeats", times: Number(times.value) }, t("repeats")));
    return el("div", { class: "bar" },
      el("button", { type: "button", onclick: () => this.app.stage.open(one) }, t("open")),
      el("button", { type: "button", onclick: () => this.send({ kind: aside[0] }, t(aside[1])) }, t(aside[1])),
      el("label", { class: "inline" }, t("repeats"), times));
  }

  caption(one, focus) {
    const text = this.asText || one.text.includes("\n");
    const head = el("div", { class: "bar" },
      el("h3", {}, t("caption")), el("span", { class: one.tokens > one.chunk ? "long" : "soft", id: "tokens" }, t("tokens", { count: one.tokens, of: one.chunk })),
      el("button", { type: "button", "aria-pressed": String(text), onclick: () => this.switched() }, t("as.text")),
      el("span", { class: "soft" }, one.hand ? t("by.hand") : t("by.compiler")));
    const meter = el("meter", { min: 0, max: Math.max(one.chunk * 3, one.tokens), high: one.chunk, optimum: 0, value: one.tokens, "aria-label": t("tokens", { count: one.tokens, of: one.chunk }) });
    const next = el("button", { type: "button", class: "main", onclick: () => this.accept() }, t("accept"));
    const give = one.hand ? el("button", { type: "button", onclick: () => this.write("", {}, t("release")) }, t("release")) : "";
    const body = text ? [this.area(one)] : this.tags(one, focus);
    return [head, meter, ...body, el("div", { class: "bar" }, next, give)];
  }

  tags(one, focus) {
    const list = chips(one, (tags, at) => this.write(tags.join(", "), { chip: at }), focus.chip ?? -1);
    const { input, options } = adder((tag) => this.write([...one.tags, tag].join(", "), { add: true }), t("add"));
    return [list, input, options];
  }

  area(one) {
    const area = el("textarea", { id: "text", value: this.mine.get(one.key) ?? one.text, "aria-label": t("caption"), rows: 8 });
    area.addEventListener("input", async () => {
      const weighed = await post("api/tokens", { key: one.key, text: area.value }).catch(() => null);
      if (weighed && area.isConnected) byId("tokens").textContent = t("tokens", { count: weighed.tokens, of: weighed.chunk });
    });
    area.addEventListener("change", () => this.keep());
    return area;
  }

  // Save the text that stands in the field; says whether it is saved.
  async keep() {
    const area = byId("text");
    if (!area || !this.detail || area.value === this.detail.text) return true;
    return this.write(area.value);
  }

  async switched() {
    if (await this.keep()) {
      this.asText = !this.asText;
      this.draw();
    }
  }

  async accept() {
    const add = byId("add");
    if (add && add.value.trim() && !(await this.write([...this.detail.tags, add.value.trim()].join(", ")))) return;
    if (await this.keep()) {
      this.app.gallery.step(1);
      this.app.gallery.box.focus({ preventScroll: true });
    }
  }

  async write(text, focus = {}, title = "") {
    return this.send({ kind: "caption", text }, title || t("title.caption", { name: this.detail.name }), focus);
  }

  async send(edit, title, focus = {}) {
    const one = this.detail;
    const done = await this.app.edit(edit, title, { [one.key]: one.version });
    if (done === true) this.mine.delete(one.key);
    if (done === "conflict" && edit.kind === "caption") this.mine.set(one.key, edit.text);
    if (this.wanted === one.key) await this.open(one.key, focus);
    return done === true;
  }

  conflict() {
    const { key, text } = this.detail;
    const mine = this.mine.get(key) ?? text;
    if (mine === text) return "";
    return el("div", { class: "conflict", role: "alert" },
      el("p", {}, t("conflict")), el("p", {}, el("ins", {}, mine)),
      el("div", { class: "bar" },
        el("button", { type: "button", onclick: () => this.write(mine) }, t("conflict.mine")),
        el("button", { type: "button", onclick: () => { this.mine.delete(key); this.draw(); } }, t("conflict.theirs"))));
  }

  why(one) {
    if (one.note) return el("p", { class: "soft" }, one.note);
    const rows = one.fates.map((fate) => el("li", {}, el("b", {}, fate.tag), ` ${fate.score.toFixed(2)}: ${fate.why}`));
    return el("details", {}, el("summary", {}, t("why", { count: one.fates.length })), el("ul", {}, ...rows));
  }

  empty() {
    this.leave();
    this.detail = null;
    fill(this.side, el("p", { class: "soft" }, t("choose")));
  }
}
