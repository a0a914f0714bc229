/** Moves that submit jobs: in every body form, one at a time and in bursts, with keys and without. */

import { describeEnding } from '../facts.ts'
import { NoAnswer, type Reply } from '../http.ts'
import type { Draw } from '../kinds.ts'
import type { Move, Stage } from '../move.ts'
import type { Random } from '../random.ts'
import { hashChain, jsonValue } from '../values.ts'
import { pull, queueNames } from './collect.ts'

export interface Request {
  readonly path: string
  readonly headers: Record<string, string>
  readonly body: Uint8Array | string | undefined
}

const queues = ['default', 'default', 'default', 'second']
/** So many jobs may be open before users collect instead of submitting more. */
const maxOpen = 600

export const submitMoves: readonly Move[] = [
  {
    ...{ name: 'submit', group: 'submit', weight: 30, stream: 'users' },
    async run(stage, random) {
      if (await collectsInstead(stage)) return
      await submit(stage, random, drawJob(stage, random))
    },
  },
  {
    ...{ name: 'burst', group: 'submit', weight: 2, stream: 'users' },
    /** Small ones behind large ones, of one type, in one queue. */
    async run(stage, random) {
      const plain = stage.kinds.filter(({ group }) => group === 'plain')
      if (plain.length === 0 || (await collectsInstead(stage))) return
      const kind = random.pick(plain)
      const queue = random.pick(queues)
      const each = Array.from({ length: random.int(20, 120) }, (_, index) => random.fork(index))
      await Promise.all(each.map(async own => await submit(stage, own, { queue, ...kind.draw(own) })))
    },
  },
  {
    ...{ name: 'mixture of sizes', group: 'submit', weight: 1.5, stream: 'users' },
    async run(stage, random) {
      if (await collectsInstead(stage)) return
      const each = Array.from({ length: random.int(40, 150) }, (_, index) => random.fork(index))
      for (let at = 0; at < each.length; at += 20)
        await Promise.all(
          each.slice(at, at + 20).map(async (own, index) => {
            await submit(stage, own, { queue: 'default', ...drawSmallOrLarge(own, (at + index) % 9 === 0) })
          }),
        )
    },
  },
  {
    ...{ name: 'same key of another owner', group: 'submit', weight: 2, stream: 'users' },
    run: submitAsOther,
  },
  {
    ...{ name: 'same key again', group: 'submit', weight: 3, stream: 'users' },
    async run(stage, random) {
      if (stage.keys.length === 0) return
      const { key, workId, queue, draw } = random.pick(stage.keys)
      const isSame = random.chance(0.6)
      const other = isSame ? draw : { ...draw, timeoutMs: draw.timeoutMs + 1 }
      const { path, headers, body } = makeRequest(random, other, queue, {})
      const reply = await stage.http.insist('PUT', path, {
        headers: { ...headers, 'idempotency-key': key },
        ...withBody(body),
      })
      const given = reply.status === 200 ? String(reply.json()['Work ID']) : reply.code()
      const right = isSame ? workId : 'idempotency_key_reused'
      if (given === right) return
      const what = isSame ? 'the same request with its key' : 'another request with its key'
      stage.model.fault('two jobs for one key', reply.at, `${what} was answered ${given} instead of ${right}`, workId)
    },
  },
]

/** Another job of the same request under the same key: a key is its owner's own. */
async function submitAsOther(stage: Stage, random: Random): Promise<void> {
  const own = stage.keys.filter(({ hasOther }) => !hasOther)
  if (own.length === 0 || !stage.http.hasOther) return
  const used = random.pick(own)
  const { key, workId, queue, draw } = used
  if (stage.closedQueues.has(queue)) return
  used.hasOther = true
  const { type, timeoutMs, ending, killsWorkers } = draw
  const spec = { queue, type, timeoutMs, ending, ...(killsWorkers && { killsWorkers }) }
  const { path, headers, body } = makeRequest(random, draw, queue, {})
  const call = { headers: { ...headers, 'idempotency-key': key }, ...withBody(body), asOther: true as const }
  const askedAt = Date.now()
  let reply: Reply
  try {
    reply = await stage.http.insist('PUT', path, call)
  } catch (error) {
    if (error instanceof NoAnswer) stage.model.submissionDoubted(spec)
    throw error
  }
  if (reply.code() === 'queue_draining') return
  const given = reply.status === 200 ? String(reply.json()['Work ID']) : reply.code()
  if (reply.status === 200 && given !== workId) stage.model.accepted(given, spec, reply.at, askedAt)
  else stage.model.fault('one job for two owners', reply.at, `the key of another owner was answered ${given}`, workId)
}

export function drawJob(stage: Stage, random: Random): Draw & { queue: string } {
  return { queue: random.pick(queues), ...random.weighted(stage.kinds).draw(random) }
}

function drawSmallOrLarge(random: Random, isLarge: boolean): Draw {
  const bytes = random.bytes(isLarge ? random.int(16_385, 40_000) : random.int(0, 3))
  return sha512Of(bytes)
}

const sha512Of = (bytes: Buffer): Draw => ({
  ...{ type: 'sha512', iterations: 1, payload: { bytes }, attempts: 1, timeoutMs: 60_000 },
  ending: { value: jsonValue(hashChain(bytes, 1)), attempts: 1 },
})

