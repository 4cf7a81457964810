"use strict";
/* Elements and texts. Whatever a model, a file or an endpoint wrote becomes a text node and nothing else. */
const viva = {};

/* An element. Attributes that begin with "on" are handlers; null and false leave an attribute or a child out. */
viva.el = function (tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  viva.add(made, children);
  return made;
};

viva.add = function (parent, ...children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : viva.clean(String(child)));
  }
  return parent;
};

viva.svg = function (tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  return viva.add(made, children);
};

/* Control characters become their pictures, and what would turn the text around it becomes U+FFFD. */
viva.clean = function (text) {
  return text
    .replace(/\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]/g, "\n")
    .replace(/[\x00-\x08\x0e-\x1b\x1f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/[\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd");
};

/* A short text of a model or a file in a line of ours: it cannot turn what stands around it. */
viva.word = (text, attributes) => viva.el("bdi", attributes, String(text ?? ""));

const LONG = 1600, LINES = 30;

/* A text as it was written, folded if it is long. Words that are searched for are marked. */
viva.said = function (text, options) {
  const whole = viva.clean(String(text ?? "")), box = viva.el("div", { class: "said", dir: "auto", tabindex: "0" });
  const { words = viva.sought || [], long = LONG } = options || {};
  let end = whole.length > long ? long : whole.length, at = -1;
  for (let i = 0, lines = 0; i < end; i++) if (whole.charCodeAt(i) === 10 && ++lines >= LINES) end = i;
  const found = end < whole.length ? viva.first(whole, words) : -1;
  let start = 0;
  if (found >= end) { start = Math.max(0, found - long / 4); end = Math.min(whole.length, found + long); }
  if (start > 0 || whole.length - end > 80) {
    viva.marked(box, (start ? "… " : "") + whole.slice(start, end) + " …", words);
    const more = viva.el("button", { class: "more", type: "button" }, `show all ${viva.count(whole.length)} characters`);
    more.addEventListener("click", () => {
      more.remove();
      box.replaceChildren();
      box.classList.add("whole");
      if (whole.length > 200000) box.append(whole);
      else viva.marked(box, whole, words);
    });
    return viva.el("div", { class: "folded" }, box, more);
  }
  viva.marked(box, whole, words);
  return box;
};

viva.first = function (text, words) {
  const low = text.toLowerCase(), places = words.map((w) => low.indexOf(w)).filter((i) => i >= 0);
  return places.length ? Math.min(...places) : -1;
};

/* The text with the words in <mark>, as text nodes. */
viva.marked = function (box, text, words) {
  if (!words.length) return box.append(text);
  const any = new RegExp(words.map((w) => w.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).sort((a, b) => b.length - a.length).join("|"), "giu");
  let last = 0;
  for (const match of text.matchAll(any)) {
    if (!match[0]) break;
    box.append(text.slice(last, match.index), viva.el("mark", null, match[0]));
    last = match.index + match[0].length;
  }
  box.append(text.slice(last));
};

/* The words of a query, as the index cuts texts. */
viva.words = function (query) {
  const apart = query.normalize("NFC").toLowerCase().replace(/[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]/gu, " $& ");
  return apart.match(/[\p{L}\p{N}]+/gu) || [];
};

viva.count = (n) => Number(n).toLocaleString("en-US");
viva.percent = (share) => (share === null || share === undefined ? "–" : `${(100 * share).toFixed(share === 0 || share === 1 ? 0 : 1)} %`);
viva.money = (n) => (n === 0 ? "0" : n < 0.01 ? n.toPrecision(2) : n.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: n < 1 ? 4 : 2 }));
viva.short = (n) => (n < 1e4 ? viva.count(Math.round(n)) : n < 1e6 ? `${(n / 1e3).toFixed(1)}k` : `${(n / 1e6).toFixed(2)}M`);
viva.lasting = function (s) {
  if (s === null || s === undefined) return "–";
  if (s < 60) return `${Math.round(s)} s`;
  const minutes = Math.floor(s / 60);
  return minutes < 60 ? `${minutes} min ${Math.floor(s % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
};
