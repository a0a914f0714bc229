/** Moves that collect results: plainly, under a lease, acked, released by going away, or left to run out. */

import type { Outcome } from '../facts.ts'
import { NoAnswer, type Reply } from '../http.ts'
import type { Move, Stage } from '../move.ts'
import type { Random } from '../random.ts'
import { bytesValue, jsonValue } from '../values.ts'

export const queueNames = ['default', 'second', 'foreign'] as const

export const collectMoves: readonly Move[] = [
  {
    ...{ name: 'pull', group: 'collect', weight: 14, stream: 'users' },
    async run(stage, random) {
      await pull(stage, random.pick(queueNames), {
        ...drawPull(random),
        ...(random.chance(0.2) && { failed: 'include' }),
      })
    },
  },
  {
    ...{ name: 'pull under a lease', group: 'collect', weight: 8, stream: 'users' },
    async run(stage, random) {
      const leaseMs = random.pick([1000, 3000, 20_000])
      await pull(stage, random.pick(queueNames), { ...drawPull(random), leaseMs })
    },
  },
  {
    ...{ name: 'ack', group: 'collect', weight: 8, stream: 'users' },
    async run(stage, random) {
      const lease = stage.leases.splice(random.int(0, Math.max(0, stage.leases.length - 1)), 1)[0]
      // Some are left to run out.
      if (lease !== undefined && random.chance(0.8)) await ack(stage, lease)
    },
  },
  {
    ...{ name: 'pull and go away', group: 'collect', weight: 2, stream: 'users' },
    async run(stage, random) {
      const queue = random.pick(queueNames)
      const signal = AbortSignal.timeout(random.int(1, 60))
      try {
        await pull(stage, queue, { top: random.int(1, 50), waitMs: random.int(0, 500) }, signal)
      } catch (error) {
        if (!(error instanceof NoAnswer)) throw error
      }
    },
  },
]

type PullQuery = Readonly<Record<string, string | number>>

const drawPull = (random: Random): { top: number; waitMs?: number; maxBytes?: number } => ({
  top: random.pick([1, 3, 50, 1000]),
  ...(random.chance(0.3) && { waitMs: random.int(1, 2000) }),
  ...(random.chance(0.1) && { maxBytes: random.pick([1, 1000, 1_000_000]) }),
})

/** @returns how many results came */
export async function pull(stage: Stage, queue: string, query: PullQuery, signal?: AbortSignal): Promise<number> {
  const { http, model } = stage
  const path = `/pullCompleted?${new URLSearchParams({ queue, ...mapToText(query) })}`
  const askedAt = Date.now()
  // What was taken under a lease comes back when that ends.
  const doubt = (at: number): void => {
    if (query.leaseMs === undefined) model.pullDoubted({ queue, at, top: Number(query.top) })
  }
  let reply: Reply
  try {
    reply = await http.call('POST', path, signal === undefined ? {} : { signal })
  } catch (error) {
    if (error instanceof NoAnswer) doubt(Date.now())
    throw error
  }
  if (reply.status === 503) {
    doubt(reply.at)
    return 0
  }
  if (reply.status !== 200) {
    model.fault('wrong answer', reply.at, `POST ${path}: ${reply.status} ${reply.bytes.toString().slice(0, 300)}`)
    return 0
  }
  const entries = reply.json() as Entry[]
  if (entries.length > Number(query.top))
    model.fault('wrong answer', reply.at, `POST ${path}: ${entries.length} results`)
  const leaseId = reply.headers.get('muster-lease-id')
  const lease = query.leaseMs === undefined || leaseId === null ? undefined : { id: leaseId, ms: Number(query.leaseMs) }
  // First all that can be said at once: what is fetched below takes time, in which others may be handed the same.
  for (const entry of entries) {
    const outcome = outcomeOf(entry)
    const common = { workId: entry['Work ID'], queue, askedAt, at: reply.at, ...(lease !== undefined && { lease }) }
    model.handedOut({ ...common, ...(outcome !== undefined && { outcome }) })
  }
  if (lease !== undefined && entries.length > 0)
    stage.leases.push({ leaseId: lease.id, queue, workIds: entries.map(entry => entry['Work ID']) })
  await Promise.all(entries.map(async entry => await fetchLarge(stage, entry)))
  return entries.length
}

interface Entry {
  readonly 'Work ID': string
  readonly Value?: unknown
  readonly Encoding?: string
  readonly 'Value URL'?: string
  readonly Error?: { readonly code: string; readonly message: string }
}

/** @returns undefined when the value is to be fetched by itself */
function outcomeOf(entry: Entry): Outcome | undefined {
  if (entry.Error !== undefined) return { error: entry.Error }
  if (entry['Value URL'] !== undefined) return undefined
  const isBytes = entry.Encoding === 'base64'
  return { value: isBytes ? bytesValue(Buffer.from(String(entry.Value), 'base64')) : jsonValue(entry.Value) }
}

async function fetchLarge({ http, model }: Stage, entry: Entry): Promise<void> {
  if (entry['Value URL'] === undefined) return
  const reply = await http.insist('GET', entry['Value URL'])
  if (reply.status === 200) {
    model.valued(entry['Work ID'], readValue(reply), reply.at)
    return
  }
  const text = `${reply.status} ${reply.bytes.toString().slice(0, 300)}`
  model.fault('lost', reply.at, `its value cannot be fetched: ${text}`, entry['Work ID'])
}

export function readValue(reply: Reply) {
  const isJson = reply.headers.get('content-type')?.startsWith('application/json') ?? false
  return isJson ? jsonValue((reply.json() as { value: unknown }).value) : bytesValue(reply.bytes)
}

export async function ack(stage: Stage, lease: Stage['leases'][number]): Promise<void> {
  const { http, model } = stage
  const { leaseId, workIds } = lease
  const known = workIds.filter(workId => model.jobs.has(workId))
  if (known.length === 0) return
  const askedAt = Date.now()
  for (const workId of known) model.ackAsked(workId, askedAt)
  const body = JSON.stringify({ leaseId, workIds: known })
  const reply = await http.call('POST', '/pullCompleted/ack', { headers: { 'content-type': 'application/json' }, body })
  const notHeld = reply.status === 200 ? new Set(reply.json().notHeld as string[]) : undefined
  if (reply.status !== 200 && reply.status !== 503)
    model.fault(
      'wrong answer',
      reply.at,
      `POST /pullCompleted/ack: ${reply.status} ${reply.bytes.toString().slice(0, 300)}`,
    )
  for (const workId of known) {
    const answer = notHeld === undefined ? undefined : notHeld.has(workId) ? 'not held' : 'acked'
    model.ackAnswered(workId, answer, leaseId, reply.at)
  }
}

const mapToText = (query: PullQuery): Record<string, string> =>
  Object.fromEntries(Object.entries(query).map(([name, value]) => [name, String(value)]))
