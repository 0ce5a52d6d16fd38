// A range of days in a form: presets, days of one's own, and the days that have events.

import { isoDay, STEP } from "./format.js";

export class Range {
  /**
   * @param fields `preset`, `from` and `to`
   * @param fit takes the step that fits a preset
   */
  constructor({ preset, from, to }, fit) {
    Object.assign(this, { preset, from, to, fit, first: null, last: null, chosen: false });
    this.renew();
    fit(this.step);
  }

  /** Follows a change of `field`. */
  changed(field) {
    if (![this.preset, this.from, this.to].includes(field)) return;
    this.chosen = true;
    if (field !== this.preset) this.preset.value = "custom";
    this.renew();
    if (this.preset.value !== "custom") this.fit(this.step);
  }

  /** The days of the preset as they are today. */
  renew() {
    if (this.preset.value === "custom") return;
    const today = Date.now();
    const all = this.preset.value === "all";
    this.from.value = (all && this.first) || isoDay(today - ((all ? 30 : Number(this.preset.value)) - 1) * STEP.day);
    this.to.value = (all && this.last) || isoDay(today);
  }

  /** In which it is looked at best. */
  get step() {
    const days = (Date.parse(this.to.value) - Date.parse(this.from.value)) / STEP.day;
    return days > 1100 ? "month" : days > 180 ? "week" : days > 2 ? "day" : "hour";
  }

  /**
   * Takes the days that have events, once they are known; gives whether the range is another now. Where the last thirty
   * are empty, and nobody chose them, it is all days.
   */
  days(first, last) {
    const isEmpty = this.last === null && last !== null && this.preset.value === "30" && last < this.from.value && !this.chosen;
    Object.assign(this, { first, last });
    if (isEmpty) this.preset.value = "all";
    if (this.preset.value !== "all" || first === null || !(isEmpty || first < this.from.value)) return false;
    this.renew();
    this.fit(this.step);
    return true;
  }

  /** `{ start, end }`, or words that say what is wrong. */
  get asked() {
    const { preset, from, to } = this;
    if (!from.value || !to.value) return "Choose both days";
    if (from.value > to.value) return "The first day lies after the last";
    const last = Date.parse(to.value) + STEP.day;
    const end = preset.value === "1" ? Math.ceil(Date.now() / STEP.hour) * STEP.hour : last;
    return { start: new Date(preset.value === "1" ? end - STEP.day : Date.parse(from.value)).toISOString(), end: new Date(end).toISOString() };
  }
}
