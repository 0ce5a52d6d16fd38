// Numbers and times, as all parts of the page show them. Times are UTC.

const whole = new Intl.NumberFormat("en-US");
const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
const some = new Intl.NumberFormat("en-US", { maximumFractionDigits: 2 });

export const number = (value) => (value === null || value === undefined ? "–" : Number.isInteger(value) ? whole.format(value) : some.format(value));
export const compact = (value) => short.format(value);

export const counted = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  const units = ["B", "KB", "MB", "GB", "TB", "PB"];
  let at = 0;
  for (; count >= 1000 && at < units.length - 1; at++) count /= 1000;
  return `${at && count < 100 ? count.toFixed(1) : Math.round(count)} ${units[at]}`;
}

const format = (options) => new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", hourCycle: "h23", ...options });
const clock = format({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minute = format({ day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });
const day = format({ day: "numeric", month: "short", year: "numeric" });
const month = format({ month: "short", year: "numeric" });

export const time = (value) => clock.format(new Date(value));
export const moment = (value) => minute.format(new Date(value));
export const date = (value) => day.format(new Date(value));

/** A bucket of a series, in words. */
export const bucket = (value, grain) => (grain === "minute" || grain === "hour" ? minute : grain === "month" ? month : day).format(new Date(value));

/** The day of a time, as a date field has it. */
export const isoDay = (value) => new Date(value).toISOString().slice(0, 10);
