/** What Redis knows of a worker, read from the fields of its hash. */
import type { HeartbeatRequest, WorkerDescription } from '../../contract/worker-protocol.ts'
import type { BootReport } from '../measure/boot-stages.ts'
import type { Interruption } from '../scaling/snapshot.ts'

export type WorkerState = HeartbeatRequest['state']

export interface WorkerRecord {
  readonly workerId: string
  readonly queue: string
  readonly slots: number
  /** What it may be given: what it declared, without what it turned out not to run. */
  readonly types: readonly string[]
  readonly instanceId: string | undefined
  readonly host: string | undefined
  readonly pid: number | undefined
  readonly version: string | undefined
  readonly state: WorkerState
  /** Jobs that it said it holds, at its last heartbeat. */
  readonly leases: number
  readonly firstSeenAt: number
  /** When it was first given a job; undefined until then. */
  readonly firstClaimAt: number | undefined
  readonly boot: BootReport
  readonly lastSeenAt: number
  /** Since when it has had no job; undefined while it holds one. */
  readonly idleSince: number | undefined
  /** Why it is to go, and since when; undefined as long as it may claim. */
  readonly drain: { readonly reason: string; readonly since: number } | undefined
  /** Its host is being taken away, as the worker said: it drains for that. */
  readonly interruption: Interruption | undefined
}

/** @param unsupported types that it turned out not to run, as JSON */
export function runnable({ types }: WorkerDescription, unsupported: string | null | undefined): readonly string[] {
  if (unsupported === null || unsupported === undefined) return types
  const excluded = new Set(JSON.parse(unsupported) as string[])
  return types.filter(type => !excluded.has(type))
}

/** A worker that is forgotten between the two reads has no fields any more. */
export function toRecord(fields: Record<string, string>): WorkerRecord[] {
  const { description, state, drain } = fields
  if (description === undefined || state === undefined) return []
  const worker = JSON.parse(description) as WorkerDescription
  const { workerId, queue, slots, instanceId, host, pid, version } = worker
  const leases = Number(fields.leases)
  const firstSeenAt = Number(fields.firstSeenAt)
  const since = fields.drainSince
  const agentAt = worker.boot?.agentAt ?? worker.startedAt
  const kind = fields.interruption as Interruption['kind'] | undefined
  return [
    {
      workerId,
      queue,
      slots,
      types: runnable(worker, fields.unsupported),
      instanceId,
      host,
      pid,
      version,
      state: state as WorkerState,
      leases,
      firstSeenAt,
      firstClaimAt: fields.firstClaimAt === undefined ? undefined : Number(fields.firstClaimAt),
      boot: { ...worker.boot, ...(agentAt !== undefined && { agentAt }) },
      lastSeenAt: Number(fields.lastSeenAt),
      idleSince: leases > 0 ? undefined : Number(fields.workedAt ?? firstSeenAt),
      drain: since === undefined ? undefined : { reason: drain ?? `worker is ${state}`, since: Number(since) },
      interruption: kind === undefined ? undefined : { kind, at: Number(fields.interruptedAt) },
    },
  ]
}