/** Submits a job, and tells the model; half of the time with a key, and then until it is accepted. */
export async function submit(
  stage: Stage,
  random: Random,
  draw: Draw & { queue: string; options?: object },
  { isOnce = false } = {},
): Promise<string | undefined> {
  const { model, http } = stage
  const { queue, type, timeoutMs, ending, killsWorkers } = draw
  const key = !isOnce && random.chance(0.5) ? `key-${random.int(0, 2 ** 31)}-${random.int(0, 2 ** 31)}` : undefined
  const options = draw.options ?? {
    ...(random.chance(0.2) && { priority: random.pick([0, 1, 7, 2_097_151]) }),
    ...(random.chance(0.15) && { delayMs: random.int(1, 3000) }),
  }
  const { path, headers, body } = makeRequest(random, draw, queue, options)
  const spec = { queue, type, timeoutMs, ending, ...(killsWorkers && { killsWorkers }) }
  const call = { headers: { ...headers, ...(key !== undefined && { 'idempotency-key': key }) }, ...withBody(body) }
  const method = random.pick(['PUT', 'POST'])
  const askedAt = Date.now()
  let reply: Reply
  try {
    reply = key === undefined ? await http.call(method, path, call) : await http.insist(method, path, call)
  } catch (error) {
    if (error instanceof NoAnswer) model.submissionDoubted(spec)
    throw error
  }
  if (reply.status === 503) {
    if (mayHaveSubmitted(reply)) model.submissionDoubted(spec)
    return undefined
  }
  if (reply.code() === 'queue_draining' && stage.closedQueues.has(queue)) return undefined
  if (reply.status !== 200) {
    const text = `${reply.status} ${reply.bytes.toString().slice(0, 300)}`
    model.fault(
      'wrong answer',
      reply.at,
      `${method} ${path}, ${JSON.stringify(headers)}, to end as ${describeEnding(ending)}: ${text}`,
    )
    return undefined
  }
  const workId = String(reply.json()['Work ID'])
  model.accepted(workId, spec, reply.at, askedAt)
  if (key !== undefined) {
    // The options are part of what the key stands for, so only plain ones are repeated.
    if (Object.keys(options).length === 0) stage.keys.push({ key, workId, queue, draw, hasOther: false })
    if (stage.keys.length > 200) stage.keys.shift()
  }
  return workId
}

/** A 503 that says that there is no room was said before anything was kept; any other may have come after. */
export const mayHaveSubmitted = (reply: Reply): boolean => reply.status === 503 && reply.code() !== 'overloaded'

export const withBody = (body: Request['body']): { body?: Uint8Array | string } => (body === undefined ? {} : { body })

async function collectsInstead(stage: Stage): Promise<boolean> {
  if (openCount(stage) <= maxOpen) return false
  for (const queue of queueNames) await pull(stage, queue, { top: 200, failed: 'include' })
  return true
}

const openCount = ({ model }: Stage): number => [...model.jobs.values()].filter(({ end }) => end === undefined).length

/** The request in one of the body forms that suit its payload. */
export function makeRequest(random: Random, draw: Draw, queue: string, options: object): Request {
  const { iterations, type, attempts, timeoutMs, payload } = draw
  const query = new URLSearchParams({
    ...(iterations === undefined ? { type } : { iterations: String(iterations) }),
    ...(queue !== 'default' && { queue }),
    ...{ attempts: String(attempts), timeoutMs: String(timeoutMs) },
    ...Object.fromEntries(Object.entries(options).map(([name, value]) => [name, String(value)])),
  })
  return { path: `/enqueue?${query}`, ...encode(random, payload) }
}

function encode(random: Random, payload: Draw['payload']): Pick<Request, 'headers' | 'body'> {
  if (payload === undefined) return { headers: {}, body: undefined }
  if ('json' in payload)
    return { headers: { 'content-type': 'application/json' }, body: JSON.stringify({ payload: payload.json }) }
  const { bytes } = payload
  const forms =
    bytes.length > 1_000_000 ? (['raw', 'multipart'] as const) : (['raw', 'multipart', 'base64', 'form'] as const)
  const form = random.pick(forms)
  // Without a body there would be no data: only these two say that it is empty.
  if (form === 'raw' && bytes.length > 0)
    return { headers: { 'content-type': 'application/octet-stream' }, body: bytes }
  if (form === 'form') {
    const text = `data=${[...bytes].map(byte => `%${byte.toString(16).padStart(2, '0')}`).join('')}`
    return { headers: { 'content-type': 'application/x-www-form-urlencoded' }, body: text }
  }
  if (form === 'multipart') return encodeMultipart(random, bytes)
  const body = JSON.stringify({ data: bytes.toString('base64') })
  return { headers: { 'content-type': 'application/json' }, body }
}

function encodeMultipart(random: Random, bytes: Buffer): Pick<Request, 'headers' | 'body'> {
  const boundary = `drive${random.int(0, 2 ** 31)}`
  const fileName = random.chance(0.7) ? `; filename="${random.pick(['a.bin', 'ü.bin', 'a b', ''])}"` : ''
  const head = `--${boundary}\r\nContent-Disposition: form-data; name="data"${fileName}\r\n\r\n`
  const body = Buffer.concat([Buffer.from(head), bytes, Buffer.from(`\r\n--${boundary}--\r\n`)])
  return { headers: { 'content-type': `multipart/form-data; boundary=${boundary}` }, body }
}
