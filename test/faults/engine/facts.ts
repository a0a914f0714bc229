/** What clients saw, as it happened: all that the checker judges by. Times in ms of the monotonic clock. */
export type Fact = Accepted | Failed | GivenUp | HandedOut | Acked

/** A PUT was answered 200: from now on the job must not be lost. */
export interface Accepted {
  readonly kind: 'accepted'
  readonly client: string
  /** When the try that was answered was sent, and when its answer was there. */
  readonly sentMs: number
  readonly atMs: number
  readonly workId: string
  /** With an Idempotency-Key: all its Work IDs must be one. */
  readonly key?: string
  readonly expected: string
  /** What the reply's header says was reached. */
  readonly durability: string | undefined
}

/**
 * A call that came to nothing. `refused`: no connection was made, nothing was sent. `cut`: the connection ended under the call.
 * `timeout`: no answer in time. A number: the status of the answer.
 */
export interface Failed {
  readonly kind: 'failed'
  readonly call: 'put' | 'pull' | 'ack'
  readonly client: string
  readonly node: string
  readonly atMs: number
  readonly why: 'refused' | 'cut' | 'timeout' | number
  /** Of the error behind `refused` and `cut`. */
  readonly code?: string
}

/** A PUT that was tried at all nodes until its time was over. Nothing was promised. */
export interface GivenUp {
  readonly kind: 'givenUp'
  readonly client: string
  readonly atMs: number
}

/** The reply of a pull was read to its end. */
export interface HandedOut {
  readonly kind: 'handedOut'
  readonly client: string
  readonly askedMs: number
  readonly atMs: number
  /** Absent: a pull without a lease of the client's own. */
  readonly leaseId?: string
  readonly leaseMs?: number
  /** Work ID and value; the value of a dead job is undefined. */
  readonly results: readonly (readonly [workId: string, value: unknown])[]
}

/** An ack was answered 200, and named these as acked. */
export interface Acked {
  readonly kind: 'acked'
  readonly client: string
  readonly atMs: number
  readonly leaseId: string
  readonly workIds: readonly string[]
}
