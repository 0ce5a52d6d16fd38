// A chart of times or numbers, with a table of the same data below. Drawn by uPlot, which sets styles by script only.

import { make, table } from "./dom.js";
import { bucket, compact, number } from "./format.js";

const HEIGHT = 240;
const MAX_ROWS = 500;
const WHOLE = Array.from({ length: 15 }, (_, power) => [1, 2, 5].map((factor) => factor * 10 ** power)).flat(); // steps of counts
const DASHES = [[], [8, 4], [2, 3]]; // lines differ by more than their colour

const colour = (token) => getComputedStyle(document.documentElement).getPropertyValue(token).trim();
const charts = new Set();

/** Redraw all charts in the colours of the theme. */
export function redraw() {
  for (const chart of charts) chart.draw();
}

export class Chart {
  constructor(element) {
    this.element = element;
    this.data = null;
    charts.add(this);
    this.width = 0;
    new ResizeObserver(() => {
      const width = element.clientWidth;
      if (width && width !== this.width) this.draw();
    }).observe(element);
  }

  /**
   * @param times of the buckets, ISO text; or `labels`, one for each
   * @param series `{ name, values, bars }`, at most three
   */
  show({ times, labels, series, grain = "day", title }) {
    const form = JSON.stringify([Boolean(labels), series.map(({ name, bars, values }) => [name, bars, hasDots(values)])]);
    const fits = this.plot && this.form === form && !labels;
    this.form = form;
    this.data = { times, labels, series, grain, title };
    if (fits) this.#renew();
    else this.draw();
  }

