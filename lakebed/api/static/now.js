// What is going on: the message of /live, once a second.

import { byId, make, name, oneOf, say, shape, show } from "./dom.js";
import { counted, number, time } from "./format.js";

let last = null;
let top = "top-hour";

/** Bars for a row of numbers. They are made once; after that only their heights change. */
class Bars {
  constructor(element, unit) {
    this.element = element;
    this.unit = unit;
    this.bars = [];
  }

  draw(values, words) {
    if (this.bars.length !== values.length) {
      this.bars = values.map((_, at) => shape("rect", { x: at * 4, width: 3, rx: 0.5 }));
      const base = shape("rect", { x: 0, y: 39.5, width: values.length * 4 - 1, height: 0.5, class: "base" });
      this.element.replaceChildren(shape("svg", { viewBox: `0 0 ${values.length * 4 - 1} 40`, preserveAspectRatio: "none", "aria-hidden": "true" }, base, ...this.bars));
    }
    const most = Math.max(1, ...values);
    values.forEach((value, at) => {
      const height = value ? Math.max(1.5, (38 * value) / most) : 0;
      this.bars[at].setAttribute("height", height);
      this.bars[at].setAttribute("y", 40 - height);
    });
    this.element.setAttribute("aria-label", `${words}: at most ${number(Math.max(...values))} in one ${this.unit}, ${number(values.at(-1))} in the latest`);
  }
}

const seconds = new Bars(byId("seconds"), "second");
const minutes = new Bars(byId("minutes"), "minute");
const lately = new Bars(byId("lately"), "second");
const watched = Array(60).fill(0); // active people since the page was opened; the server keeps no history of them

export function start() {
  oneOf([byId("top-hour"), byId("top-ever")], (id) => {
    top = id;
    if (last) drawTop(last);
  });
}

/** Show a pulse. */
export function pulse(found) {
  last = found;
  say(byId("object"), found.name);
  say(byId("as-of"), `as of ${time(found.at)} UTC`);
  say(byId("minute"), number(found.last_minute));
  const rate = found.seconds.slice(-11, -1).reduce((sum, count) => sum + count, 0) / 10;
  say(byId("minute-hint"), `${number(Math.round(rate * 10) / 10)} a second, lately`);
  say(byId("hour"), number(found.last_hour));
  say(byId("hour-hint"), found.names ? `under ${counted(found.names, "name")}` : "\u00a0");
  say(byId("active"), number(found.active));
  say(byId("active-hint"), found.active_s ? `with an event in the last ${counted(found.active_s / 60, "minute")}` : "\u00a0");
  say(byId("stored"), number(found.events));
  say(byId("stored-hint"), "since the beginning");
  seconds.draw(found.seconds, "Events by second, last minute");
  minutes.draw(found.minutes, "Events by minute, last hour");
  watched.push(found.active);
  watched.shift();
  lately.draw(watched, "Active people since this page was opened");
  drawBooks(found);
  drawTop(found);
  drawNewest(found);
}

/** What became of what was received since the object was opened. */
function drawBooks(found) {
  const books = [["Received", found.received], ["Stored", found.stored], ["Duplicate", found.duplicate], ["Rejected", found.rejected]];
  const text = books.map(([, count]) => count).join();
  if (byId("books").dataset.shown === text) return;
  byId("books").dataset.shown = text;
  byId("books").replaceChildren(...books.map(([word, count]) => make("div", {}, make("dt", {}, word), make("dd", {}, number(count)))));
  byId("books").title = "Since the object was opened";
}

function drawTop(found) {
  const rows = top === "top-hour" ? found.top_hour : found.top_ever;
  const most = Math.max(1, ...rows.map(([, count]) => count));
  keepRows(byId("top"), rows.map(([text, count]) => ({ id: text, count })), ({ id }) =>
    make("tr", {}, make("td", {}, make("span", { class: "share" }), name(id)), make("td", { class: "number" })),
  (row, { count }) => {
    row.firstChild.style.setProperty("--share", count / most);
    say(row.lastChild, number(count));
  });
  show(byId("top-none"), !rows.length);
  say(byId("top-none"), top === "top-hour" ? "No named event in the last hour" : "No named event yet");
}

function drawNewest(found) {
  keepRows(byId("newest"), found.newest.map((one) => ({ id: String(one.seq), one })), ({ one }) =>
    make("tr", {},
      make("td", { class: "number" }, make("time", { datetime: one.received_at, title: `happened ${one.timestamp}` }, time(one.received_at))),
      make("td", {}, one.event === null ? make("i", { class: "kind" }, one.type) : name(one.event)),
      make("td", {}, one.person === null ? make("i", { class: "kind" }, "nobody") : name(one.person))));
  show(byId("newest-none"), !found.newest.length);
}

/** Make `body` have a row for each item, in their order, and touch only what changed: what is read is not torn away. */
function keepRows(body, items, create, update = () => {}) {
  const there = new Map([...body.rows].map((row) => [row.dataset.id, row]));
  items.forEach((item, at) => {
    let row = there.get(item.id);
    if (row) there.delete(item.id);
    else {
      row = create(item);
      row.dataset.id = item.id;
    }
    if (body.rows[at] !== row) body.insertBefore(row, body.rows[at] ?? null);
    update(row, item);
  });
  for (const row of there.values()) row.remove();
}
