// The gallery: of any number of pictures only those in view are in the document. Also the selection, by mouse and by keys.

import { get, thumb } from "./api.js";
import { byId, el, fill } from "./dom.js";
import { reason, t } from "./words.js";

const WIDE = 176;
const HIGH = 214;
const PAGE = 300; // rows of one answer of the server
const SPARE = 2; // lines beyond what is seen

export class Gallery {
  constructor(changed) {
    this.box = byId("gallery");
    this.sheet = byId("sheet");
    this.changed = changed; // called when the chosen picture or the selection changes
    this.query = { filter: "", sort: "name" };
    this.reset();
    this.box.addEventListener("scroll", () => this.draw());
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.sheet.addEventListener("click", (event) => this.click(event));
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  reset() {
    this.rows = new Map(); // index -> row
    this.asked = new Set(); // pages
    this.cells = new Map(); // index -> element
    this.total = 0;
    this.at = -1;
    this.anchor = -1;
    this.selected = new Map(); // key -> version
    this.picked = (this.picked || 0) + 1; // selections so far
    this.round = (this.round || 0) + 1;
  }

  async show(query) {
    this.query = query;
    const chosen = this.row()?.key;
    const answer = await get("api/list", { ...query, start: 0 });
    this.reset();
    this.sheet.replaceChildren();
    this.take(answer);
    this.asked.add(0);
    this.box.scrollTop = 0;
    if (this.total) this.choose(Math.max(0, answer.rows.findIndex((row) => row.key === chosen)), false);
    else this.changed();
    this.draw();
    return answer;
  }

  // Ask again for what is in view, as more pictures have been read or another tab has changed some.
  async refresh() {
    const round = this.round;
    const answer = await get("api/list", { ...this.query, start: 0 });
    if (round !== this.round) return answer;
    const empty = this.at < 0;
    this.asked = new Set([0]);
    for (const index of [...this.rows.keys()]) if (index >= answer.rows.length && index !== this.at) this.forget(index);
    this.take(answer);
    if (empty && this.total) this.choose(0, false);
    this.draw();
    return answer;
  }

  take(answer) {
    this.total = answer.total;
    answer.rows.forEach((row, number) => this.put(answer.start + number, row));
  }

  put(index, row) {
    this.forget(index);
    this.rows.set(index, row);
    if (this.selected.has(row.key)) this.selected.set(row.key, row.version);
  }

  forget(index) {
    this.rows.delete(index);
    this.cells.get(index)?.remove();
    this.cells.delete(index);
  }

  // Take rows that an edit has changed, wherever they stand.
  update(rows) {
    const fresh = new Map(rows.map((row) => [row.key, row]));
    for (const [key, row] of fresh) if (this.selected.has(key)) this.selected.set(key, row.version);
    for (const [index, row] of [...this.rows]) if (fresh.has(row.key)) this.put(index, fresh.get(row.key));
    this.draw();
  }

  row() {
    return this.rows.get(this.at);
  }

  get columns() {
    return Math.max(1, Math.floor((this.box.clientWidth - 12) / WIDE));
  }

  draw() {
    const columns = this.columns;
    this.sheet.style.height = `${Math.ceil(this.total / columns) * HIGH}px`;
    const first = Math.max(0, Math.floor(this.box.scrollTop / HIGH) - SPARE) * columns;
    const lines = Math.ceil(this.box.clientHeight / HIGH) + 2 * SPARE;
    const last = Math.min(this.total, first + lines * columns);
    for (const [index, cell] of this.cells) {
      if (index < first || index >= last) {
        cell.remove();
        this.cells.delete(index);
      }
    }
    for (let index = first; index < last; index += 1) {
      const row = this.rows.get(index);
      if (!row) this.ask(Math.floor(index / PAGE));
      else if (!this.cells.has(index)) this.add(index, row);
      const cell = this.cells.get(index);
      if (cell) this.place(cell, index, columns);
    }
    this.box.setAttribute("aria-activedescendant", this.cells.has(this.at) ? `cell-${this.at}` : "");
  }

  add(index, row) {
    const cell = this.cell(index, row);
    const after = Math.min(...[...this.cells.keys()].filter((other) => other > index));
    this.sheet.insertBefore(cell, this.cells.get(after) || null); // they are read aloud as they stand in the document
    this.cells.set(index, cell);
  }

  place(cell, index, columns) {
    cell.style.transform = `translate(${(index % columns) * WIDE}px, ${Math.floor(index / columns) * HIGH}px)`;
    cell.classList.toggle("here", index === this.at);
    cell.setAttribute("aria-selected", String(this.selected.has(this.rows.get(index).key)));
  }

  cell(index, row) {
    const marks = [
      row.dropped ? reason(row.dropped) : row.proposed ? t("proposed", { reason: reason(row.proposed) }) : "",
      row.emphasis !== 1 ? `×${row.emphasis}` : "",
      row.masked ? t("masked") : "",
      row.hand ? t("hand") : "",
    ].filter(Boolean);
    const long = row.tokens > 75 ? " long" : "";
    const image = el("img", { src: thumb(row), alt: "", loading: "lazy", decoding: "async", draggable: false });
    image.addEventListener("error", () => image.replaceWith(el("span", { class: "unseen" }))); // its file cannot be read
    const name = el("b", {}, row.name);
    const line = el("small", {}, el("span", { class: `tokens${long}` }, t("tokens.short", { count: row.tokens })), ...marks.map((mark) => el("i", {}, mark)));
    const said = [row.name, ...marks, row.text || t("caption.none")].join(", ");
    const look = `cell${row.dropped ? " aside" : ""}`;
    return el("div", { id: `cell-${index}`, class: look, role: "option", "aria-label": said, "aria-setsize": this.total, "aria-posinset": index + 1 }, image, name, line);
  }

  async ask(page) {
    if (this.asked.has(page)) return;
    this.asked.add(page);
    const round = this.round;
    try {
      const answer = await get("api/list", { ...this.query, start: page * PAGE });
      if (round === this.round) {
        this.take(answer);
        this.draw();
      }
    } catch {
      this.asked.delete(page);
    }
  }

  choose(index, focus = true) {
    this.at = index;
    this.anchor = index;
    this.picked += 1;
    this.selected = new Map();
    const row = this.row();
    if (row) this.selected.set(row.key, row.version);
    this.reveal();
    this.draw();
    if (focus) this.box.focus({ preventScroll: true });
    this.changed();
  }

  // Go by some pictures from the chosen one.
  step(by) {
    if (this.total) this.choose(Math.min(this.total - 1, Math.max(0, this.at + by)), document.activeElement === this.box);
  }

  async range(to) {
    const start = Math.min(this.anchor, to);
    const end = Math.max(this.anchor, to) + 1;
    this.at = to;
    if (await this.pick({ ...this.query, from: start, to: end })) this.reveal();
  }

  all() {
    return this.pick(this.query);
  }

  // Select what the server lists, unless something else has been selected until it answers.
  async pick(query) {
    const mine = (this.picked += 1);
    const found = await get("api/keys", query);
    if (mine !== this.picked) return false;
    this.selected = new Map(found);
    this.draw();
    this.changed();
    return true;
  }

  toggle(index) {
    const row = this.rows.get(index);
    this.at = index;
    this.anchor = index;
    this.picked += 1;
    if (!row) return;
    if (this.selected.has(row.key) && this.selected.size > 1) this.selected.delete(row.key);
    else this.selected.set(row.key, row.version);
    this.draw();
    this.changed();
  }

  reveal() {
    const top = Math.floor(this.at / this.columns) * HIGH;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + HIGH > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + HIGH - this.box.clientHeight;
  }

  click(event) {
    const cell = event.target.closest(".cell");
    if (!cell) return;
    const index = Number(cell.id.slice(5));
    if (event.shiftKey && this.anchor >= 0) this.range(index);
    else if (event.ctrlKey || event.metaKey) this.toggle(index);
    else this.choose(index);
  }

  key(event) {
    const columns = this.columns;
    const page = columns * Math.max(1, Math.floor(this.box.clientHeight / HIGH));
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -page, PageDown: page, Home: -this.total, End: this.total };
    if (event.key in steps && !event.altKey) {
      const to = Math.min(this.total - 1, Math.max(0, this.at + steps[event.key]));
      if (event.shiftKey) this.range(to);
      else this.choose(to);
    } else if (event.key === " ") this.toggle(this.at);
    else if (event.key === "a" && (event.ctrlKey || event.metaKey)) this.all();
    else return;
    event.preventDefault();
  }

  relabel() {
    for (const cell of this.cells.values()) cell.remove();
    this.cells.clear();
    fill(this.sheet);
    this.draw();
  }
}
