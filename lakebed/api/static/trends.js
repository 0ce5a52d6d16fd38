// Events, and daily, weekly and monthly active people, over a range of days.

import { byId, say } from "./dom.js";
import { Chart } from "./chart.js";
import { bucket, date, isoDay, STEP } from "./format.js";
import { Range } from "./range.js";
import { get } from "./server.js";

const MAX_BUCKETS = 5000;
const REFRESH_MS = 15_000;

const form = byId("range");
const preset = byId("preset");
const from = byId("from");
const to = byId("to");
const grain = byId("grain");
const eventName = byId("event");
const asOf = byId("as-of-input");
const range = new Range({ preset, from, to }, (step) => { grain.value = step; });
const events = new Chart(byId("events-chart"));
const people = new Chart(byId("people-chart"));

let current = new AbortController();
let seen = -1;
let drawnAt = 0;

export function start() {
  form.addEventListener("change", ({ target }) => {
    range.changed(target);
    refresh();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
}

/** Sets the first and last day that have events. */
export function days(first, last) {
  if (range.days(first, last)) refresh();
}

/** Shows that no event was ever stored. */
export function empty(is) {
  if (!is) return;
  events.message("No events yet");
  people.message("No people yet");
}

/** Sets the suggested names of events. */
export function names(values) {
  const list = byId("events");
  const text = values.join("\n");
  if (list.dataset.shown === text) return;
  list.dataset.shown = text;
  list.replaceChildren(...values.map((value) => {
    const option = document.createElement("option");
    option.value = value;
    return option;
  }));
}

/** Redraws the charts if there are new events, not too often. */
export function mayHaveChanged(nextSeq) {
  const today = isoDay(Date.now()) <= to.value && !asOf.value;
  if (nextSeq !== seen && today && Date.now() - drawnAt > REFRESH_MS && !document.hidden && !form.contains(document.activeElement)) {
    seen = nextSeq;
    range.renew();
    refresh({ quiet: true });
  }
}

/** The range of the form, or the text of an error. */
function validRange() {
  const days = range.value;
  if (typeof days === "string" || (Date.parse(days.end) - Date.parse(days.start)) / STEP[grain.value] <= MAX_BUCKETS) return days;
  return `That would be more than ${MAX_BUCKETS} points: choose a longer step or fewer days`;
}

export async function refresh({ quiet = false } = {}) {
  current.abort();
  const controller = (current = new AbortController());
  const days = validRange();
  if (typeof days === "string") {
    events.message(days);
    people.message(days);
    return;
  }
  drawnAt = Date.now();
  if (!quiet) {
    events.wait();
    people.wait();
  }
  say(byId("trends-note"), preset.value === "1" ? "UTC" : `${date(from.value)} to ${date(to.value)}, UTC`);
  const as_of = asOf.value ? `${asOf.value}Z` : "";
  await Promise.all([guarded(events, controller, () => drawEvents(days, as_of, controller.signal)), guarded(people, controller, () => drawPeople(as_of, controller.signal))]);
}

async function guarded(chart, controller, work) {
  try {
    await work();
  } catch (error) {
    if (error.name === "AbortError" || controller.signal.aborted) return;
    if (!error.unreachable || !chart.data) chart.message(`${error.message}.`, "error");
    else chart.element.setAttribute("aria-busy", "false");
  }
}

function showTiers(chart, answer) {
  say(chart.element.closest("figure").querySelector(".tiers"), `${answer.tiers}${answer.ms === null ? "" : ` · ${answer.ms} ms`}`);
}

async function drawEvents({ start, end }, as_of, signal) {
  const answer = await get("timeseries", { start, end, grain: grain.value, event: eventName.value, as_of }, signal);
  const { value: rows } = answer;
  const title = `${eventName.value || "Events"} by ${grain.value}`;
  say(byId("events-title"), eventName.value ? `“${eventName.value}” by ${grain.value}` : title);
  showTiers(events, answer);
  if (!rows.some((row) => row.value)) return events.message(eventName.value ? `No event of this name in this range. Names are case sensitive.` : "No events in this range");
  const times = rows.map((row) => row.time);
  events.show({ times, series: [{ name: "events", values: rows.map((row) => row.value), bars: rows.length <= 400 }], grain: grain.value, title });
}

async function drawPeople(as_of, signal) {
  const window = { start: from.value, end: to.value, as_of };
  const [daily, weekly, monthly] = await Promise.all(["dau", "wau", "mau"].map((measure) => get(measure, window, signal)));
  showTiers(people, { tiers: daily.tiers, ms: Math.round((daily.ms + weekly.ms + monthly.ms) * 10) / 10 });
  if (!monthly.value.some((row) => row.mau)) return people.message("No people in this range");
  const series = [
    { name: "daily", about: "People with an event that day", values: daily.value.map((row) => row.dau) },
    { name: "weekly", about: "In the seven days that end there", values: weekly.value.map((row) => row.wau) },
    { name: "monthly", about: "In the thirty days that end there", values: monthly.value.map((row) => row.mau) },
  ];
  people.show({ times: daily.value.map((row) => row.date), series, grain: "day", title: "Active people by day" });
}
