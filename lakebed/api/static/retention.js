// Retention: a grid of cohorts and periods; the more people came back, the darker the cell.

import { field, input, make, select } from "./dom.js";
import { bucket, counted, later, number, percent } from "./format.js";

const MAX_COHORTS = 100;
const MODES = { recurring: "all who came", first_time: "first time ever", unbounded: "first time, unbounded" };

export const controls = () => [
  field("Came with", input("start_event", { list: "events", placeholder: "any event" }), "grow"),
  field("Came back with", input("return_event", { list: "events", placeholder: "any event" }), "grow"),
  field("Cohorts of", select("mode", MODES)),
  field("By", select("grain", { hour: "hour", day: "day", week: "week", month: "month" })),
  field("Periods", input("periods", { type: "number", min: 1, max: 60, value: 12, required: true })),
];

export async function answer(values, post, { end, now }) {
  const [grain, mode] = [values.get("grain"), values.get("mode")];
  const query = Object.fromEntries(["start_event", "return_event"].map((field) => [field, values.get(field) || null]));
  const cohorts = [];
  for (const row of await post("retention", { ...query, grain, mode, periods: Number(values.get("periods")) })) {
    if (row.period === 0) cohorts.push([]);
    cohorts.at(-1).push(row);
  }
  if (!cohorts.length) return mode === "recurring" ? "Nobody came in this range." : "Nobody came for the first time in this range. Choose all days, or cohorts of all who came.";
  const until = Math.min(now, Date.parse(end));
  const isOver = ({ cohort, period }) => later(Date.parse(cohort), grain, period + 1) <= until;
  const shown = cohorts.slice(-MAX_COHORTS);
  const periods = [...Array(Math.max(...shown.map((cells) => cells.length))).keys()];
  const darkest = Math.max(...shown.flatMap((cells) => cells.slice(1).map(({ rate }) => rate)), 0.01);
  const head = ["Cohort", "People", ...periods.map((period) => `${grain} ${period}`)];
  const row = (words, size, cells) => make("tr", {}, make("th", { scope: "row" }, words), make("td", { class: "number" }, size), ...cells);
  const rows = shown.map((cells) => row(bucket(cells[0].cohort, grain), number(cells[0].people), periods.map((period) => cells[period] ? cell(cells[period], isOver(cells[period]), grain, darkest) : make("td"))));
  const cut = cohorts.length > shown.length ? `The newest ${MAX_COHORTS} of ${number(cohorts.length)} cohorts. ` : "";
  return make("div", { class: "card" },
    make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Retention" },
      make("table", { class: "grid", "aria-label": "Retention" }, make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, text)))),
        make("tbody", {}, row("Mean", "", periods.map((period) => mean(shown, period, isOver, darkest))), ...rows))),
    make("p", { class: "hint scale" }, "0%", make("span", { "aria-hidden": "true" }), `${percent(darkest)} and more`),
    make("p", { class: "hint" }, `${cut}Dashed: the ${grain} is not over, and the number may still grow; the mean leaves it out.`));
}

/** A cell of a period that has begun; a future period has none, which is not 0. */
function cell({ cohort, period, people, rate }, isOver, grain, darkest) {
  const about = `${bucket(cohort, grain)}, ${grain} ${period}: ${counted(people, "person", "people")}, ${percent(rate)}${isOver ? "" : "; not over yet"}`;
  return heated(rate / darkest, make("span", { class: isOver ? "cell" : "cell open", title: about }, percent(rate), make("small", {}, number(people))));
}

/** The mean over all people of the cohorts whose period is over. */
function mean(cohorts, period, isOver, darkest) {
  const known = cohorts.filter((cells) => cells[period] && isOver(cells[period]));
  if (!known.length) return make("td");
  const sum = (at) => known.reduce((total, cells) => total + cells[at].people, 0);
  const rate = sum(period) / sum(0);
  return heated(rate / darkest, make("span", { class: "cell", title: `of ${counted(known.length, "cohort")}` }, percent(rate), make("small", {}, number(sum(period)))));
}

function heated(share, text) {
  text.style.setProperty("--rate", Math.min(1, share));
  return make("td", {}, text);
}
