"use strict";
document.documentElement.classList.add("js");
// What the scripts of the page share: its data, elements, numbers in words, and what the reader has chosen.
const embedded = document.getElementById("data");
const DATA = embedded ? JSON.parse(embedded.textContent) : null;

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const minus = (text) => text.replaceAll("-", "\u2212");
const grouped = (value) => minus(value.toLocaleString("en-US", { maximumFractionDigits: 0 }));
const percent = (share) => minus((100 * share).toFixed(1));
const digits = (value) => (value === 0 ? "0" : minus(String(Number(value.toPrecision(3)))));
function short(value) {
  for (const [unit, factor] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (value >= factor * 0.9999) return digits(value / factor) + unit;
  }
  return digits(value);
}
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// The reader's choices outlive a reload of the page, where the browser lets a page keep anything.
const place = `capacity:${location.pathname}:`;
function kept(name, otherwise) {
  try {
    const text = sessionStorage.getItem(place + name);
    return text === null ? otherwise : JSON.parse(text);
  } catch {
    return otherwise;
  }
}
function keep(name, value) {
  try {
    sessionStorage.setItem(place + name, JSON.stringify(value));
  } catch {
    // a page from a file may not be allowed to
  }
}

function select(label, options, chosen, changed) {
  const made = element("select", { "aria-label": label, onchange: () => changed(made.value) });
  for (const [value, text] of options) made.append(element("option", { value, selected: value === chosen }, text));
  return element("label", {}, label, made);
}

// Shapes of marks in a square of 2 × 2 around 0, by the letters of Matplotlib.
const SHAPES = {
  s: [[-0.8, -0.8], [0.8, -0.8], [0.8, 0.8], [-0.8, 0.8]],
  "^": [[0, -1], [0.95, 0.8], [-0.95, 0.8]],
  v: [[0, 1], [0.95, -0.8], [-0.95, -0.8]],
  "<": [[-1, 0], [0.8, -0.95], [0.8, 0.95]],
  ">": [[1, 0], [-0.8, -0.95], [-0.8, 0.95]],
  D: [[0, -1.1], [1.1, 0], [0, 1.1], [-1.1, 0]],
  p: [[0, -1], [0.95, -0.3], [0.6, 0.8], [-0.6, 0.8], [-0.95, -0.3]],
  h: [[0, -1], [0.87, -0.5], [0.87, 0.5], [0, 1], [-0.87, 0.5], [-0.87, -0.5]],
  P: [[-0.35, -1], [0.35, -1], [0.35, -0.35], [1, -0.35], [1, 0.35], [0.35, 0.35], [0.35, 1], [-0.35, 1], [-0.35, 0.35], [-1, 0.35], [-1, -0.35], [-0.35, -0.35]],
  X: [[-1, -0.6], [-0.6, -1], [0, -0.4], [0.6, -1], [1, -0.6], [0.4, 0], [1, 0.6], [0.6, 1], [0, 0.4], [-0.6, 1], [-1, 0.6], [-0.4, 0]],
};
function shape(context, marker, x, y, size) {
  context.beginPath();
  if (!SHAPES[marker]) context.arc(x, y, 0.9 * size, 0, 2 * Math.PI);
  else SHAPES[marker].forEach(([a, b], i) => (i ? context.lineTo : context.moveTo).call(context, x + size * a, y + size * b));
  context.closePath();
  context.fill();
}
function mark(marker, ink) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "-1.3 -1.3 2.6 2.6");
  svg.setAttribute("aria-hidden", "true");
  const part = document.createElementNS(space, SHAPES[marker] ? "polygon" : "circle");
  if (SHAPES[marker]) part.setAttribute("points", SHAPES[marker].map((p) => p.join(",")).join(" "));
  else part.setAttribute("r", "0.95");
  part.setAttribute("fill", `var(${ink})`);
  svg.append(part);
  return svg;
}

// What is drawn on a canvas is drawn again when the colours of the screen change, or its width does.
const drawings = new Set();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawings.forEach((draw) => draw()));
function redrawn(host, draw) {
  drawings.add(draw);
  let width = 0;
  new ResizeObserver(() => {
    if (host.clientWidth !== width && host.clientWidth > 0) {
      width = host.clientWidth;
      draw();
    }
  }).observe(host);
}
function axis(more) {
  const grid = { stroke: style("--line"), width: 1 };
  return { stroke: style("--ink"), grid, ticks: { ...grid, size: 4 }, font: "13px system-ui, sans-serif", labelFont: "13px system-ui, sans-serif", size: 30, labelSize: 22, labelGap: 0, ...more };
}
