/**
 * One attempt at one job, from the claim until a node has its outcome.
 *
 *   buffered ──▶ sent to a slot ──▶ running ──▶ settled: reported, requeued, or forgotten
 *       ▲              │ recalled, or the slot died before it started
 *       └──────────────┘
 */
import type { AttemptError, Lease, LeaseRef } from '../../contract/worker-protocol.ts'
import { droppedNotice, maxLogLines } from '../protocol/log-lines.ts'

/** Why the agent ends an attempt; what the slot still says about it is then ignored. */
export type EndReason = 'timeout' | 'stopped' | 'requeued' | 'interrupted'

/** What an attempt left behind. */
export type Outcome =
  | { readonly durationMs: number; readonly value: { readonly kind: 'bytes' | 'json'; readonly bytes: Buffer } }
  | { readonly durationMs: number; readonly error: AttemptError }

/**
 * A job fails when its slots ended this often while they received it, before they started it, or because of what
 * another job had left in them.
 */
const mostFutileStarts = 3

let lastId = 0

export class Attempt {
  /** Names it between agent and slot. */
  readonly id = ++lastId
  readonly lease: Lease
  readonly ref: LeaseRef
  /** performance.now() of the claim. */
  readonly claimedAtMs: number
  startedAtMs: number | undefined
  endReason: EndReason | undefined
  progress: { fraction: number; note?: string } | undefined
  /** Settles when log lines that are on their way have arrived or come back; later lines must not overtake them. */
  logsInFlight: Promise<void> | undefined
  /** Settles when its newest checkpoint has been kept or has failed; never rejects. */
  checkpointing: Promise<void> | undefined
  /** It has sent a checkpoint of its own: if it runs again, the newest is with the nodes, not in its lease. */
  hasSentCheckpoint = false
  /**
   * How often a slot of this worker ended that received, held or ran it, without a job that is known to have caused it.
   */
  futileStarts = 0
  /** A node did not accept its completion. */
  isRefused = false
  /** Which actor has it, or `gone`: its lease is not held any more. */
  place: 'slots' | 'reporter' | 'requeues' | 'gone' = 'slots'
  /** While it is in `requeues`: ends the wait for its checkpoint. */
  checkpointWait: AbortController | undefined
  #lines: string[] | undefined
  #lineCount = 0
  #droppedCount = 0

  constructor(lease: Lease, nowMs: number) {
    this.lease = lease
    this.ref = { workId: lease.workId, token: lease.token }
    this.claimedAtMs = nowMs
  }

  /**
   * Its slot ended, and no job is known to have caused it. @returns true when it happened so often that it counts as
   * the cause
   */
  countFutileStart(): boolean {
    this.futileStarts += 1
    return this.futileStarts >= mostFutileStarts
  }

  /** Adds to the log; `droppedCount` lines were dropped before they came here. */
  addLog(lines: readonly string[], droppedCount = 0): void {
    const room = Math.max(0, maxLogLines - this.#lineCount)
    const kept = lines.length <= room ? lines : lines.slice(0, room)
    if (kept.length > 0) {
      this.#lines ??= []
      this.#lines.push(...kept)
      this.#lineCount += kept.length
    }
    this.#droppedCount += droppedCount + lines.length - kept.length
  }

  /** It has left its slot for good. */
  get isOver(): boolean {
    return this.place === 'reporter' || this.place === 'gone'
  }

  /** Something of it has to be streamed into the slot before it can start. */
  get hasBlobs(): boolean {
    return 'blob' in this.lease.payload || this.isCheckpointFetched
  }

  /** Its checkpoint does not stand in its lease, or not the newest. */
  get isCheckpointFetched(): boolean {
    const { checkpoint } = this.lease
    return this.hasSentCheckpoint || (checkpoint !== undefined && 'blob' in checkpoint)
  }

  get hasLogs(): boolean {
    return this.#lines !== undefined
  }

  /** Takes log lines that were not sent yet: at least one, then up to about `maxBytes`. */
  takeLogs(maxBytes: number): string[] {
    const lines = this.#lines ?? []
    let count = 0
    for (let bytes = 0; count < lines.length && (count === 0 || bytes < maxBytes); count++)
      bytes += lines[count]?.length ?? 0
    const taken = lines.splice(0, count)
    if (lines.length === 0) this.#lines = undefined
    return taken
  }

  /** Puts lines that could not be sent before the others. */
  requeueLogs(lines: readonly string[]): void {
    this.#lines = [...lines, ...(this.#lines ?? [])]
  }

  /** How many characters of log wait to be sent. */
  get logSize(): number {
    return this.#lines?.reduce((sum, line) => sum + line.length, 0) ?? 0
  }

  /** The rest of the log, closed by a notice when lines were dropped. */
  closeLogs(): string[] | undefined {
    const lines = this.#lines
    this.#lines = undefined
    if (this.#droppedCount === 0) return lines
    return [...(lines ?? []), droppedNotice(this.#droppedCount)]
  }
}
