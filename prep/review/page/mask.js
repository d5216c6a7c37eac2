// The mask: what the loss leaves out, shown in red over the picture and painted with a brush; grey of the strokes is what nobody touched.

import { address, picture } from "./api.js";
import { scaleOf } from "./crop.js";
import { el, fill } from "./dom.js";
import { t } from "./words.js";

const UNTOUCHED = 128;

export class MaskTool {
  constructor(one, source, body, save) {
    this.one = one;
    this.scale = scaleOf(one.width, one.height);
    this.size = Math.max(4, Math.round(Math.max(one.width, one.height) / 20));
    this.level = 0; // 0 leaves out, 255 learns
    this.x = one.width / 2;
    this.y = one.height / 2;
    this.view = el("canvas", { width: Math.round(one.width * this.scale), height: Math.round(one.height * this.scale), tabindex: 0, role: "application", "aria-label": t("mask.keys") });
    this.strokes = sheet(one.width, one.height);
    this.shade = sheet(one.width, one.height);
    this.image = new Image();
    this.before = new Image();
    for (const image of [this.image, this.before]) image.addEventListener("load", () => this.loaded());
    this.image.src = picture(one);
    this.before.src = source;
    this.earlier();
    this.tools(body, save);
    this.view.addEventListener("pointerdown", (event) => this.down(event));
    this.view.addEventListener("pointermove", (event) => this.moved(event));
    this.view.addEventListener("pointerup", () => (this.painting = false));
    this.view.addEventListener("keydown", (event) => this.key(event));
  }

  tools(body, save) {
    const brush = (level, words) => {
      const press = () => {
        this.level = level;
        buttons.forEach((button, index) => button.setAttribute("aria-pressed", String([0, 255][index] === level)));
      };
      return el("button", { type: "button", "aria-pressed": String(level === this.level), onclick: press }, words);
    };
    const buttons = [brush(0, t("mask.out")), brush(255, t("mask.in"))];
    const size = el("input", { type: "range", min: 2, max: Math.max(8, Math.round(Math.max(this.one.width, this.one.height) / 3)), value: String(this.size) });
    size.addEventListener("input", () => (this.size = Number(size.value)));
    fill(body, this.view, el("div", { class: "bar" }, ...buttons, el("label", { class: "inline" }, t("mask.size"), size),
      el("button", { type: "button", onclick: () => save("") }, t("mask.clear")),
      el("button", { type: "button", class: "main", onclick: () => save(this.png()) }, t("save"))), el("p", { class: "soft" }, t("mask.keys")));
  }

  // Go on with the strokes that were saved before.
  async earlier() {
    const answer = await fetch(address("strokes", { key: this.one.key })).catch(() => null);
    if (!answer || answer.status !== 200) return;
    const image = await createImageBitmap(await answer.blob());
    const pen = this.strokes.getContext("2d");
    pen.globalCompositeOperation = "destination-over"; // below what has been painted meanwhile
    pen.drawImage(clear(image), 0, 0);
    pen.globalCompositeOperation = "source-over";
  }

  loaded() {
    if (!this.before.naturalWidth || !this.image.naturalWidth) return;
    const pen = this.shade.getContext("2d");
    pen.drawImage(this.before, 0, 0);
    const pixels = pen.getImageData(0, 0, this.one.width, this.one.height);
    const { data } = pixels;
    for (let at = 0; at < data.length; at += 4) {
      data[at + 3] = (255 - data[at]) * 0.6;
      data[at] = 220;
      data[at + 1] = 30;
      data[at + 2] = 60;
    }
    pen.putImageData(pixels, 0, 0);
    this.draw();
  }

  at(event) {
    const place = this.view.getBoundingClientRect();
    return [((event.clientX - place.left) * this.one.width) / place.width, ((event.clientY - place.top) * this.one.height) / place.height];
  }

  down(event) {
    this.painting = true;
    [this.x, this.y] = this.at(event);
    this.view.setPointerCapture(event.pointerId);
    this.stroke(this.x, this.y);
  }

  moved(event) {
    const [x, y] = this.at(event);
    if (this.painting) this.stroke(x, y);
    [this.x, this.y] = [x, y];
    this.draw();
  }

  stroke(x, y) {
    line(this.strokes.getContext("2d"), this.x, this.y, x, y, this.size, `rgb(${this.level} ${this.level} ${this.level})`);
    const pen = this.shade.getContext("2d");
    pen.globalCompositeOperation = this.level ? "destination-out" : "source-over";
    line(pen, this.x, this.y, x, y, this.size, "rgb(220 30 60)");
    pen.globalCompositeOperation = "source-over";
    this.draw();
  }

  key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in steps) {
      const [dx, dy] = steps[event.key].map((number) => (number * this.size) / (event.ctrlKey ? 8 : 2));
      const x = Math.min(this.one.width, Math.max(0, this.x + dx));
      const y = Math.min(this.one.height, Math.max(0, this.y + dy));
      if (event.shiftKey) this.stroke(x, y);
      [this.x, this.y] = [x, y];
    } else if (event.key === " ") this.stroke(this.x, this.y);
    else if (event.key === "+" || event.key === "-") this.size = Math.max(2, Math.round(this.size * (event.key === "+" ? 1.25 : 0.8)));
    else return;
    event.preventDefault();
    this.draw();
  }

  draw() {
    const pen = this.view.getContext("2d");
    const { width, height } = this.view;
    pen.clearRect(0, 0, width, height);
    if (this.image.naturalWidth) pen.drawImage(this.image, 0, 0, width, height);
    pen.globalAlpha = 0.75;
    pen.drawImage(this.shade, 0, 0, width, height);
    pen.globalAlpha = 1;
    pen.strokeStyle = "#fff";
    pen.beginPath();
    pen.arc(this.x * this.scale, this.y * this.scale, (this.size * this.scale) / 2, 0, 2 * Math.PI);
    pen.stroke();
  }

  // The strokes as PNG in base64: a brush has soft edges on a canvas, so each pixel becomes one of the three levels.
  png() {
    const { width, height } = this.strokes;
    const out = sheet(width, height);
    const pixels = this.strokes.getContext("2d").getImageData(0, 0, width, height);
    const { data } = pixels;
    for (let at = 0; at < data.length; at += 4) {
      const level = data[at + 3] < 128 ? UNTOUCHED : data[at] < 128 ? 0 : 255;
      data[at] = data[at + 1] = data[at + 2] = level;
      data[at + 3] = 255;
    }
    out.getContext("2d").putImageData(pixels, 0, 0);
    return out.toDataURL("image/png").split(",")[1];
  }
}

// Strokes as a canvas on which what nobody touched is clear.
function clear(image) {
  const found = sheet(image.width, image.height);
  const pen = found.getContext("2d");
  pen.drawImage(image, 0, 0);
  const pixels = pen.getImageData(0, 0, image.width, image.height);
  const { data } = pixels;
  for (let at = 0; at < data.length; at += 4) data[at + 3] = data[at] === UNTOUCHED ? 0 : 255;
  pen.putImageData(pixels, 0, 0);
  return found;
}

function sheet(width, height) {
  const made = el("canvas", { width, height });
  made.getContext("2d", { willReadFrequently: true });
  return made;
}

function line(pen, x0, y0, x1, y1, size, colour) {
  pen.strokeStyle = colour;
  pen.lineWidth = size;
  pen.lineCap = "round";
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1 + 0.01, y1);
  pen.stroke();
}
