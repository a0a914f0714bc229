/**
 * Whether claims are stuck: work waits, workers ask, and nothing is claimed. A pure decision over what was seen.
 *
 *   well ──stuck for a window──▶ recycle ──stuck for another──▶ end
 *    ▲                              │
 *    └───── something is claimed ◀──┘
 *
 * Redis away, a queue that is paused or empty, nobody who asks, and a process that stood still all prove nothing: the
 * time that counts begins anew.
 */

/** What was seen of one queue at one moment. */
export interface QueueSight {
  readonly queue: string
  /** Ready to be claimed, by Redis' own count; 0 when paused. */
  readonly waiting: number
  /** A worker asked of late, or stands in line. */
  readonly isAsked: boolean
  /** Jobs that this node has handed out, ever. */
  readonly claimedCount: number
}

/** `undefined`: Redis did not answer, or would take no write. */
export type Sight = readonly QueueSight[] | undefined

export interface Suspicion {
  /** When the latest sight was taken. */
  readonly seenAt: number
  /** By queue: since when it is stuck, and what had been claimed until then. */
  readonly queues: ReadonlyMap<string, { readonly claimedCount: number; readonly stuckSince: number | undefined }>
  /** By queue: when the connections were recycled for it, as long as that has not helped. */
  readonly recycledFor: ReadonlyMap<string, number>
}

export interface Verdict {
  readonly suspicion: Suspicion
  readonly action: 'none' | 'recycle' | 'end'
  /** The queue that is stuck, and for how long. */
  readonly queue?: string
  readonly stuckMs?: number
}

export const noSuspicion: Suspicion = { seenAt: 0, queues: new Map(), recycledFor: new Map() }

/**
 * @param windowMs how long a queue must be stuck
 * @param now in ms since the epoch, growing from call to call
 */
export function judge(before: Suspicion, sight: Sight, windowMs: number, now: number): Verdict {
  // Nobody looked for long: what happened meanwhile is not known.
  const wasAsleep = now - before.seenAt > windowMs / 2
  if (sight === undefined || wasAsleep)
    return { suspicion: { ...noSuspicion, recycledFor: before.recycledFor, seenAt: now }, action: 'none' }
  const queues = new Map<string, { claimedCount: number; stuckSince: number | undefined }>()
  const recycledFor = new Map(before.recycledFor)
  for (const { queue, waiting, isAsked, claimedCount } of sight) {
    const known = before.queues.get(queue)
    const isStill = known !== undefined && known.claimedCount === claimedCount
    const isStuck = waiting > 0 && isAsked && isStill
    if (waiting === 0 || (known !== undefined && !isStill)) recycledFor.delete(queue)
    queues.set(queue, { claimedCount, stuckSince: isStuck ? (known.stuckSince ?? now) : undefined })
  }
  const suspicion = { seenAt: now, queues, recycledFor }
  for (const [queue, { claimedCount, stuckSince }] of queues) {
    if (stuckSince === undefined || now - stuckSince < windowMs) continue
    const found = { queue, stuckMs: now - stuckSince }
    if (recycledFor.has(queue)) return { ...found, suspicion, action: 'end' }
    recycledFor.set(queue, now)
    queues.set(queue, { claimedCount, stuckSince: now })
    return { ...found, suspicion, action: 'recycle' }
  }
  return { suspicion, action: 'none' }
}