  /** New numbers in the same chart: the cursor and the open table stay. */
  #renew() {
    this.element.setAttribute("aria-busy", "false");
    this.canvas.setAttribute("aria-label", this.#words());
    this.plot.setData(this.#columns());
    const old = this.rest.querySelector("tbody");
    if (old) old.replaceWith(this.#table().querySelector("tbody"));
  }

  /** A message instead of a chart. */
  message(text, className = "none") {
    this.#clear();
    this.data = null;
    this.element.setAttribute("aria-busy", "false");
    this.element.replaceChildren(make("p", { class: className }, text));
  }

  /** The data is being loaded. The old chart stays until then. */
  wait() {
    this.element.setAttribute("aria-busy", "true");
    if (!this.element.firstChild) this.element.replaceChildren(make("div", { class: "skeleton" }));
  }

  #clear() {
    this.plot?.destroy();
    this.plot = null;
  }

  draw() {
    if (!this.data) return;
    const open = this.element.querySelector("details")?.open ?? false;
    this.#clear();
    this.width = this.element.clientWidth;
    this.element.setAttribute("aria-busy", "false");
    const canvas = (this.canvas = make("div", { role: "img", "aria-label": this.#words() }));
    const readout = make("p", { class: "readout", "aria-hidden": "true" });
    const rest = (this.rest = make("details", {}, make("summary", {}, "As a table")));
    const fill = () => rest.open && rest.children.length < 2 && rest.append(this.#table());
    rest.addEventListener("toggle", fill);
    rest.open = open;
    this.element.replaceChildren(this.#legend(), canvas, readout, rest);
    fill();
    if (this.width) this.plot = new uPlot(this.#options(readout), this.#columns(), canvas);
  }

  #columns() {
    const { times, labels, series } = this.data;
    const x = labels ? labels.map((_, at) => at) : times.map((time) => Date.parse(time) / 1000);
    return [x, ...series.map(({ values }) => values)];
  }

  #label(at) {
    const { times, labels, grain } = this.data;
    return labels ? labels[at] : bucket(times[at], grain);
  }

  #options(readout) {
    const { labels, series } = this.data;
    const line = colour("--line");
    const axis = { stroke: colour("--muted"), grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: "12px system-ui, sans-serif" };
    const whole = series.every(({ values }) => values.every((value) => value === null || Number.isInteger(value)));
    const named = (_, ticks) => ticks.map((at) => (Number.isInteger(at) && labels[at] !== undefined ? String(labels[at]).slice(0, 14) : ""));
    return {
      width: this.width,
      height: HEIGHT,
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      padding: [8, 12, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
      scales: { x: { time: !labels, range: padded }, y: { range: (_, low, high) => [Math.min(0, low ?? 0), high > 0 ? high * 1.08 : 1] } },
      axes: [
        { ...axis, size: 42, grid: { show: false }, ...(labels ? { values: named } : { values: dates }) },
        { ...axis, size: 52, values: (_, ticks) => ticks.map(ticks.every(Number.isInteger) ? compact : number), ...(whole ? { incrs: WHOLE } : {}) },
      ],
      series: [{}, ...series.map(({ bars }, at) => this.#stroke(bars, at))],
      hooks: { setCursor: [(plot) => { readout.textContent = plot.cursor.idx === null || plot.cursor.idx === undefined ? "" : this.#read(plot.cursor.idx); }] },
    };
  }

  #stroke(bars, at) {
    const stroke = colour(`--series-${at + 1}`);
    if (!bars) return { stroke, width: 2, dash: DASHES[at], points: { show: hasDots(this.data.series[at].values), size: 6, fill: stroke } };
    return { stroke, width: 0, fill: stroke, paths: uPlot.paths.bars({ size: [0.72, 48], radius: 0.12 }), points: { show: false } };
  }

  #read(at) {
    return `${this.#label(at)}: ${this.data.series.map(({ name, values }) => `${number(values[at])} ${name}`).join(" · ")}`;
  }

  #legend() {
    const { series } = this.data;
    if (series.length < 2) return "";
    return make("ul", { class: "legend" }, ...series.map(({ name, about }, at) =>
      make("li", { title: about }, make("span", { class: `swatch swatch-${at + 1}`, "aria-hidden": "true" }), name)));
  }

  #words() {
    const { series, title } = this.data;
    const count = series[0].values.length;
    const summaries = series.map(({ name, values }) => {
      const known = values.filter((value) => value !== null);
      const maximum = known.length ? Math.max(...known) : 0;
      return `${name}: latest ${number(values.at(-1))}, most ${number(maximum)}${known.length ? ` (${this.#label(values.indexOf(maximum))})` : ""}`;
    });
    return `${title}, ${this.#label(0)} to ${this.#label(count - 1)}. ${summaries.join(". ")}`;
  }

  #table() {
    const { series, title } = this.data;
    const count = series[0].values.length;
    const rows = [];
    for (let at = count - 1; at >= Math.max(0, count - MAX_ROWS); at--) rows.push([this.#label(at), ...series.map(({ values }) => number(values[at]))]);
    const columns = [{ name: this.data.labels ? "" : "UTC" }, ...series.map(({ name }) => ({ name, number: true }))];
    const note = count > MAX_ROWS ? make("p", { class: "hint" }, `The latest ${MAX_ROWS} of ${count} rows`) : "";
    return make("div", { class: "scroll low", tabindex: "0", role: "region", "aria-label": title }, table(columns, rows, { label: title }), note);
  }
}

/** Whether a value has no neighbour, so that a line would not show it. */
const hasDots = (values) => values.length < 3 || values.some((value, at) => value !== null && (values[at - 1] ?? values[at + 1] ?? null) === null);

/** Half a bucket of space at both ends, so that the outermost bars are whole. */
function padded(plot, low, high) {
  const count = plot.data[0].length;
  const half = count > 1 ? (high - low) / (count - 1) / 2 : low > 1e6 ? 43_200 : 0.5;
  return [low - half, high + half];
}

/** Tick texts: the time of day within a day, else the date; the year where it changes. */
function dates(_, ticks) {
  const step = ticks.length > 1 ? ticks[1] - ticks[0] : 86_400;
  let year = null;
  return ticks.map((tick) => {
    const at = new Date(tick * 1000);
    const midnight = at.getUTCHours() === 0 && at.getUTCMinutes() === 0;
    const format = step < 86_400 && !midnight ? { hour: "2-digit", minute: "2-digit", hourCycle: "h23" } : step < 27 * 86_400 ? { day: "numeric", month: "short" } : { month: "short" };
    const text = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", ...format }).format(at);
    const added = year !== at.getUTCFullYear() && (year !== null || step >= 27 * 86_400) ? `\n${at.getUTCFullYear()}` : "";
    year = at.getUTCFullYear();
    return text + added;
  });
}
