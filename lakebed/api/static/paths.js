// Paths: the events before or after an event, as a Sankey diagram: the width of a link is its count.

import { field, input, make, name, say, select, shape, table } from "./dom.js";
import { counted, number, percent } from "./format.js";

const MAX_LINKS = 80;
const TALL = 300;
const NODE = 12;
const LINE = 20; // of text
const GAP = 4;
const NARROWEST = 170; // of a step
const HUES = 7;

const place = make("div", { class: "scroll" });
let draw = null; // for a width
let drawnWidth = 0;

new ResizeObserver(() => {
  const width = place.clientWidth;
  if (!draw || !width || width === drawnWidth) return;
  drawnWidth = width;
  place.replaceChildren(draw(width));
}).observe(place);

export const controls = () => [
  field("Paths", select("way", { after: "that begin with", before: "that end with" })),
  field("Event", input("event", { list: "events", placeholder: "any event" }), "grow"),
  field("Steps", input("steps", { type: "number", min: 1, max: 20, value: 4, required: true })),
  field("Events a step", input("top", { type: "number", min: 1, max: 20, value: 6, required: true })),
  field("Nodes are", input("by", { placeholder: "events; or a property" })),
  field("Visits end after", input("timeout", { value: "30m", size: 5 })),
  make("label", { class: "check" }, make("input", { type: "checkbox", name: "collapse", value: "yes" }), "Repeats are one"),
];

export async function answer(values, post) {
  const event = values.get("event");
  const rows = await post("paths", {
    ...(event ? { [values.get("way")]: event } : {}), by: values.get("by") || "event", timeout: values.get("timeout"),
    steps: Number(values.get("steps")), top: Number(values.get("top")), collapse: values.has("collapse"),
  });
  if (!rows.length) return event ? `No visit in this range has “${event}”. Names are case sensitive.` : "No visits in this range";
  const links = [...rows].sort((one, other) => other.count - one.count).slice(0, MAX_LINKS);
  const shown = rows.filter((row) => links.includes(row));
  const sums = counts(rows);
  const readout = make("p", { class: "readout", role: "status" });
  draw = (width) => picture(shown, sums, Math.max(width, NARROWEST * (1 + rows.at(-1).step)), readout);
  drawnWidth = 0;
  place.replaceChildren(); // the observer notices when it is in the page again
  const columns = [{ name: "Step", number: true }, { name: "From" }, { name: "To" }, { name: "Visits", number: true }, { name: "Of those", number: true }, { name: "People", number: true }];
  const cells = rows.map((row) => [row.step, name(row.source), name(row.target), number(row.count), percent(row.count / sums.get(key(row.step, row.source))), number(row.people)]);
  const cut = rows.length > shown.length ? make("p", { class: "hint" }, `The ${MAX_LINKS} largest of ${number(rows.length)} links are drawn; the table has all.`) : "";
  return make("div", { class: "card" }, place, readout, cut, make("details", {}, make("summary", {}, "As a table"),
    make("div", { class: "scroll low", tabindex: "0", role: "region", "aria-label": "Paths" }, table(columns, cells, { label: "Paths" }))));
}

const key = (step, event) => `${step} ${event}`;
const isOther = (event) => /^\((other|end|start)\)$/.test(event);

/** Visits at each node. As many leave a node as enter it, except at the last step. */
function counts(links) {
  const [out, into] = [new Map(), new Map()];
  const add = (sums, node, count) => sums.set(node, (sums.get(node) ?? 0) + count);
  for (const { step, source, target, count } of links) {
    add(out, key(step, source), count);
    add(into, key(step + 1, target), count);
  }
  return new Map([...into, ...out]);
}

/** The nodes in columns, the largest first; an event has the same colour in all columns. */
function columnsOf(links, sums) {
  const columns = new Map();
  for (const { step, source, target } of links) {
    for (const [at, event] of [[step, source], [step + 1, target]]) {
      if (!columns.has(at)) columns.set(at, new Map());
      columns.get(at).set(event, { event, size: sums.get(key(at, event)), out: 0, into: 0 });
    }
  }
  const sorted = [...columns].sort(([one], [other]) => one - other).map(([, nodes]) =>
    [...nodes.values()].sort((one, other) => isOther(one.event) - isOther(other.event) || other.size - one.size));
  const hues = [...new Set(sorted.flat().map(({ event }) => event))].filter((event) => !isOther(event));
  for (const node of sorted.flat()) node.hue = isOther(node.event) ? "none" : hues.indexOf(node.event) % HUES;
  return [sorted, ({ step, source, target }) => [columns.get(step).get(source), columns.get(step + 1).get(target)]];
}

