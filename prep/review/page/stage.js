// One picture in full: as it is, before and after, its copies, its crop and its mask.

import { address, get, picture } from "./api.js";
import { CropTool } from "./crop.js";
import { byId, el, fill } from "./dom.js";
import { MaskTool } from "./mask.js";
import { because, t } from "./words.js";

const VIEWS = ["pair", "crop", "mask", "copies"];

export class Stage {
  constructor(app) {
    this.app = app;
    this.box = byId("stage");
    this.view = "pair";
    this.box.addEventListener("close", () => {
      this.tool?.end?.();
      this.tool = null;
      this.app.chosen();
    });
  }

  async open(row) {
    this.one = await get("api/item", { key: row.key });
    if (this.view === "copies" && !this.one.copies.length) this.view = "pair";
    this.draw();
    if (!this.box.open) this.box.showModal();
  }

  draw() {
    this.tool?.end?.();
    this.tool = null;
    const views = VIEWS.filter((view) => view !== "copies" || this.one.copies.length);
    const tabs = views.map((view) => {
      const show = () => {
        this.view = view;
        this.draw();
        this.box.querySelector("[aria-pressed=true]").focus();
      };
      return el("button", { type: "button", "aria-pressed": String(view === this.view), onclick: show }, t(`view.${view}`));
    });
    const close = el("button", { type: "button", onclick: () => this.box.close() }, t("close"));
    const body = el("div");
    fill(this.box, el("header", {}, el("h2", { id: "stage-name" }, this.one.name), el("div", { class: "bar" }, ...tabs, close)), body);
    this[this.view](body);
  }

  pair(body) {
    const one = this.one;
    const now = figure(one, picture(one), `${t("after")}: ${one.width} × ${one.height}`);
    const clean = one.retouched ? figure(one, picture(one, "clean"), t("cleaned")) : "";
    const raw = one.source ? figure(one, picture(one, "raw"), `${t("before")}: ${one.source}`) : "";
    fill(body, el("div", { class: "pair" }, raw, clean, now));
  }

  copies(body) {
    const figures = this.one.copies.map((copy) => {
      const words = copy.dropped ? because(copy.dropped, copy.detail) : t("copy.kept");
      const swap = copy.dropped ? el("button", { type: "button", onclick: () => this.swap(copy) }, t("copy.swap")) : el("b", {}, "✓");
      return el("figure", {}, el("img", { src: picture(copy), alt: copy.key }), el("figcaption", {}, swap, ` ${copy.key}: ${words}`));
    });
    fill(body, el("div", { class: "pair" }, ...figures));
  }

  // Keep a copy in place of the picture that is kept now.
  async swap(copy) {
    const both = this.one.copies.filter((other) => !other.dropped || other.key === copy.key);
    await this.app.edit({ kind: "swap", keep: copy.key }, t("copy.swap"), Object.fromEntries(both.map((each) => [each.key, each.version])));
    await this.open(this.one);
  }

  crop(body) {
    this.tool = new CropTool(this.one, body, (crop) => this.send({ kind: "crop", crop }, t("view.crop")));
  }

  mask(body) {
    const source = address("mask", { key: this.one.key, v: this.one.version });
    this.tool = new MaskTool(this.one, source, body, (png) => this.send({ kind: "mask", png }, t("view.mask")));
  }

  async send(edit, title) {
    await this.app.edit(edit, title, { [this.one.key]: this.one.version });
    await this.open(this.one);
  }
}

function figure(one, source, words) {
  return el("figure", {}, el("img", { src: source, alt: words, width: one.width, height: one.height }), el("figcaption", {}, words));
}

