// The overview: the folder in numbers, each of which leads to its pictures.

import { get } from "./api.js";
import { byId, el, fill } from "./dom.js";
import { reason, t } from "./words.js";

export async function showOverview(app) {
  const box = byId("overview");
  let found;
  try {
    found = await get("api/overview");
  } catch (error) {
    app.say(error.message);
    return;
  }
  const to = (filter, words) => el("button", { type: "button", class: "link", onclick: () => { box.close(); app.find(filter); } }, words);
  const parts = [shares, tokens, sizes, folders, findings, tags, together].map((part) => part(found, to));
  fill(box, el("header", {}, el("h2", { id: "overview-name" }, t("overview")), el("button", { type: "button", onclick: () => box.close() }, t("close"))),
    el("div", { class: "columns" }, ...parts));
  box.showModal();
}

function quoted(text) {
  return `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}

function section(title, ...children) {
  return el("section", {}, el("h3", {}, t(title)), ...children);
}

function table(rows) {
  return el("div", { class: "scroll" }, el("table", {}, ...rows.map((row) => el("tr", {}, ...row.map(cellOf)))));
}

function cellOf(cell) {
  return el("td", { class: /^\d[\d.]*( \(|$)/.test(cell) ? "number" : "" }, cell);
}

function meter(share) {
  const node = el("span", { class: "meter", "aria-hidden": "true" });
  node.style.width = `${Math.max(1, share * 120)}px`;
  return node;
}

function shares(found, to) {
  const rows = [[to("kept", t("kept")), String(found.kept)], ...found.aside.map(([name, count]) => [to(`set aside AND reason:${name}`, reason(name)), String(count)])];
  rows.push(...found.proposed.map(([name, count]) => [to(`proposed AND reason:${name}`, t("proposed", { reason: reason(name) })), String(count)]));
  rows.push([t("captions"), String(found.captions)], [t("per.caption"), String(found.tags_per_caption)]);
  if (found.keyword) rows.push([to(`kept AND NOT ${quoted(found.keyword)}`, t("without.keyword", { keyword: found.keyword })), String(found.captions - found.with_keyword)]);
  return section("pictures", table(rows));
}

function findings(found, to) {
  if (!found.findings.length) return section("findings", el("p", { class: "soft" }, t("findings.none")));
  const rows = found.findings.map((each) => [t(`level.${each.level}`), each.key ? to(`name:${each.key}*`, each.path) : each.path, each.message]);
  return section("findings", table(rows));
}

function tokens(found, to) {
  const most = Math.max(1, ...found.tokens.map(([, , count]) => count));
  const rows = found.tokens.map(([first, last, count]) => {
    const bar = el("td", { class: first > 75 ? "over" : "" }, meter(count / most));
    return el("tr", {}, el("td", {}, to(`tokens>=${first} AND tokens<=${last}`, `${first}–${last}`)), bar, cellOf(String(count)));
  });
  return section("lengths", el("table", {}, ...rows));
}

function tags(found, to) {
  return section("tags", table(found.tags.map((tag) => [to(quoted(tag.tag), tag.tag), meter(tag.share), `${tag.count} (${Math.round(tag.share * 100)} %)`])));
}

function sizes(found) {
  const rows = found.buckets.map(([width, height, count]) => [`${width} × ${height}`, String(count)]);
  return section("buckets", table(rows));
}

function folders(found) {
  if (!found.folders.length) return "";
  const rows = found.folders.map(([name, pictures, repeats, share]) => [name, `${pictures} × ${repeats}`, meter(share), `${pictures * repeats} (${Math.round(share * 100)} %)`]);
  return section("folders", table(rows));
}

function together(found, to) {
  const { tags: names, table: counts } = found.together;
  const head = el("thead", {}, el("tr", {}, el("th"), ...names.map((name) => el("th", { scope: "col" }, name))));
  const body = names.map((name, row) => {
    const cells = counts[row].map((count, column) => {
      const share = count / Math.max(1, counts[row][row]);
      const cell = el("td", {}, count ? to(`${quoted(name)} AND ${quoted(names[column])}`, String(count)) : "");
      cell.style.background = `color-mix(in srgb, var(--accent) ${Math.round(share * 45)}%, transparent)`;
      return cell;
    });
    return el("tr", {}, el("th", { scope: "row" }, name), ...cells);
  });
  return section("together", el("div", { class: "scroll" }, el("table", { class: "co" }, head, el("tbody", {}, ...body))));
}
