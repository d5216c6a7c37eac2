// The page: what its parts share, the keys that work everywhere, undo and redo.

import { get, post } from "./api.js";
import { Batch } from "./batch.js";
import { byId, el, fill, typing } from "./dom.js";
import { Editor } from "./editor.js";
import { Gallery } from "./gallery.js";
import { showOverview } from "./overview.js";
import { Stage } from "./stage.js";
import { choose, current, start, t } from "./words.js";

const LOOK = 3000; // ms between looks for what other tabs and commands have changed
const KEYS = ["arrows", "shift", "space", "all", "enter", "accept", "chips", "slash", "aside", "back", "open", "undo", "redo", "overview", "escape"];

class App {
  constructor() {
    this.stamp = "";
    this.gallery = new Gallery(() => this.chosen());
    this.editor = new Editor(this);
    this.batch = new Batch(this);
    this.stage = new Stage(this);
    byId("search").addEventListener("submit", (event) => {
      event.preventDefault();
      this.search().then(() => this.gallery.box.focus());
    });
    byId("filter").addEventListener("input", () => {
      clearTimeout(this.waiting);
      this.waiting = setTimeout(() => this.search(), 200);
    });
    byId("sort").addEventListener("change", () => this.search());
    byId("undo").addEventListener("click", () => this.turn("undo"));
    byId("redo").addEventListener("click", () => this.turn("redo"));
    byId("show-overview").addEventListener("click", () => showOverview(this));
    byId("show-help").addEventListener("click", () => this.help());
    byId("language").addEventListener("change", (event) => this.speak(event.target.value));
    document.addEventListener("keydown", (event) => this.key(event));
    setInterval(() => this.look(), LOOK);
  }

  async search() {
    clearTimeout(this.waiting);
    const query = { filter: byId("filter").value, sort: byId("sort").value };
    try {
      this.told(await this.gallery.show(query));
      this.fault("");
    } catch (error) {
      this.fault(error.message);
    }
  }

  find(filter) {
    byId("filter").value = filter;
    return this.search();
  }

  fault(text) {
    byId("fault").textContent = text;
    byId("fault").hidden = !text;
    byId("filter").setAttribute("aria-invalid", String(Boolean(text)));
  }

  told(answer) {
    this.stamp = answer.stamp;
    if ("total" in answer) {
      this.loading = answer.loading;
      byId("count").textContent = t(answer.loading ? "count.loading" : "count", { count: answer.total, of: answer.all });
    }
    for (const way of ["undo", "redo"]) {
      byId(way).disabled = !answer[way];
      byId(way).title = answer[way] || "";
    }
  }

  chosen() {
    const { selected } = this.gallery;
    const row = this.gallery.row();
    if (selected.size > 1) {
      this.editor.leave();
      this.batch.draw();
    } else if (row) this.editor.open(row.key);
    else this.editor.empty();
  }

  // Do an edit; answers true, "conflict" if somebody else has changed the pictures, or false.
  async edit(edit, title, versions) {
    try {
      const answer = await post("api/edit", { edit, title, versions });
      this.gallery.update(answer.rows);
      this.told(answer);
      this.say(t("saved", { count: answer.rows.length }));
      return true;
    } catch (error) {
      this.say(error.status === 409 ? t("conflict.said") : error.message);
      if (error.status === 409) this.gallery.update(error.data.rows);
      return error.status === 409 ? "conflict" : false;
    }
  }

  async many(edit, title) {
    await this.edit(edit, title, Object.fromEntries(this.gallery.selected));
    this.chosen();
  }

  async turn(way) {
    try {
      const answer = await post("api/turn", { way });
      this.gallery.update(answer.rows);
      this.told(answer);
      this.say(t(answer.stay.length ? `${way}.partly` : `${way}.done`, { title: answer.title, count: answer.stay.length }));
      this.chosen();
    } catch (error) {
      this.say(error.message);
    }
  }

  async look() {
    if (document.hidden) return;
    try {
      const answer = await get("api/list", { filter: "", sort: "name", start: 1e9 });
      if (answer.stamp !== this.stamp || this.loading) this.told(await this.gallery.refresh());
    } catch {
      this.say(t("gone"));
    }
  }

  say(text) {
    byId("status").textContent = text;
    clearTimeout(this.saying);
    this.saying = setTimeout(() => (byId("status").textContent = ""), 6000);
  }

  key(event) {
    const held = event.ctrlKey || event.metaKey;
    const name = event.key.toLowerCase();
    if (held && event.key === "Enter" && this.editor.detail && this.gallery.selected.size < 2) this.editor.accept();
    else if (document.querySelector("dialog[open]")) return;
    else if (held && name === "z" && !typing(event)) this.turn(event.shiftKey ? "redo" : "undo");
    else if (held && name === "y" && !typing(event)) this.turn("redo");
    else if (event.key === "Escape" && typing(event)) this.gallery.box.focus();
    else if (held || event.altKey || typing(event)) return;
    else if (event.key === "/") byId("filter").focus();
    else if (event.key === "?") this.help();
    else if (name === "x") this.many({ kind: "aside" }, t("aside.do"));
    else if (name === "b") this.many({ kind: "back" }, t("aside.back"));
    else if (name === "o" && this.editor.detail) this.stage.open(this.editor.detail);
    else if (name === "v") showOverview(this);
    else if (event.key === "Enter" && document.activeElement === this.gallery.box) (byId("add") || byId("text"))?.focus();
    else return;
    event.preventDefault();
  }

  help() {
    const box = byId("help");
    const rows = KEYS.map((key) => el("tr", {}, el("td", {}, el("kbd", {}, t(`keys.${key}.key`))), el("td", {}, t(`keys.${key}`))));
    fill(box, el("header", {}, el("h2", { id: "help-name" }, t("help")), el("button", { type: "button", onclick: () => box.close() }, t("close"))),
      el("table", {}, ...rows), el("p", {}, t("filter.help")));
    box.showModal();
  }

  speak(language) {
    choose(language);
    this.gallery.relabel();
    this.chosen();
    this.look();
  }
}

const { strings, language } = await get("api/strings");
start(strings, language);
byId("language").value = current();
const app = new App();
await app.search();
app.gallery.box.focus();
