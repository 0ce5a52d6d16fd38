// A SELECT, with its rows as a table, and as a chart if they have numbers.

import { byId, make, name, oneOf, say, show, table } from "./dom.js";
import { Chart } from "./chart.js";
import { counted, number } from "./format.js";
import { Failure, send } from "./server.js";

const LIMIT = 1000;
const EXAMPLES = [
  ["Events by name", "SELECT event, count(*) AS events, count(DISTINCT person_id) AS people\nFROM events GROUP BY event ORDER BY events DESC LIMIT 20"],
  ["Events by day", "SELECT date_trunc('day', timestamp) AS day, count(*) AS events\nFROM events GROUP BY day ORDER BY day"],
  ["Busiest people", "SELECT person_id, count(*) AS events, max(timestamp) AS last_seen\nFROM events WHERE person_id IS NOT NULL GROUP BY person_id ORDER BY events DESC LIMIT 20"],
  ["Newest events, with properties", "SELECT seq, timestamp, event, user_id, properties\nFROM events ORDER BY seq DESC LIMIT 50"],
  ["Revenue by day", "SELECT date_trunc('day', timestamp) AS day, sum(CAST(properties ->> 'revenue' AS DOUBLE)) AS revenue\nFROM events GROUP BY day ORDER BY day"],
];
const NUMBER = /^(U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|U?INTEGER|FLOAT|DOUBLE|REAL|DECIMAL.*|u?int\d+|float|double|halffloat|decimal.*)$/i;
const TIME = /^(DATE|TIME ?STAMP|TIMESTAMP.*|date\d*.*)/i;

const form = byId("sql").querySelector("form");
const statement = byId("statement");
const chart = new Chart(byId("sql-chart"));
let running = null;
let last = null;

export function start() {
  byId("examples").append(make("option", { value: "" }, "Examples"), ...EXAMPLES.map(([title], at) => make("option", { value: at }, title)));
  byId("examples").addEventListener("change", ({ target }) => {
    if (target.value === "") return;
    statement.value = EXAMPLES[target.value][1];
    target.value = "";
    statement.focus();
  });
  statement.value = EXAMPLES[0][1];
  statement.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      run();
    }
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  byId("sql-stop").addEventListener("click", () => running?.abort());
  oneOf([byId("as-table"), byId("as-chart")], (id) => draw(id));
}

async function run() {
  running?.abort();
  const mine = (running = new AbortController());
  show(byId("sql-stop"), true);
  show(byId("sql-error"), false);
  say(byId("sql-status"), "Running …");
  byId("sql-result").setAttribute("aria-busy", "true");
  const began = performance.now();
  try {
    const answer = await send("POST", "query", { sql: statement.value, limit: LIMIT }, mine.signal);
    const rows = answer.rows.map((row) => (Array.isArray(row) ? row : answer.columns.map((column) => row[column.name])));
    last = { columns: answer.columns, rows };
    const ms = answer.ms ?? performance.now() - began;
    const from = answer.tiers?.length ? ` from ${answer.tiers.join(" + ")}` : "";
    const cut = rows.length >= LIMIT ? ` (the first ${number(LIMIT)})` : "";
    say(byId("sql-status"), `${counted(rows.length, "row")}${cut}${from} in ${number(Math.round(ms * 10) / 10)} ms`);
    draw(byId("as-chart").getAttribute("aria-pressed") === "true" ? "as-chart" : "as-table");
    show(byId("sql-result"), true);
  } catch (error) {
    say(byId("sql-status"), error.name === "AbortError" ? "Stopped" : "");
    if (error.name !== "AbortError" && running === mine) fail(error);
  } finally {
    if (running === mine) {
      show(byId("sql-stop"), false);
      byId("sql-result").setAttribute("aria-busy", "false");
    }
  }
}

function fail(error) {
  const message = error instanceof Failure && error.absent ? "SQL is not available on this server." : error.empty ? "There are no events to ask yet." : error.message;
  byId("sql-error").textContent = message;
  show(byId("sql-error"), true);
  show(byId("sql-result"), false);
}

const isNumber = (column, at, rows) => NUMBER.test(column.type ?? "") || (rows.length > 0 && rows.every((row) => row[at] === null || typeof row[at] === "number"));

/** A number with all its digits, those before the point in groups. */
const grouped = (text) => (/^-?\d+(\.\d+)?$/.test(text) ? text.replace(/^-?\d+/, (whole) => whole.replace(/\B(?=(\d{3})+$)/g, ",")) : text);

function cell(value, column) {
  if (value === null || value === undefined) return make("i", { class: "kind" }, "null");
  if (typeof value === "number" || (typeof value === "string" && NUMBER.test(column.type ?? ""))) return grouped(String(value));
  if (typeof value === "object") return name(JSON.stringify(value));
  return name(String(value));
}

function draw(view) {
  if (!last) return;
  const { columns, rows } = last;
  show(byId("sql-table"), view === "as-table");
  show(byId("sql-chart"), view === "as-chart");
  if (view === "as-chart") return drawChart(columns, rows);
  const shown = columns.map((column, at) => ({ name: column.name, number: isNumber(column, at, rows) }));
  byId("sql-table").replaceChildren(rows.length ? table(shown, rows.map((row) => row.map((value, at) => cell(value, columns[at]))), { label: "Result" }) : make("p", { class: "none" }, "No rows"));
}

/** The first column without numbers is the x axis; up to three columns with numbers are drawn. */
function drawChart(columns, rows) {
  const numbers = columns.map((column, at) => at).filter((at) => isNumber(columns[at], at, rows));
  const x = columns.findIndex((_, at) => !numbers.includes(at));
  const drawn = numbers.filter((at) => at !== x).slice(0, 3);
  if (!rows.length || !drawn.length) return chart.message(rows.length ? "A chart needs a column of numbers" : "No rows");
  const isTime = x >= 0 && rows.every((row) => typeof row[x] === "string" && /^\d{4}-\d\d-\d\d/.test(row[x])) && (TIME.test(columns[x].type ?? "") || !columns[x].type);
  const ordered = isTime ? [...rows].sort((one, other) => Date.parse(one[x]) - Date.parse(other[x])) : rows;
  const series = drawn.map((at) => ({ name: columns[at].name, values: ordered.map((row) => (row[at] === null ? null : Number(row[at]))), bars: drawn.length === 1 && rows.length <= 400 }));
  const labels = isTime ? null : ordered.map((row, at) => (x < 0 ? String(at + 1) : String(row[x])));
  chart.show({ times: isTime ? ordered.map((row) => zoned(row[x])) : null, labels, series, grain: isTime && ordered.some((row) => /T(?!00:00:00)/.test(row[x])) ? "hour" : "day", title: "Result" });
}

/** A time without a zone is UTC, not the browser's. */
const zoned = (text) => (/T.*(Z|[+-]\d\d:?\d\d)$/.test(text) || text.length <= 10 ? text : `${text}Z`);
