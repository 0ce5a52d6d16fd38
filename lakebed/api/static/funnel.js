// Funnel: the number of people at each step, and the people who dropped out there.

import { field, input, make, name, select, table } from "./dom.js";
import { counted, moment, number, percent, span } from "./format.js";

const MAX_STEPS = 20;
const MAX_PEOPLE = 100;
const REQUEST = "api.request"; // the events of TrackRequests are not actions of people
const UNITS = { ms: 1, s: 1e3, m: 6e4, min: 6e4, h: 36e5, d: 864e5, w: 6048e5 };
const ORDERS = { ordered: "in this order", strict: "nothing between", any: "in any order" };

const steps = make("ol", { class: "steps" });
const more = make("button", { type: "button" }, "Add a step");

export function controls(names, stepsOfAddress) {
  const own = names.filter((event) => event !== REQUEST);
  const first = stepsOfAddress.length ? stepsOfAddress : own.length > 1 ? own.slice(0, 2) : [...own, ...own];
  steps.append(...(first.length ? first : [""]).map(step));
  more.addEventListener("click", () => {
    const added = step("");
    steps.append(added);
    numbered();
    added.querySelector("input").focus();
  });
  numbered();
  return [
    make("div", { class: "asked" }, steps, more),
    field("Within", input("within", { value: "7d", list: "windows", size: 5 })),
    make("datalist", { id: "windows" }, ...["30m", "1h", "1d", "7d", "30d"].map((value) => make("option", { value }))),
    field("Order", select("order", ORDERS)),
    field("Split by", input("by", { placeholder: "a property" }), "grow"),
  ];
}

function step(value) {
  const row = make("li", {}, input("step", { list: "events", value, placeholder: "event", maxlength: 200 }));
  const button = (sign, word, change) => {
    const element = make("button", { type: "button", class: "quiet", "data-word": word }, sign);
    element.addEventListener("click", () => {
      const next = change();
      numbered();
      (element.isConnected && !element.disabled ? element : (next ?? row).querySelector("input")).focus();
      steps.dispatchEvent(new Event("change", { bubbles: true }));
    });
    return element;
  };
  row.append(
    button("↑", "up", () => row.previousElementSibling.before(row)),
    button("↓", "down", () => row.nextElementSibling.after(row)),
    button("✕", "away", () => {
      const next = row.nextElementSibling ?? row.previousElementSibling;
      row.remove();
      return next;
    }),
  );
  return row;
}

function numbered() {
  const rows = [...steps.children];
  rows.forEach((row, at) => {
    const [text, up, down, away] = row.children;
    text.ariaLabel = `Step ${at + 1}`;
    for (const button of [up, down, away]) button.ariaLabel = button.title = `Step ${at + 1} ${button.dataset.word}`;
    up.disabled = !at;
    down.disabled = at === rows.length - 1;
    away.disabled = rows.length === 1;
  });
  more.disabled = rows.length === MAX_STEPS;
}

export async function answer(values, post, { end, now }) {
  const query = { steps: values.getAll("step").filter(Boolean), within: values.get("within"), order: values.get("order") };
  if (!query.steps.length) return "Name the first step";
  const by = values.get("by") || null;
  const groups = [];
  for (const row of await post("funnel", { ...query, by })) {
    if (row.step === 1) groups.push([]);
    groups.at(-1).push(row);
  }
  if (!groups.some(([first]) => first.people)) return `Nobody did “${query.order === "any" ? query.steps.join("” or “") : query.steps[0]}” in this range. Names are case sensitive.`;
  const drop = by ? null : (at) => post("funnel_people", { ...query, step: at, limit: MAX_PEOPLE });
  const [, count, unit] = /([\d.]+)\s*(\w+)/.exec(query.within);
  const open = Date.parse(end) + count * UNITS[unit] > now ? make("p", { class: "hint" }, `Who began less than ${query.within} ago may still go on.`) : "";
  return make("div", { class: "card" },
    make("div", { class: "groups" }, ...groups.map((rows) => drawn(rows, by && (rows[0][by] ?? "(none)"), drop))), open);
}

function drawn(rows, heading, drop) {
  const [{ people: first }, last] = [rows[0], rows.at(-1)];
  const whole = `${percent(last.conversion)} went through: ${number(last.people)} of ${counted(first, "person", "people")}`;
  return make("section", {}, make("h3", {}, ...(heading ? [name(heading)] : []), whole),
    make("ol", { class: "funnel" }, ...rows.map((row, at) => drawnStep(row, rows[at - 1], first, drop))));
}

function drawnStep(row, before, first, drop) {
  const bar = make("div", { class: "bars", "aria-hidden": "true" }, make("span", { class: "lost" }), make("span", { class: "left" }));
  bar.style.setProperty("--left", first ? row.people / first : 0);
  bar.style.setProperty("--before", first && before ? before.people / first : 0);
  const about = before ? make("div", { class: "hint about" }, make("span", {}, `${percent(row.from_previous)} of the step before`),
    row.median_seconds === null ? null : make("span", {}, `median ${span(row.median_seconds)}`), dropped(row, before, drop)) : "";
  return make("li", {}, make("div", { class: "head" }, name(row.event),
    make("p", {}, make("b", {}, number(row.people)), ` people · ${percent(row.conversion)}`)), bar, about);
}

/** The number and the list of people who did not reach this step. */
function dropped(row, before, drop) {
  const lost = before.people - row.people;
  const words = `${number(lost)} dropped out (${percent(before.people ? lost / before.people : null)})`;
  if (!drop || !lost) return make("span", {}, words);
  const list = make("details", {}, make("summary", {}, words));
  list.addEventListener("toggle", async () => {
    if (!list.open || list.children.length > 1) return;
    const place = make("div", { class: "scroll low", tabindex: "0", role: "region", "aria-label": words }, "Loading …");
    list.append(place);
    try {
      const people = await drop(row.step);
      const rows = people.map((person) => [name(person.person_id), moment(person.began), moment(person.reached)]);
      place.replaceChildren(table([{ name: "Person" }, { name: "Began (UTC)" }, { name: "Last step" }], rows, { label: words }),
        lost > people.length ? `The first ${people.length} of ${number(lost)}` : "");
    } catch (error) {
      place.replaceChildren(error.message);
    }
  });
  return list;
}
