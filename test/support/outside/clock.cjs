/** `node --require clock.cjs`: the wall clock is CLOCK_BY ms off from CLOCK_AT ms after the start; `performance.now` is not. */
const at = performance.now() + Number(process.env.CLOCK_AT ?? 0);
const by = Number(process.env.CLOCK_BY ?? 0);
const Real = Date;
const shifted = () => Real.now() + (performance.now() >= at ? by : 0);

globalThis.Date = class Shifted extends Real {
  constructor(...parts) {
    if (parts.length === 0) super(shifted());
    else super(...parts);
  }

  static now() {
    return shifted();
  }
};
