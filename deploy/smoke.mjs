/**
 * The smoke test of a deployment: through each node a job goes in and its value comes out.
 *
 *   smoke.mjs --urls URL,URL [--key-file FILE] [--ca FILE] [--wait-ms N] [--only-reach]
 *
 * The values are read by Work ID and collected under a short lease, so that nobody else gets them and nobody misses any. Needs
 * nothing but Node.js. Exit code 0: all is well; 1: something is not; 3: a node cannot be reached from here.
 */
import { createHash, randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { describe, makeCall } from './call-node.mjs'

const iterations = 1000
const reachTimeoutMs = 5000
const progressEveryMs = 15_000

const { values: options } = parseArgs({
  options: {
    urls: { type: 'string' },
    'key-file': { type: 'string' },
    ca: { type: 'string' },
    'wait-ms': { type: 'string', default: '600000' },
    'only-reach': { type: 'boolean', default: false },
  },
})
const urls = (options.urls ?? '').split(',').filter(url => url !== '')
if (urls.length === 0) end(1, 'no URL is given')
const call = makeCall({ keyFile: options['key-file'], caFile: options.ca })
const waitMs = Number(options['wait-ms'])
let shownAt = Date.now()

for (const url of urls) await reach(url)
if (options['only-reach']) end(0)
const outcomes = await Promise.allSettled(urls.map(pushJob))
const failures = outcomes.flatMap(({ reason }) => (reason === undefined ? [] : [reason.message]))
if (failures.length > 0) end(1, failures.join('\n'))
end(0)

async function reach(url) {
  try {
    const { status } = await call(url, 'GET', '/health/live', { timeoutMs: reachTimeoutMs })
    if (status !== 200) throw new Error(`it answers ${status}`)
  } catch (error) {
    end(3, `${url} cannot be reached: ${error.message}`)
  }
}

async function pushJob(url) {
  const data = randomBytes(32)
  const idempotencyKey = `smoke-${randomBytes(16).toString('hex')}`
  const headers = { 'content-type': 'application/octet-stream', 'idempotency-key': idempotencyKey }
  const ready = await call(url, 'GET', '/health/ready')
  if (ready.status !== 200) throw new Error(`${url} is not ready: ${describe(ready)}`)
  const taken = await call(url, 'PUT', `/enqueue?iterations=${iterations}`, { headers, body: data })
  const workId = taken.json?.['Work ID']
  if (taken.status !== 200 || workId === undefined) throw new Error(`${url} takes no job: ${describe(taken)}`)
  try {
    const value = await awaitValue(url, workId)
    if (value !== digestChain(data)) throw new Error(`${url} gave a wrong value for ${workId}: ${value}`)
  } catch (error) {
    // Nothing is left behind, if it can be helped.
    await call(url, 'DELETE', `/jobs/${workId}`).catch(() => {})
    throw error
  }
  await collect(url, workId)
  say(`${url}: a job went in, its value came out`)
}

async function awaitValue(url, workId) {
  const deadline = Date.now() + waitMs
  for (;;) {
    const reply = await call(url, 'GET', `/jobs/${workId}/result`).catch(error => ({ status: 0, text: error.message }))
    if (reply.status === 200) return reply.json.value
    // Not finished yet, or a node that is away for a moment.
    const isLater =
      reply.status === 0 || reply.status === 429 || reply.status >= 500 || reply.json?.code === 'result_not_ready'
    if (!isLater) throw new Error(`${url} does not give the value of ${workId}: ${describe(reply)}`)
    if (Date.now() > deadline) throw new Error(await whyNot(url, workId))
    await showProgress(url)
    await delay(1000)
  }
}

async function showProgress(url) {
  if (Date.now() - shownAt < progressEveryMs) return
  shownAt = Date.now()
  const { json } = await call(url, 'GET', '/status').catch(() => ({}))
  if (json !== undefined) say(`waits for a worker: ${json.Workers} alive, ${json.Jobs} jobs wait`)
}

async function whyNot(url, workId) {
  const minutes = Math.round(waitMs / 60_000)
  const status = await call(url, 'GET', '/status').catch(() => ({}))
  const decision = await call(url, 'GET', '/fleet/pools/default/decision').catch(() => ({}))
  const fleet = decision.json?.explanation === undefined ? '' : `The fleet says: ${decision.json.explanation}`
  return `${url} took the job ${workId}, but there was no value after ${minutes} minutes; ${status.json?.Workers ?? '?'} workers are alive, ${status.json?.Jobs ?? '?'} jobs wait. ${fleet}`.trim()
}

/** Acks this one result; the others that the pull has leased come back after a second. */
async function collect(url, workId) {
  const pulled = await call(url, 'POST', '/pullCompleted?top=1000&leaseMs=1000&maxBytes=1000000')
  const leaseId = pulled.headers?.['muster-lease-id']
  const isThere = Array.isArray(pulled.json) && pulled.json.some(entry => entry['Work ID'] === workId)
  if (isThere && leaseId !== undefined) {
    const headers = { 'content-type': 'application/json' }
    const acked = await call(url, 'POST', '/pullCompleted/ack', {
      headers,
      body: JSON.stringify({ leaseId, workIds: [workId] }),
    })
    if (acked.json?.acked === 1) return
  }
  say(`the result of ${workId} stays to be collected`)
}

function digestChain(data) {
  let digest = createHash('sha512').update(data).digest()
  for (let done = 1; done < iterations; done += 1) digest = createHash('sha512').update(digest).digest()
  return digest.toString('hex')
}

function say(text) {
  process.stdout.write(`  ${text}\n`)
}

function end(code, why) {
  if (why !== undefined) process.stderr.write(`${why}\n`)
  process.exit(code)
}
