/** `node --require`: the wall clock is SHIFTED_CLOCK_MS off, from the start on; what measures durations goes on as it is. */
const byMs = Number(process.env.SHIFTED_CLOCK_MS ?? 0);
const Real = Date;
const now = () => Real.now() + byMs;
globalThis.Date = class extends Real {
  constructor(...given) {
    if (given.length === 0) super(now());
    else super(...given);
  }
  static now() {
    return now();
  }
};
