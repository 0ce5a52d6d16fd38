// Performance: the number of requests, their durations, and the failed ones.

import { Chart } from "./chart.js";
import { field, input, make, name, select, table } from "./dom.js";
import { later, moment, number, percent, STEP } from "./format.js";

const MAX_ROWS = 50;
const MAX_FAILURES = 10_000; // of the report; more kinds are not expected
const MAX_POINTS = 5000;
const CHARTS = [
  ["Requests", { count: "requests", errors: "failed" }],
  ["Milliseconds", { p50_ms: "median", p95_ms: "95%", p99_ms: "99%" }],
  ["Failed, % of requests", { error_rate: "%" }],
  ["Apdex", { apdex: "apdex" }],
];
const ROUTE = [{ name: "Route" }, ...["Requests", "Failed", "Median", "95%", "99%", "Apdex"].map((title) => ({ name: title, number: true }))];
const FAILED = [{ name: "Status" }, { name: "Route" }, { name: "Exception" }, { name: "Failed", number: true }, { name: "Share", number: true }, { name: "People", number: true }, { name: "Last (UTC)", number: true }];

const tiles = make("div", { class: "tiles" });
const charts = CHARTS.map(([title, columns]) => ({ title, columns, chart: new Chart(make("div", { class: "chart" })) }));
const routes = make("div", { class: "card" });
const failures = make("div", { class: "card" });
const root = make("div", {}, tiles,
  make("div", { class: "pair" }, ...charts.map(({ title, chart }) => make("figure", { class: "card" }, make("figcaption", {}, make("h3", {}, title)), chart.element))), routes, failures);

export const controls = () => [
  field("By", select("grain", { minute: "minute", hour: "hour", day: "day", week: "week", month: "month" })),
  field("Route", input("path", { placeholder: "all routes" }), "grow"),
  field("Satisfied up to, ms", input("threshold_ms", { type: "number", min: 1, value: 500, required: true })),
  field("Failed from status", select("errors_from", { 400: "400", 500: "500" })),
];

export async function answer(values, post, { start, end, now, where }) {
  const grain = values.get("grain");
  const path = values.get("path") || null;
  const errors_from = Number(values.get("errors_from"));
  const threshold_ms = Number(values.get("threshold_ms"));
  if ((Date.parse(end) - Date.parse(start)) / STEP[grain] > MAX_POINTS) return `That would be more than ${MAX_POINTS} points: choose a longer step or fewer days`;
  const query = { path, errors_from, threshold_ms };
  const [whole] = await post("performance", { ...query, grain: null });
  if (!whole) return none(path);
  const rows = await post("performance", { ...query, grain });
  const byRoute = await post("performance", { ...query, grain: null, by: ["method", "path"] });
  const conditions = [...(where ? [`(\n${where}\n)`] : []), ...(path ? [`path = '${path.replaceAll("'", "''")}'`] : [])];
  const failed = await post("errors", { errors_from, by: ["status_code", "method", "path", "error"], limit: MAX_FAILURES, where: conditions.join(" AND ") || null });
  tiles.replaceChildren(
    tile("Requests", number(whole.count), `${number(whole.errors)} failed`),
    tile("Error rate", percent(whole.error_rate), `status ${errors_from} and above`),
    tile("Apdex", number(whole.apdex), `satisfied up to ${number(threshold_ms)} ms`),
    tile("Median", ms(whole.p50_ms), `95%: ${ms(whole.p95_ms)} · 99%: ${ms(whole.p99_ms)}`),
  );
  const series = filled(rows, grain, Date.parse(start), Math.min(now, Date.parse(end)));
  for (const { title, columns, chart } of charts) drawChart(chart, title, columns, series, grain);
  listed(routes, "Routes", ROUTE, byRoute.map((row) => [route(row), number(row.count), percent(row.error_rate), ms(row.p50_ms), ms(row.p95_ms), ms(row.p99_ms), number(row.apdex)]));
  listed(failures, "What failed", FAILED, failed.map((row) => [String(row.status_code), route(row), row.error === null ? "" : name(row.error), number(row.errors), percent(row.share), number(row.people), moment(row.last)]));
  return root;
}

function drawChart(chart, title, columns, rows, grain) {
  const drawn = Object.entries(columns).map(([column, words]) => ({
    name: words,
    values: rows.map((row) => (column === "error_rate" ? row[column] && 100 * row[column] : row[column])),
    bars: column === "count" || column === "errors",
  }));
  chart.show({ times: rows.map(({ time }) => time), series: drawn, grain, title: `${title} by ${grain}` });
}

/** A row for each period of the range. A period without requests has no durations, so that the line is interrupted. */
function filled(rows, grain, start, until) {
  const rowOf = new Map(rows.map((row) => [Date.parse(row.time), row]));
  const [first, last] = [Date.parse(rows[0].time), Date.parse(rows.at(-1).time)];
  let at = 0;
  while (later(first, grain, at) > start) at--;
  const periods = [];
  for (let time; (time = later(first, grain, at)) < until || time <= last; at++) {
    periods.push(rowOf.get(time) ?? { time: new Date(time).toISOString(), count: 0, errors: 0, p50_ms: null, p95_ms: null, p99_ms: null, error_rate: null, apdex: null });
  }
  return periods;
}

const ms = (value) => (value === null ? "–" : `${number(value)} ms`);
const route = ({ method, path }) => name(`${method ?? ""} ${path ?? "(no route)"}`.trim());
const tile = (title, big, hint) => make("div", { class: "card tile" }, make("h3", {}, title), make("p", { class: "big" }, big), make("p", { class: "hint" }, hint));

function listed(place, title, columns, rows) {
  const cut = rows.length > MAX_ROWS ? make("p", { class: "hint" }, `The first ${MAX_ROWS} of ${number(rows.length)}`) : "";
  place.replaceChildren(make("h3", {}, title), rows.length
    ? make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, table(columns, rows.slice(0, MAX_ROWS), { label: title }))
    : make("p", { class: "none" }, "None"), cut);
}

function none(path) {
  if (path) return `No request to “${path}” in this range. A route is written as it was declared: /orders/{id}`;
  return make("div", { class: "card" }, make("h3", {}, "No requests in this range"),
    make("p", { class: "hint" }, "Wrap an ASGI app, such as one of FastAPI or Starlette, and each of its requests is recorded:"),
    make("pre", { tabindex: "0" }, make("code", {}, "from lakebed import TrackRequests\n\napp = TrackRequests(app, analytics)")),
    make("p", { class: "hint" }, "Or send any event with the properties duration_ms or status_code. docs/asgi-middleware.md says more."));
}
