// Funnel: how many went how far, and what was lost at each step.

import { field, input, make, name, select, table } from "./dom.js";
import { counted, moment, number, percent, span } from "./format.js";

const MOST_STEPS = 20;
const MOST_PEOPLE = 100;
const REQUEST = "api.request"; // what TrackRequests records is no step of a person
const UNITS = { ms: 1, s: 1e3, m: 6e4, min: 6e4, h: 36e5, d: 864e5, w: 6048e5 };
const ORDERS = { ordered: "in this order", strict: "nothing between", any: "in any order" };

const steps = make("ol", { class: "steps" });
const more = make("button", { type: "button" }, "Add a step");

export function controls(names, given) {
  const own = names.filter((one) => one !== REQUEST);
  const first = given.length ? given : own.length > 1 ? own.slice(0, 2) : [...own, ...own];
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
    const made = make("button", { type: "button", class: "quiet", "data-word": word }, sign);
    made.addEventListener("click", () => {
      const next = change();
      numbered();
      (made.isConnected && !made.disabled ? made : (next ?? row).querySelector("input")).focus();
      steps.dispatchEvent(new Event("change", { bubbles: true }));
    });
    return made;
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
  more.disabled = rows.length === MOST_STEPS;
}

export async function answer(values, post, { end, now }) {
  const asked = { steps: values.getAll("step").filter(Boolean), within: values.get("within"), order: values.get("order") };
  if (!asked.steps.length) return "Name the first step";
  const by = values.get("by") || null;
  const groups = [];
  for (const row of await post("funnel", { ...asked, by })) {
    if (row.step === 1) groups.push([]);
    groups.at(-1).push(row);
  }
  if (!groups.some(([first]) => first.people)) return `Nobody did “${asked.order === "any" ? asked.steps.join("” or “") : asked.steps[0]}” in this range. Names are case sensitive.`;
  const drop = by ? null : (at) => post("funnel_people", { ...asked, step: at, limit: MOST_PEOPLE });
  const [, count, unit] = /([\d.]+)\s*(\w+)/.exec(asked.within);
  const open = Date.parse(end) + count * UNITS[unit] > now ? make("p", { class: "hint" }, `Who began less than ${asked.within} ago may still go on.`) : "";
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

/** Those who did not come this far: how many, and who. */
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
      const rows = people.map((one) => [name(one.person_id), moment(one.began), moment(one.reached)]);
      place.replaceChildren(table([{ name: "Person" }, { name: "Began (UTC)" }, { name: "Last step" }], rows, { label: words }),
        lost > people.length ? `The first ${people.length} of ${number(lost)}` : "");
    } catch (error) {
      place.replaceChildren(error.message);
    }
  });
  return list;
}
