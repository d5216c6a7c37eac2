// A stand-in for a browser's document, as much of it as the page's scripts use: they can then be run in node against the real server.

import fs from "node:fs";

export const PAGE = process.argv[2]; // the folder of the page's files
const BASE = process.argv[3]; // the server's address with its token

export class Happening {
  constructor(type, facts = {}) {
    Object.assign(this, { type, ctrlKey: false, metaKey: false, altKey: false, shiftKey: false, ...facts });
  }
  preventDefault() {}
  stopPropagation() {
    this.stopped = true;
  }
}

class Words {
  constructor(text) {
    this.textContent = String(text);
  }
  remove() {
    detach(this);
  }
}

function detach(node) {
  if (node.parentNode) node.parentNode.childNodes = node.parentNode.childNodes.filter((child) => child !== node);
  node.parentNode = null;
}

// The names of a class attribute.
class Names {
  constructor(node) {
    this.node = node;
  }
  list() {
    return this.node.className.split(/\s+/).filter(Boolean);
  }
  contains(name) {
    return this.list().includes(name);
  }
  add(name) {
    this.toggle(name, true);
  }
  remove(name) {
    this.toggle(name, false);
  }
  toggle(name, there = !this.contains(name)) {
    this.node.className = [...this.list().filter((other) => other !== name), ...(there ? [name] : [])].join(" ");
  }
}

const PLAIN = {
  className: "", id: "", type: "", name: "", title: "", src: "", alt: "", min: "", max: "", placeholder: "", autocomplete: "", width: 0, height: 0,
  rows: 2, hidden: false, disabled: false, checked: false, open: false, draggable: false, spellcheck: true, scrollTop: 0, clientWidth: 900, clientHeight: 700,
};

