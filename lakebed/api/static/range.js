// The range of days in a form: presets, two dates, or all days that have events.

import { isoDay, STEP } from "./format.js";

export class Range {
  /**
   * @param fields `preset`, `from` and `to`
   * @param fit function that is called with the step that fits a preset
   */
  constructor({ preset, from, to }, fit) {
    Object.assign(this, { preset, from, to, fit, first: null, last: null, isSelected: false });
    this.renew();
    fit(this.step);
  }

  /** Handles a change of `field`. */
  changed(field) {
    if (![this.preset, this.from, this.to].includes(field)) return;
    this.isSelected = true;
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

  /** The step that fits the length of the range. */
  get step() {
    const days = (Date.parse(this.to.value) - Date.parse(this.from.value)) / STEP.day;
    return days > 1100 ? "month" : days > 180 ? "week" : days > 2 ? "day" : "hour";
  }

  /**
   * Sets the first and last day that have events, when they are known; returns whether the range has changed. If the
   * last thirty days are empty and the user did not select them, the range becomes all days.
   */
  days(first, last) {
    const isEmpty = this.last === null && last !== null && this.preset.value === "30" && last < this.from.value && !this.isSelected;
    Object.assign(this, { first, last });
    if (isEmpty) this.preset.value = "all";
    if (this.preset.value !== "all" || first === null || !(isEmpty || first < this.from.value)) return false;
    this.renew();
    this.fit(this.step);
    return true;
  }

  /** `{ start, end }`, or the text of an error. */
  get value() {
    const { preset, from, to } = this;
    if (!from.value || !to.value) return "Choose both days";
    if (from.value > to.value) return "The first day lies after the last";
    const last = Date.parse(to.value) + STEP.day;
    const end = preset.value === "1" ? Math.ceil(Date.now() / STEP.hour) * STEP.hour : last;
    return { start: new Date(preset.value === "1" ? end - STEP.day : Date.parse(from.value)).toISOString(), end: new Date(end).toISOString() };
  }
}
