/**
 * Judges the facts of one scenario. Pure: what clients saw, how often handlers ran, and what the nodes said of jobs whose result
 * nobody was handed.
 */
import type { Accepted } from './facts.ts'
import type { Handing, JobRecord, Ledger } from './ledger.ts'

/** What a node says of an accepted job whose result nobody was handed: its value, or why there is none. */
export type Found = { readonly value: unknown } | { readonly missing: string }

/** The moments of a scenario, in ms of the monotonic clock. */
export interface Moments {
  readonly injectedMs: number
  readonly healedMs: number
  /** When the clients stopped submitting. */
  readonly endedMs: number
}

export interface Evidence {
  readonly ledger: Ledger
  /** Runs of handlers, by Work ID. */
  readonly runs: ReadonlyMap<string, number>
  readonly found: ReadonlyMap<string, Found>
  /** Clients that the scenario itself cuts off. */
  readonly cutOffClients?: string
}

export interface Verdict {
  readonly acked: number
  readonly lost: number
  readonly doubled: number
  readonly wastedAttempts: number
  /** Absent: it did not come to that. */
  readonly firstAcceptMs?: number
  readonly firstDoneMs?: number
  /** From the injection until every client (but those cut off) had a PUT accepted that was sent after it. */
  readonly everyClientMs?: number
  readonly longestGapMs: number
  /** Calls that were answered wrongly, broke off or timed out; refused connections are none: clients move on. */
  readonly failedRequests: number
  /** Those, by kind. */
  readonly failures: Readonly<Record<string, number>>
  /** Of those that were accepted and lost their reply to a pull: readable at GET /jobs/{id}/result, as promised. */
  readonly reread: number
  readonly acceptedWhileBroken: number
  /** Each a sentence with its Work ID. */
  readonly faults: readonly string[]
}

/** Of one kind of fault, so many are told in full. */
const tellAtMost = 5

export function judge(scenario: string, moments: Moments, evidence: Evidence): Verdict {
  const { ledger, runs, found, cutOffClients } = evidence
  const jobs = [...ledger.jobs.values()].filter(job => job.scenario === scenario)
  const accepted = ledger.accepted.get(scenario) ?? []
  const promised = jobs.filter(job => job.accepted.length > 0)
  const lost = promised.flatMap(job => lossOf(job, found.get(job.workId)) ?? [])
  const doubled = jobs.flatMap(job => doublingOf(job.handings, job.workId) ?? [])
  const wrong = [...promised.flatMap(wrongValues), ...keyFaults(accepted)]
  const after = accepted.filter(({ sentMs }) => sentMs > moments.injectedMs)
  const done = after.flatMap(({ workId }) => ledger.jobs.get(workId)?.handings[0]?.atMs ?? [])
  const failed = (ledger.failed.get(scenario) ?? []).filter(({ why }) => why !== 'refused')
  const firstAccept = earliest(after.map(({ atMs }) => atMs))
  const firstDone = earliest(done)
  const everyClient = everyClientMs(accepted, moments.injectedMs, cutOffClients)
  return {
    acked: promised.length,
    lost: lost.length,
    doubled: doubled.length,
    wastedAttempts: jobs.reduce((sum, { workId }) => sum + Math.max(0, (runs.get(workId) ?? 0) - 1), 0),
    ...(firstAccept !== undefined && { firstAcceptMs: Math.round(firstAccept - moments.injectedMs) }),
    ...(firstDone !== undefined && { firstDoneMs: Math.round(firstDone - moments.injectedMs) }),
    ...(everyClient !== undefined && { everyClientMs: Math.round(everyClient) }),
    longestGapMs: Math.round(longestGap(accepted, moments)),
    failedRequests: failed.length,
    failures: countsOf(failed.map(({ call, why }) => `${call} ${why}`)),
    reread: promised.filter(job => job.handings.length === 0 && 'value' in (found.get(job.workId) ?? {})).length,
    acceptedWhileBroken: after.filter(({ atMs }) => atMs < moments.healedMs).length,
    faults: [lost, doubled, wrong].flatMap(tell),
  }
}