function picture(links, sums, width, readout) {
  const [columns, endsOf] = columnsOf(links, sums);
  const scale = TALL / Math.max(...columns.map((nodes) => nodes.reduce((sum, { size }) => sum + size, 0)));
  const height = arrange(columns, scale, width);
  const ribbons = ribbonsOf(links, endsOf, sums, scale);
  const highlight = (selected, text) => {
    for (const item of ribbons) item.path.classList.toggle("on", selected.includes(item));
    say(readout, text);
  };
  for (const item of ribbons) item.path.addEventListener("pointerenter", () => highlight([item], item.text));
  const marks = columns.flat().map((node) => mark(node, () => highlight(ribbons.filter(({ ends }) => ends.includes(node)), `${node.event}: ${counted(node.size, "visit")}`)));
  const words = `Paths. The arrow keys tell each link. ${ribbons.slice(0, 10).map(({ text }) => text).join(". ")}`;
  const svg = shape("svg", { width, height, class: "sankey", role: "img", tabindex: 0, "aria-label": words }, ...ribbons.map(({ path }) => path), ...marks);
  let at = -1;
  svg.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    at = Math.max(0, at + by) % ribbons.length;
    highlight([ribbons[at]], ribbons[at].text);
  });
  for (const gone of ["pointerleave", "blur"]) svg.addEventListener(gone, () => highlight([], ""));
  return svg;
}

/** Sets the position of each node; returns the height of the picture. */
function arrange(columns, scale, width) {
  const apart = (width - NARROWEST) / (columns.length - 1);
  return Math.max(...columns.map((nodes, at) => nodes.reduce((y, node) => {
    const tall = Math.max(node.size * scale, 1);
    Object.assign(node, { x: at * apart, y, tall, room: (at === columns.length - 1 ? NARROWEST : apart) - NODE - 8 });
    return y + Math.max(tall, LINE) + GAP;
  }, GAP)));
}

/** Links at a node are in the order of the nodes at their other ends. */
function ribbonsOf(links, endsOf, sums, scale) {
  const ribbons = links.map((link) => {
    const share = percent(link.count / sums.get(key(link.step, link.source)));
    const text = `${link.source} → ${link.target}: ${counted(link.count, "visit")} (${share}), ${counted(link.people, "person", "people")}`;
    return { ends: endsOf(link), thick: link.count * scale, text };
  });
  for (const [own, other] of [["into", 0], ["out", 1]]) {
    for (const item of [...ribbons].sort((a, b) => a.ends[other].y - b.ends[other].y)) {
      const node = item.ends[1 - other];
      item[own] = node.y + node[own];
      node[own] += item.thick;
    }
  }
  for (const item of ribbons) item.path = ribbon(item);
  return ribbons;
}

function ribbon({ ends: [from, to], out, into, thick }) {
  const [left, right] = [from.x + NODE, to.x];
  const middle = (left + right) / 2;
  const seen = Math.max(thick, 0.5);
  return shape("path", { class: "ribbon", d: `M${left} ${out}C${middle} ${out} ${middle} ${into} ${right} ${into}v${seen}C${middle} ${into + seen} ${middle} ${out + seen} ${left} ${out + seen}Z` });
}

function mark({ event, size, hue, x, y, tall, room }, entered) {
  const words = make("p", { class: "node" }, name(event), make("span", {}, number(size)));
  const made = shape("g", {}, shape("rect", { x, y, width: NODE, height: tall, rx: 2, class: `hue-${hue}` }),
    shape("foreignObject", { x: x + NODE + 4, y: y + Math.max(tall, LINE) / 2 - LINE / 2, width: room, height: LINE }, words));
  made.addEventListener("pointerenter", entered);
  return made;
}
