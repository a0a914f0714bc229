/** The monotonic clock, in ms: the same one in every process of this machine, so that facts from several can be compared. */
export const nowMs = (): number => Number(process.hrtime.bigint() / 1000n) / 1000
