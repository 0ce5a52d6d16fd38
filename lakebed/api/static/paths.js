// Paths: what people did next, or before, as a Sankey diagram: each link as thick as it is many.

import { field, input, make, name, say, select, shape, table } from "./dom.js";
import { counted, number, percent } from "./format.js";

const MOST_LINKS = 80;
const TALL = 300;
const NODE = 12;
const GAP = 18;
const NARROWEST = 170; // of a step
const HUES = 7;

let drawn = null; // what is drawn again where the width changes
const place = make("div", { class: "scroll" });
new ResizeObserver(() => drawn?.()).observe(place);

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
  const links = [...rows].sort((one, other) => other.count - one.count).slice(0, MOST_LINKS);
  const shown = rows.filter((row) => links.includes(row));
  const sums = counts(rows);
  const readout = make("p", { class: "readout", role: "status" });
  drawn = () => place.replaceChildren(picture(shown, sums, Math.max(place.clientWidth, NARROWEST * (1 + Math.max(...rows.map(({ step }) => step)))), readout));
  const columns = [{ name: "Step", number: true }, { name: "From" }, { name: "To" }, { name: "Visits", number: true }, { name: "Of those", number: true }, { name: "People", number: true }];
  const cells = rows.map((row) => [row.step, name(row.source), name(row.target), number(row.count), percent(row.count / sums.get(key(row.step, row.source))), number(row.people)]);
  const cut = rows.length > shown.length ? make("p", { class: "hint" }, `The ${MOST_LINKS} largest of ${number(rows.length)} links are drawn; the table has all.`) : "";
  return make("div", { class: "card" }, place, readout, cut, make("details", {}, make("summary", {}, "As a table"),
    make("div", { class: "scroll low", tabindex: "0", role: "region", "aria-label": "Paths" }, table(columns, cells, { label: "Paths" }))));
}

const key = (step, event) => `${step} ${event}`;

/** Visits at each node. What enters a node leaves it, but for the last step. */
function counts(links) {
  const [out, into] = [new Map(), new Map()];
  for (const { step, source, target, count } of links) {
    out.set(key(step, source), (out.get(key(step, source)) ?? 0) + count);
    into.set(key(step + 1, target), (into.get(key(step + 1, target)) ?? 0) + count);
  }
  return new Map([...into, ...out]);
}

function nodesOf(links, sums) {
  const nodes = new Map();
  for (const { step, source, target } of links) {
    for (const [at, event] of [[step, source], [step + 1, target]]) nodes.set(key(at, event), { step: at, event, size: sums.get(key(at, event)), out: 0, into: 0 });
  }
  const isOther = ({ event }) => /^\((other|end|start)\)$/.test(event);
  const ordered = [...nodes.values()].sort((one, other) => one.step - other.step || isOther(one) - isOther(other) || other.size - one.size);
  const hues = [...new Set(ordered.filter((node) => !isOther(node)).map(({ event }) => event))];
  for (const node of ordered) node.hue = isOther(node) ? "none" : hues.indexOf(node.event) % HUES;
  return [nodes, ordered];
}

function picture(links, sums, width, readout) {
  const [nodes, ordered] = nodesOf(links, sums);
  const levels = Map.groupBy(ordered, ({ step }) => step);
  const scale = TALL / Math.max(...[...levels.values()].map((level) => level.reduce((sum, { size }) => sum + size, 0)));
  const apart = (width - NARROWEST) / (levels.size - 1);
  let height = 0;
  [...levels.values()].forEach((level, at) => {
    let y = 4;
    for (const node of level) {
      Object.assign(node, { x: at * apart, y, tall: Math.max(node.size * scale, 1), room: (at === levels.size - 1 ? NARROWEST : apart) - NODE - 8 });
      y += Math.max(node.tall, GAP) + 4;
    }
    height = Math.max(height, y);
  });
  const ends = ({ step, source, target }) => [nodes.get(key(step, source)), nodes.get(key(step + 1, target))];
  const ribbons = links.map((link) => ({ link, ends: ends(link), told: `${link.source} → ${link.target}: ${counted(link.count, "visit")} (${percent(link.count / sums.get(key(link.step, link.source)))}), ${counted(link.people, "person", "people")}` }));
  // Links lie above each other in the order of what they come from, and of what they lead to.
  for (const one of [...ribbons].sort((a, b) => a.ends[0].y - b.ends[0].y)) one.into = taken(one.ends[1], "into", one.link.count * scale);
  for (const one of [...ribbons].sort((a, b) => a.ends[1].y - b.ends[1].y)) one.out = taken(one.ends[0], "out", one.link.count * scale);
  for (const one of ribbons) one.path = ribbon(one, Math.max(one.link.count * scale, 0.5));
  const point = (chosen, told) => {
    for (const one of ribbons) one.path.classList.toggle("on", chosen.includes(one));
    say(readout, told);
  };
  for (const one of ribbons) one.path.addEventListener("pointerenter", () => point([one], one.told));
  const marks = ordered.map((node) => {
    const told = `${node.event}: ${counted(node.size, "visit")}`;
    const mark = shape("g", {}, shape("rect", { x: node.x, y: node.y, width: NODE, height: node.tall, rx: 2, class: `hue-${node.hue}` }),
      shape("foreignObject", { x: node.x + NODE + 4, y: node.y + Math.max(node.tall, GAP) / 2 - 10, width: node.room, height: 20 },
        make("p", { class: "node" }, name(node.event), make("span", {}, number(node.size)))));
    mark.addEventListener("pointerenter", () => point(ribbons.filter((one) => one.ends.includes(node)), told));
    return mark;
  });
  const words = ribbons.slice(0, 10).map(({ told }) => told).join(". ");
  const svg = shape("svg", { width, height, viewBox: `0 0 ${width} ${height}`, class: "sankey", role: "img", tabindex: 0, "aria-label": `Paths. The arrow keys tell each link. ${words}` }, ...ribbons.map(({ path }) => path), ...marks);
  let at = -1;
  svg.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    at = (at + by + ribbons.length) % ribbons.length;
    point([ribbons[at]], ribbons[at].told);
  });
  for (const gone of ["pointerleave", "blur"]) svg.addEventListener(gone, () => point([], ""));
  return svg;
}

/** Where on a side of a node the next link begins. */
function taken(node, side, thick) {
  const y = node.y + node[side];
  node[side] += thick;
  return y;
}

function ribbon({ ends: [from, to], out, into }, thick) {
  const [left, right] = [from.x + NODE, to.x];
  const middle = (left + right) / 2;
  return shape("path", { class: "ribbon", d: `M${left} ${out}C${middle} ${out} ${middle} ${into} ${right} ${into}v${thick}C${middle} ${into + thick} ${middle} ${out + thick} ${left} ${out + thick}Z` });
}
