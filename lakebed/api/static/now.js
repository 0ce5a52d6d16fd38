// The live snapshot: the message of /live, once a second.

import { byId, make, name, oneOf, say, shape, show } from "./dom.js";
import { counted, number, time } from "./format.js";

let last = null;
let top = "top-hour";

/** Bars for a list of numbers. They are created once; then only their heights change. */
class Bars {
  constructor(element, unit) {
    this.element = element;
    this.unit = unit;
    this.bars = [];
  }

  draw(values, words) {
    if (this.bars.length !== values.length) {
      this.bars = values.map((_, index) => shape("rect", { x: index * 4, width: 3, rx: 0.5 }));
      const base = shape("rect", { x: 0, y: 39.5, width: values.length * 4 - 1, height: 0.5, class: "base" });
      this.element.replaceChildren(shape("svg", { viewBox: `0 0 ${values.length * 4 - 1} 40`, preserveAspectRatio: "none", "aria-hidden": "true" }, base, ...this.bars));
    }
    const maximum = Math.max(1, ...values);
    values.forEach((value, index) => {
      const height = value ? Math.max(1.5, (38 * value) / maximum) : 0;
      this.bars[index].setAttribute("height", height);
      this.bars[index].setAttribute("y", 40 - height);
    });
    this.element.setAttribute("aria-label", `${words}: at most ${number(Math.max(...values))} in one ${this.unit}, ${number(values.at(-1))} in the latest`);
  }
}

const seconds = new Bars(byId("seconds"), "second");
const minutes = new Bars(byId("minutes"), "minute");
const lately = new Bars(byId("lately"), "second");
const activeHistory = Array(60).fill(0); // active people since the page was opened; the server has no history of them

export function start() {
  oneOf([byId("top-hour"), byId("top-ever")], (id) => {
    top = id;
    if (last) drawTop(last);
  });
}

/** Show a snapshot. */
export function draw(snapshot) {
  last = snapshot;
  say(byId("object"), snapshot.name);
  say(byId("as-of"), `as of ${time(snapshot.at)} UTC`);
  say(byId("minute"), number(snapshot.last_minute));
  const rate = snapshot.seconds.slice(-11, -1).reduce((sum, count) => sum + count, 0) / 10;
  say(byId("minute-hint"), `${number(Math.round(rate * 10) / 10)} a second, lately`);
  say(byId("hour"), number(snapshot.last_hour));
  say(byId("hour-hint"), snapshot.names ? `under ${counted(snapshot.names, "name")}` : "\u00a0");
  say(byId("active"), number(snapshot.active));
  say(byId("active-hint"), snapshot.active_s ? `with an event in the last ${counted(snapshot.active_s / 60, "minute")}` : "\u00a0");
  say(byId("stored"), number(snapshot.events));
  say(byId("stored-hint"), "since the beginning");
  seconds.draw(snapshot.seconds, "Events by second, last minute");
  minutes.draw(snapshot.minutes, "Events by minute, last hour");
  activeHistory.push(snapshot.active);
  activeHistory.shift();
  lately.draw(activeHistory, "Active people since this page was opened");
  drawCounts(snapshot);
  drawTop(snapshot);
  drawNewest(snapshot);
}

/** The outcomes of the events received since the object was opened. */
function drawCounts(snapshot) {
  const counts = [["Received", snapshot.received], ["Stored", snapshot.stored], ["Duplicate", snapshot.duplicate], ["Rejected", snapshot.rejected]];
  const text = counts.map(([, count]) => count).join();
  if (byId("books").dataset.shown === text) return;
  byId("books").dataset.shown = text;
  byId("books").replaceChildren(...books.map(([word, count]) => make("div", {}, make("dt", {}, word), make("dd", {}, number(count)))));
  byId("books").title = "Since the object was opened";
}

function drawTop(snapshot) {
  const rows = top === "top-hour" ? snapshot.top_hour : snapshot.top_ever;
  const maximum = Math.max(1, ...rows.map(([, count]) => count));
  updateRows(byId("top"), rows.map(([text, count]) => ({ id: text, count })), ({ id }) =>
    make("tr", {}, make("td", {}, make("span", { class: "share" }), name(id)), make("td", { class: "number" })),
  (row, { count }) => {
    row.firstChild.style.setProperty("--share", count / maximum);
    say(row.lastChild, number(count));
  });
  show(byId("top-none"), !rows.length);
  say(byId("top-none"), top === "top-hour" ? "No named event in the last hour" : "No named event yet");
}

function drawNewest(snapshot) {
  updateRows(byId("newest"), snapshot.newest.map((event) => ({ id: String(event.seq), event })), ({ event }) =>
    make("tr", {},
      make("td", { class: "number" }, make("time", { datetime: event.received_at, title: `happened ${event.timestamp}` }, time(event.received_at))),
      make("td", {}, event.event === null ? make("i", { class: "kind" }, event.type) : name(event.event)),
      make("td", {}, event.person === null ? make("i", { class: "kind" }, "nobody") : name(event.person))));
  show(byId("newest-none"), !snapshot.newest.length);
}

/** Give `body` a row for each item, in order, and change only the rows that differ: selections and focus stay. */
function updateRows(body, items, create, update = () => {}) {
  const existing = new Map([...body.rows].map((row) => [row.dataset.id, row]));
  items.forEach((item, index) => {
    let row = existing.get(item.id);
    if (row) existing.delete(item.id);
    else {
      row = create(item);
      row.dataset.id = item.id;
    }
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
    update(row, item);
  });
  for (const row of existing.values()) row.remove();
}
