// Formatted numbers and times. Times are UTC.

const whole = new Intl.NumberFormat("en-US");
const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
const fraction = new Intl.NumberFormat("en-US", { maximumFractionDigits: 2 });

export const number = (value) => (value === null || value === undefined ? "–" : Number.isInteger(value) ? whole.format(value) : fraction.format(value));
export const compact = (value) => short.format(value);

export const counted = (count, singular, plural = `${singular}s`) => `${number(count)} ${count === 1 ? singular : plural}`;

/** A share of 1. A share that rounds to 0% or 100% without being it is `<0.1%` or `>99.9%`. */
export function percent(share) {
  if (share === null || share === undefined) return "–";
  const text = (100 * share).toFixed(1).replace(".0", "");
  return text === "0" && share > 0 ? "<0.1%" : text === "100" && share < 1 ? ">99.9%" : `${text}%`;
}

const SPANS = [[86_400, "d"], [3_600, "h"], [60, "min"], [1, "s"]];

/** A duration in its largest unit. */
export function span(seconds) {
  const [size, unit] = SPANS.find(([size]) => seconds >= size) ?? [0.001, "ms"];
  return `${number(Math.round((10 * seconds) / size) / 10)} ${unit}`;
}

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  const units = ["B", "KB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  for (; count >= 1000 && unit < units.length - 1; unit++) count /= 1000;
  return `${unit && count < 100 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

const format = (options) => new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", hourCycle: "h23", ...options });
const clock = format({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minute = format({ day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });
const day = format({ day: "numeric", month: "short", year: "numeric" });
const month = format({ month: "short", year: "numeric" });

export const time = (value) => clock.format(new Date(value));
export const moment = (value) => minute.format(new Date(value));
export const date = (value) => day.format(new Date(value));

/** The label of a bucket of a series. */
export const bucket = (value, grain) => (grain === "minute" || grain === "hour" ? minute : grain === "month" ? month : day).format(new Date(value));

/** Milliseconds of a period; of a month approximately. */
export const STEP = { minute: 60_000, hour: 3_600_000, day: 86_400_000, week: 604_800_000, month: 2_592_000_000 };

/** The start of the period that comes `count` after the one that starts at `time`, in milliseconds. */
export function later(time, grain, count) {
  if (grain !== "month") return time + count * STEP[grain];
  const from = new Date(time);
  return Date.UTC(from.getUTCFullYear(), from.getUTCMonth() + count);
}

/** The day of a time, in the format of a date field. */
export const isoDay = (value) => new Date(value).toISOString().slice(0, 10);
