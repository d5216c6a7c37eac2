// The crop: a rectangle drawn, moved and pulled by the mouse, or set by numbers and arrow keys.

import { picture } from "./api.js";
import { el, fill } from "./dom.js";
import { t } from "./words.js";

const NEAR = 10; // pixels of the screen within which a side is taken hold of
const MOST = [1100, 640]; // of the drawing

export function scaleOf(width, height) {
  return Math.min(1, MOST[0] / width, MOST[1] / height);
}

// Which sides of a crop a point (pixels of the picture) takes hold of: letters of n s w e, "move" inside, "" outside.
export function hold(crop, x, y, near) {
  const [x0, y0, x1, y1] = crop;
  if (x < x0 - near || x > x1 + near || y < y0 - near || y > y1 + near) return "";
  const rows = Math.abs(y - y0) <= near ? "n" : Math.abs(y - y1) <= near ? "s" : "";
  const columns = Math.abs(x - x0) <= near ? "w" : Math.abs(x - x1) <= near ? "e" : "";
  return rows + columns || "move";
}

// The crop after it was pulled by (dx, dy) at `grip`, inside a picture of that size and at least a pixel wide.
export function pulled(crop, grip, dx, dy, width, height) {
  let [x0, y0, x1, y1] = crop;
  if (grip === "move") {
    dx = Math.min(width - x1, Math.max(-x0, dx));
    dy = Math.min(height - y1, Math.max(-y0, dy));
    return [x0 + dx, y0 + dy, x1 + dx, y1 + dy];
  }
  if (grip.includes("w")) x0 = Math.max(0, Math.min(x0 + dx, x1 - 1));
  if (grip.includes("e")) x1 = Math.min(width, Math.max(x1 + dx, x0 + 1));
  if (grip.includes("n")) y0 = Math.max(0, Math.min(y0 + dy, y1 - 1));
  if (grip.includes("s")) y1 = Math.min(height, Math.max(y1 + dy, y0 + 1));
  return [x0, y0, x1, y1];
}

export class CropTool {
  constructor(one, body, save) {
    this.one = one;
    this.whole = [0, 0, one.width, one.height];
    this.crop = one.crop ? [...one.crop] : [...this.whole];
    this.scale = scaleOf(one.width, one.height);
    this.canvas = el("canvas", { width: Math.round(one.width * this.scale), height: Math.round(one.height * this.scale), tabindex: 0, role: "application", "aria-label": t("crop.keys") });
    this.numbers = ["x0", "y0", "x1", "y1"].map((name, index) => {
      const input = el("input", { type: "number", min: 0, max: index % 2 ? one.height : one.width, name });
      input.addEventListener("change", () => this.typed());
      return input;
    });
    const apply = el("button", { type: "button", class: "main", onclick: () => save(this.isWhole() ? null : this.crop) }, t("save"));
    const whole = el("button", { type: "button", onclick: () => this.set([...this.whole]) }, t("crop.whole"));
    fill(body, this.canvas, el("div", { class: "bar" }, ...this.numbers.map((input) => el("label", { class: "inline" }, t(`crop.${input.name}`), input)), whole, apply), el("p", { class: "soft" }, t("crop.keys")));
    this.image = new Image();
    this.image.addEventListener("load", () => this.draw());
    this.image.src = picture(one);
    this.canvas.addEventListener("pointerdown", (event) => this.down(event));
    this.canvas.addEventListener("pointermove", (event) => this.moved(event));
    this.canvas.addEventListener("pointerup", () => (this.start = null));
    this.canvas.addEventListener("keydown", (event) => this.key(event, save));
    this.draw();
  }

  isWhole() {
    return this.crop.every((number, index) => number === this.whole[index]);
  }

  set(crop) {
    this.crop = crop.map(Math.round);
    this.draw();
  }

  typed() {
    const [x0, y0, x1, y1] = this.numbers.map((input) => Number(input.value) || 0);
    const { width, height } = this.one;
    const left = Math.min(Math.max(0, x0), width - 1);
    const top = Math.min(Math.max(0, y0), height - 1);
    this.set([left, top, Math.min(width, Math.max(left + 1, x1)), Math.min(height, Math.max(top + 1, y1))]);
  }

  at(event) {
    const place = this.canvas.getBoundingClientRect();
    return [((event.clientX - place.left) * this.one.width) / place.width, ((event.clientY - place.top) * this.one.height) / place.height];
  }

  down(event) {
    const [x, y] = this.at(event);
    const [x0, y0, x1, y1] = this.crop;
    const grip = hold(this.crop, x, y, Math.min(NEAR / this.scale, (x1 - x0) / 4, (y1 - y0) / 4));
    const fresh = grip === "" || (grip === "move" && this.isWhole());
    const point = [Math.min(this.one.width - 1, Math.max(0, Math.round(x))), Math.min(this.one.height - 1, Math.max(0, Math.round(y)))];
    this.start = fresh ? { x, y, crop: [...point, point[0] + 1, point[1] + 1], grip: "se", fresh } : { x, y, crop: [...this.crop], grip };
    this.canvas.setPointerCapture(event.pointerId);
  }

  moved(event) {
    if (!this.start) return;
    const [x, y] = this.at(event);
    const { crop, fresh } = this.start;
    const [dx, dy] = [Math.round(x - this.start.x), Math.round(y - this.start.y)];
    if (fresh) {
      const [a, b] = [Math.min(this.one.width, Math.max(0, crop[0] + dx)), Math.min(this.one.height, Math.max(0, crop[1] + dy))];
      const next = [Math.min(crop[0], a), Math.min(crop[1], b), Math.max(crop[0], a), Math.max(crop[1], b)];
      if (next[2] > next[0] && next[3] > next[1]) this.set(next);
    } else this.set(pulled(crop, this.start.grip, dx, dy, this.one.width, this.one.height));
  }

  key(event, save) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in steps) {
      const by = event.ctrlKey ? 1 : 8;
      const [dx, dy] = steps[event.key].map((number) => number * by);
      this.set(pulled(this.crop, event.shiftKey ? "se" : "move", dx, dy, this.one.width, this.one.height));
    } else if (event.key === "Enter") save(this.isWhole() ? null : this.crop);
    else return;
    event.preventDefault();
  }

  draw() {
    const pen = this.canvas.getContext("2d");
    const { width, height } = this.canvas;
    pen.clearRect(0, 0, width, height);
    if (this.image.complete && this.image.naturalWidth) pen.drawImage(this.image, 0, 0, width, height);
    const [x0, y0, x1, y1] = this.crop.map((number) => number * this.scale);
    pen.fillStyle = "rgb(0 0 0 / 0.55)";
    for (const part of [[0, 0, width, y0], [0, y1, width, height - y1], [0, y0, x0, y1 - y0], [x1, y0, width - x1, y1 - y0]]) pen.fillRect(...part);
    pen.strokeStyle = "#009e73";
    for (const [, , ...box] of this.one.boxes) pen.strokeRect(...corners(box, this.scale));
    pen.strokeStyle = "#f0e442";
    pen.lineWidth = 2;
    pen.strokeRect(...corners(this.crop, this.scale));
    this.crop.forEach((number, index) => (this.numbers[index].value = String(number)));
  }
}

function corners([x0, y0, x1, y1], scale) {
  return [x0 * scale, y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale];
}