export class Element {
  constructor(tag) {
    Object.assign(this, PLAIN, { tagName: tag.toUpperCase(), childNodes: [], attributes: {}, style: {}, dataset: {}, listeners: {}, parentNode: null, held: "" });
    this.classList = new Names(this);
  }
  get children() {
    return this.childNodes.filter((child) => child instanceof Element);
  }
  get value() {
    return this.held;
  }
  set value(value) {
    this.held = String(value);
  }
  get textContent() {
    return this.childNodes.map((child) => child.textContent).join("");
  }
  set textContent(text) {
    this.replaceChildren(...(text === "" ? [] : [text]));
  }
  get isConnected() {
    return this === document.body || Boolean(this.parentNode?.isConnected);
  }
  get elements() {
    return Object.fromEntries([...this.walk()].filter((node) => node.name).map((node) => [node.name, node]));
  }
  append(...children) {
    for (const each of children) {
      const child = each instanceof Element || each instanceof Words ? each : new Words(each);
      detach(child);
      child.parentNode = this;
      this.childNodes.push(child);
    }
  }
  insertBefore(child, next) {
    const after = next ? this.childNodes.slice(this.childNodes.indexOf(next)) : [];
    this.append(child, ...after);
  }
  replaceChildren(...children) {
    for (const child of this.childNodes) child.parentNode = null;
    this.childNodes = [];
    this.append(...children);
  }
  remove() {
    detach(this);
  }
  setAttribute(name, value) {
    this.attributes[name] = String(value);
    if (name === "id") this.id = String(value);
  }
  removeAttribute(name) {
    delete this.attributes[name];
  }
  addEventListener(type, listener) {
    (this.listeners[type] ??= []).push(listener);
  }
  // Have something happen here, then in what is around.
  dispatch(happening) {
    happening.target ??= this;
    for (let node = this; node && !happening.stopped; node = node.parentNode) for (const listener of node.listeners[happening.type] || []) listener(happening);
    if (!happening.stopped) for (const listener of document.listeners[happening.type] || []) listener(happening);
  }
  click() {
    this.dispatch(new Happening("click"));
  }
  scrollIntoView() {}
  focus() {
    document.activeElement = this;
  }
  *walk() {
    for (const child of this.children) {
      yield child;
      yield* child.walk();
    }
  }
  matches(selector) {
    const [, tag, rest] = /^([a-z]*)(.*)$/.exec(selector);
    if (tag && this.tagName !== tag.toUpperCase()) return false;
    return (rest.match(/[.#][\w-]+|\[[^\]]+\]/g) || []).every((part) => {
      if (part[0] === ".") return this.classList.contains(part.slice(1));
      if (part[0] === "#") return this.id === part.slice(1);
      const [name, value] = part.slice(1, -1).split("=");
      if (name === "open") return this.open;
      if (name.startsWith("data-")) return name.slice(5) in this.dataset;
      return name in this.attributes && (value === undefined || this.attributes[name] === value);
    });
  }
  querySelectorAll(selector) {
    return [...this.walk()].filter((node) => node.matches(selector));
  }
  querySelector(selector) {
    return this.querySelectorAll(selector)[0] || null;
  }
  closest(selector) {
    return this.matches(selector) ? this : this.parentNode?.closest(selector) || null;
  }
  getBoundingClientRect() {
    return { left: 0, top: 0, width: this.width, height: this.height };
  }
  showModal() {
    this.open = true;
  }
  close() {
    this.open = false;
    this.dispatch(new Happening("close"));
  }
  setPointerCapture() {}
  // A pen that draws nothing, on a sheet that stays clear.
  getContext() {
    const getImageData = (x, y, width, height) => ({ data: new Uint8ClampedArray(width * height * 4) });
    return new Proxy({ getImageData }, { get: (pen, name) => pen[name] ?? (() => {}) });
  }
}

function read(html, body) {
  const open = [body];
  for (const [, ends, tag, rest, text] of html.matchAll(/<(\/?)([a-z0-9]+)([^>]*)>|([^<]+)/g)) {
    if (text !== undefined) {
      if (text.trim()) open.at(-1).append(text.trim());
    } else if (ends) open.pop();
    else {
      const node = new Element(tag);
      for (const [, name, value = ""] of rest.matchAll(/([\w-]+)(?:="([^"]*)")?/g)) {
        if (name.startsWith("data-")) node.dataset[name.slice(5)] = value;
        else if (name === "class") node.className = value;
        else if (name === "hidden" || name === "disabled") node[name] = true;
        else if (name === "type" || name === "value") node[name] = value;
        else node.setAttribute(name, value);
      }
      open.at(-1).append(node);
      if (tag !== "input") open.push(node);
    }
  }
}

globalThis.document = {
  body: new Element("body"), documentElement: {}, hidden: false, listeners: {},
  createElement: (tag) => new Element(tag),
  getElementById: (id) => [...document.body.walk()].find((node) => node.id === id) || null,
  querySelector: (selector) => document.body.querySelector(selector),
  querySelectorAll: (selector) => document.body.querySelectorAll(selector),
  addEventListener: (type, listener) => (document.listeners[type] ??= []).push(listener),
};
document.activeElement = document.body;
read(fs.readFileSync(`${PAGE}/index.html`, "utf8").split("<body>")[1].split("</body>")[0], document.body);
for (const select of document.querySelectorAll("select")) select.value = select.children[0].value;

const kept = {};
globalThis.localStorage = { getItem: (name) => kept[name] ?? null, setItem: (name, value) => (kept[name] = value) };
Object.defineProperty(globalThis, "navigator", { value: { language: "en" }, configurable: true });
globalThis.ResizeObserver = class {
  observe() {}
};
globalThis.Image = class extends Element {
  constructor() {
    super("img");
  }
};
const asked = globalThis.fetch;
globalThis.fetch = (path, options = {}) => asked(BASE + path, { ...options, headers: { ...options.headers, origin: new URL(BASE).origin } });
globalThis.setInterval = () => 0; // a test looks when it wants to