/** A job is lost when nobody was handed its result, and no node has its value either. */
function lossOf({ workId, handings, accepted }: JobRecord, found: Found | undefined): string | undefined {
  if (handings.length > 0) return undefined
  const said = `accepted by ${accepted[0]?.client} (${accepted[0]?.durability ?? 'no durability named'})`
  if (found === undefined) return `${workId}, ${said}: its result was not handed out`
  if ('missing' in found) return `${workId}, ${said}: ${found.missing}`
  if (found.value !== accepted[0]?.expected) return `${workId}, ${said}: its value is ${JSON.stringify(found.value)}`
  return undefined
}

/**
 * A result is doubled when a reply with it reached a client to its end, and another reply with it did too; unless the first was
 * a lease whose ack was never answered, and its time was over by then.
 */
function doublingOf(handings: readonly Handing[], workId: string): string | undefined {
  const inOrder = [...handings].sort((one, other) => one.atMs - other.atMs)
  for (const [index, second] of inOrder.entries()) {
    const first = inOrder.slice(0, index).find(handing => !isOver(handing, second.atMs))
    if (first !== undefined)
      return `${workId} was handed to ${told(first)}, and ${Math.round(second.atMs - first.atMs)} ms later to ${told(second)}`
  }
  return undefined
}

const isOver = ({ leaseMs, askedMs, ackedMs }: Handing, atMs: number): boolean =>
  leaseMs !== undefined && ackedMs === undefined && atMs >= askedMs + leaseMs

const told = ({ client, leaseId, ackedMs }: Handing): string =>
  `${client} (${leaseId === undefined ? 'plain' : ackedMs === undefined ? 'leased, ack unanswered' : 'leased and acked'})`

const wrongValues = ({ workId, accepted, handings }: JobRecord): string[] =>
  handings
    .filter(({ value }) => value !== accepted[0]?.expected)
    .map(({ value }) => `${workId}: wrong value ${JSON.stringify(value)}, not ${JSON.stringify(accepted[0]?.expected)}`)

/** One key is one Work ID; without a key every answer has a Work ID of its own. */
function keyFaults(accepted: readonly Accepted[]): string[] {
  const faults: string[] = []
  const byKey = new Map<string, string>()
  const seen = new Set<string>()
  for (const { key, workId } of accepted) {
    if (key === undefined && seen.has(workId)) faults.push(`${workId} was given to two jobs`)
    if (key !== undefined && (byKey.get(key) ?? workId) !== workId) faults.push(`the key ${key} gave two Work IDs`)
    if (key === undefined) seen.add(workId)
    else byKey.set(key, workId)
  }
  return faults
}

function countsOf(kinds: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const kind of kinds) counts[kind] = (counts[kind] ?? 0) + 1
  return counts
}

const earliest = (times: readonly number[]): number | undefined =>
  times.length === 0 ? undefined : times.reduce((least, time) => Math.min(least, time))

function everyClientMs(
  accepted: readonly Accepted[],
  injectedMs: number,
  cutOff: string | undefined,
): number | undefined {
  const firsts = new Map<string, number>()
  for (const { client, sentMs, atMs } of accepted) {
    if (cutOff !== undefined && client.startsWith(cutOff)) continue
    const first = sentMs > injectedMs ? atMs : Number.POSITIVE_INFINITY
    firsts.set(client, Math.min(firsts.get(client) ?? first, first))
  }
  const latest = Math.max(...firsts.values())
  return Number.isFinite(latest) ? latest - injectedMs : undefined
}

/** The longest time without an accepted PUT, between the injection and the end. */
function longestGap(accepted: readonly Accepted[], { injectedMs, endedMs }: Moments): number {
  const times = accepted.map(({ atMs }) => atMs).filter(atMs => atMs > injectedMs && atMs < endedMs)
  const marks = [injectedMs, ...times.sort((one, other) => one - other), endedMs]
  return marks.reduce((longest, mark, index) => Math.max(longest, mark - (marks[index - 1] ?? mark)), 0)
}

const tell = (faults: readonly string[]): string[] =>
  faults.length <= tellAtMost
    ? [...faults]
    : [...faults.slice(0, tellAtMost), `and ${faults.length - tellAtMost} more like these`]
