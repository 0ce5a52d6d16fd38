// Reports: one at a time, with its form, its address and its result.

import { byId, make, oneOf, say, show } from "./dom.js";
import { date, moment, number, time } from "./format.js";
import { Range } from "./range.js";
import { pause, send } from "./server.js";

const SETTLES_MS = 150;

const section = byId("reports");
const form = section.querySelector("form");
const run = form.querySelector("button");
const shown = byId("report");
const note = byId("report-note");
const buttons = [...section.querySelectorAll(".switch button")];
const { preset, from, to, as_of: asOf, where } = form.elements;
const address = new URLSearchParams(location.search); // the report and arguments that the page was opened with
const views = {}; // the opened reports by name: their fields, and the function that runs them

let view = "funnel";
let eventNames = null; // the most frequent first; null before the first event
let isWanted = false;
let running = 0;
let leftAt = 0;
let under = new AbortController();

const range = new Range({ preset, from, to }, (step) => fit(views[view]?.fields, step));

export function start() {
  oneOf(buttons, (id) => {
    view = id.slice(3);
    isWanted = true;
    begin();
    shown.replaceChildren();
    open().then(remember);
  });
  form.addEventListener("change", ({ target }) => {
    range.changed(target);
    remember();
    ask();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    range.renew();
    ask();
  });
  run.addEventListener("click", () => run.type === "button" && under.abort());
  const button = byId(`as-${address.get("report")}`);
  if (buttons.includes(button)) {
    view = address.get("report");
    for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
    fill(form.elements);
    range.isSelected = true;
    range.renew();
    isWanted = true;
  }
  new IntersectionObserver(([{ isIntersecting }], observer) => {
    if (!isIntersecting) return;
    observer.disconnect();
    if (!isWanted) open();
    isWanted = true;
  }).observe(section);
}

/** Sets the names of events, the most frequent first. Before the first event no report is run. */
export function names(values) {
  const isFirst = !eventNames;
  eventNames = values;
  if (!isFirst || !isWanted) return;
  open();
  if (address.has("report") && performance.getEntriesByType("navigation")[0]?.type === "navigate") section.scrollIntoView();
}

/** Sets the first and last day that have events. */
export function days(first, last) {
  if (range.days(first, last) && views[view]) ask();
}

/** Shows that no event was ever stored. */
export function empty(is) {
  if (is) showResult("No events yet");
}

async function open() {
  if (!eventNames) return;
  const wanted = view;
  wait();
  let report;
  try {
    report = await import(`./${wanted}.js`);
  } catch {
    if (wanted === view) showResult(failure("The server does not answer. Reload the page."));
    return;
  }
  if (wanted !== view) return;
  views[view] ??= viewOf(report);
  for (const [name, { fields }] of Object.entries(views)) {
    show(fields, name === view);
    fields.disabled = name !== view; // disabled fields are not part of the form's data
  }
  await ask();
}

/** The fields of a report, with the values in the address. */
function viewOf({ controls, answer }) {
  const fields = make("fieldset", { "aria-label": byId(`as-${view}`).textContent }, ...controls(eventNames, address.getAll("step")));
  form.prepend(fields);
  fit(fields, range.step);
  if (address.get("report") === view) fill(fields.elements);
  return { answer, fields };
}

/** Cancels the running report before the next. The server takes a moment to stop it, too. */
function begin() {
  if (running) leftAt = Date.now();
  under.abort();
  under = new AbortController();
  return under.signal;
}

async function ask() {
  const signal = begin();
  if (!views[view]) return;
  const wrong = form.querySelector("input:invalid");
  const days = wrong ? `${wrong.parentElement.firstChild.data}: ${wrong.validationMessage}` : range.value;
  if (typeof days === "string") return showResult(days);
  wait();
  const shared = { ...days, as_of: asOf.value ? `${asOf.value}Z` : null, where: where.value || null };
  const tiers = new Set();
  let ms = 0;
  const post = async (report, own) => {
    const { columns, rows, ...about } = await sendWhenFree(report, { ...shared, ...own }, signal);
    for (const tier of about.tiers) tiers.add(tier);
    ms += about.ms;
    return rows.map((row) => Object.fromEntries(row.map((value, at) => [columns[at].name, value])));
  };
  running++;
  try {
    if (Date.now() - leftAt < SETTLES_MS) await pause(SETTLES_MS, signal);
    signal.throwIfAborted();
    const now = Math.min(Date.now(), shared.as_of ? Date.parse(shared.as_of) : Infinity);
    const answer = await views[view].answer(new FormData(form), post, { ...shared, now });
    if (signal.aborted) return;
    showResult(answer);
    const asOfText = shared.as_of ? moment(shared.as_of) : time(now);
    say(note, `${date(days.start)} to ${date(Date.parse(days.end) - 1)}, as of ${asOfText} UTC · ${[...tiers].sort().join(", ")} · ${number(Math.round(ms))} ms`);
  } catch (error) {
    if (under.signal !== signal) return;
    if (signal.aborted) showResult("Stopped");
    else showResult(failure(error.message));
  } finally {
    running--;
  }
}

/** Sends a request, and again a little later if the limit of running queries is reached. */
async function sendWhenFree(report, body, signal, attempts = 3) {
  try {
    return await send("POST", `reports/${report}`, body, signal);
  } catch (error) {
    if (error.code !== "QUERY_BUSY" || !attempts) throw error;
    await pause(1000 * (error.retryAfter ?? 1), signal);
    return sendWhenFree(report, body, signal, attempts - 1);
  }
}

const failure = (text) => make("p", { class: "error", role: "alert" }, text);

function busy(is) {
  shown.setAttribute("aria-busy", String(is));
  run.type = is ? "button" : "submit"; // Enter in a field must not click "Stop"
  say(run, is ? "Stop" : "Run");
}

function wait() {
  busy(true);
  if (!shown.firstChild) shown.replaceChildren(make("div", { class: "card" }, make("div", { class: "skeleton" })));
}

/** Shows a result, or a text. */
function showResult(result) {
  busy(false);
  say(note, "");
  shown.replaceChildren(typeof result === "string" ? make("p", { class: "card none" }, result) : result);
}

function fit(fields, step) {
  const grain = fields?.elements.grain;
  if (grain) grain.value = step;
}

/** Writes the values of the form into the address. */
function remember() {
  const values = [...new FormData(form)].filter(([name, value]) => value && (preset.value === "custom" || (name !== "from" && name !== "to")));
  history.replaceState(null, "", `?${new URLSearchParams([["report", view], ...values])}${location.hash}`);
}

/** Writes the values in the address into the form. Invalid values are ignored. */
function fill(controls) {
  for (const control of controls) {
    const [value, ...more] = address.getAll(control.name);
    if (value === undefined || more.length) continue;
    const before = control.value;
    if (control.type === "checkbox") control.checked = true;
    else control.value = value;
    if (!control.value) control.value = before;
  }
}
