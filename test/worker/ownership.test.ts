/** From claim to outcome a job always has one owner in the worker: none vanishes, none is told twice, none stays for good. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { Attempt } from '../../src/worker/attempts/attempt.ts'
import { SlotPool } from '../../src/worker/slots/slot-pool.ts'
import { keptLog, startWorker } from '../support/agent.ts'
import type { FakeNode } from '../support/fake-node.ts'
import { type Random, random } from '../support/random.ts'
import { until } from '../support/until.ts'

const inlineBytes = 16_384
const jobCount = 400
const isLossReport = ({ msg }: Record<string, unknown>): boolean => /no slot here has/.test(String(msg))

/** A job as a user may put it in; what becomes of it is `ok`, or the code of its error. */
function addOne(node: FakeNode, chance: Random): [workId: string, expected: RegExp] {
  const withBytes = (size: number): string => {
    const bytes = Buffer.alloc(size, chance.int(256))
    if (size > inlineBytes) return node.addWithBlob('echo', bytes, 'bytes')
    return node.add({ type: 'echo', payload: { base64: bytes.toString('base64') } })[0] as string
  }
  const add = (type: string, json: unknown = null, timeoutMs = 60_000): string =>
    node.add({ type, payload: { json }, timeoutMs })[0] as string
  const kinds: (() => [string, RegExp])[] = [
    () => [add('noop'), /^ok$/],
    () => [add('noop'), /^ok$/],
    () => [withBytes(chance.int(64)), /^ok$/],
    () => [withBytes(inlineBytes - 2 + chance.int(5)), /^ok$/],
    () => [withBytes(chance.int(60_000)), /^ok$/],
    () => [add('busy', chance.int(80)), /^ok$/],
    () => [add('large', { bytes: inlineBytes - 2 + chance.int(5), json: chance.int(2) === 1 }), /^ok$/],
    () => [add('boom'), /^handler_error$/],
    () => [
      node.addWithCheckpointBlob('relay', Buffer.alloc(20_000, 'c'), { json: {} }, chance.int(2) === 1),
      /^(ok|checkpoint_unreadable)$/,
    ],
  ]
  const rare: (() => [string, RegExp])[] = [
    () => [add('leave'), /^crash$/],
    () => [add('reject', null, 20_000), /^handler_error$/],
    () => [add('loop', null, 300), /^timeout$/],
  ]
  return chance.int(60) === 0 ? chance.pick(rare)() : chance.pick(kinds)()
}

async function mixture(t: Test, chance: Random): Promise<void> {
  const slots = 1 + chance.int(4)
  t.comment(`seed ${chance.seed}, ${slots} slots`)
  const { log, lines } = keptLog()
  const { node } = await startWorker(t, { MUSTER_WORKER_SLOTS: String(slots) }, log)
  const expected = new Map<string, RegExp>()
  while (expected.size < jobCount) {
    const burst = 1 + chance.int(80)
    for (let count = 0; count < burst; count++) {
      const [workId, outcome] = addOne(node, chance)
      expected.set(workId, outcome)
    }
    // The next ones come while these are under way.
    await node.when(() => node.waitingCount < 40, 'room')
  }
  await node.when(() => node.completions.length >= expected.size, 'the end of every job')
  for (const [workId, outcome] of expected) {
    const told = node.completions.filter(completion => completion.workId === workId)
    if (told.length !== 1) t.fail(`${workId} was told ${told.length} times`)
    const end = told[0]?.error?.code ?? 'ok'
    if (!outcome.test(end)) t.fail(`${workId} ended as ${end}: ${told[0]?.error?.message}`)
  }
  t.equal(node.completions.length, expected.size)
  t.same(node.leasedIds, [], 'no lease is left')
  t.equal(node.stale.length, 0)
  t.notOk(lines.some(isLossReport), 'none had to be found again')
}

t.test('a mixture of accepted jobs: each ends exactly once', async t => {
  for (let round = 0; round < 3; round++) await t.test(`round ${round}`, async t => await mixture(t, random()))
})

t.test('short jobs behind one whose payload is fetched', async t => {
  const { node } = await startWorker(t, { MUSTER_WORKER_SLOTS: '1' })
  for (let round = 0; round < 20; round++) for (const id of node.add({ type: 'echo' })) await node.result(id)
  const [gate] = node.add({ type: 'busy', payload: { json: 100 } }) as [string]
  const rest = Array.from({ length: 40 }, (_, index) =>
    index % 9 === 0
      ? node.addWithBlob('echo', Buffer.alloc(20_000), 'bytes')
      : (node.add({ type: 'echo' })[0] as string),
  )
  for (const id of [gate, ...rest]) t.equal((await node.result(id)).error, undefined)
})

t.test('a job that cannot be written down for its slot has failed, and those around it run', async t => {
  const offer = SlotPool.prototype.offer
  t.teardown(() => {
    SlotPool.prototype.offer = offer
  })
  const { node } = await startWorker(t, { MUSTER_WORKER_SLOTS: '1' })
  for (let round = 0; round < 5; round++) for (const id of node.add({ type: 'echo' })) await node.result(id)
  // More levels than the stack holds; text of it can be read, but not be written again.
  const deep = JSON.parse(`${'['.repeat(50_000)}${']'.repeat(50_000)}`)
  t.throws(() => JSON.stringify(deep), RangeError)
  SlotPool.prototype.offer = function (this: SlotPool, attempts: readonly Attempt[]) {
    for (const { lease } of attempts)
      if ('json' in lease.payload && lease.payload.json === 'deep') lease.payload.json = deep
    offer.call(this, attempts)
  }
  const jobs = Array.from({ length: 30 }, (_, index) => ({
    type: 'echo',
    payload: { json: index % 7 === 3 ? 'deep' : index },
  }))
  const ids = node.add(...jobs)
  for (const [index, id] of ids.entries()) {
    const { error, value } = await node.result(id)
    if (index % 7 === 3) t.match(error, { code: 'payload_unreadable', retryable: false })
    else t.same(value, { json: index })
  }
})

t.test('what nobody in the worker has goes back to the queue', async t => {
  const { log, lines } = keptLog()
  const offer = SlotPool.prototype.offer
  t.teardown(() => {
    SlotPool.prototype.offer = offer
  })
  const { node } = await startWorker(t, {}, log)
  const [fine] = node.add({ type: 'noop' }) as [string]
  await node.result(fine)

  await t.test('when it got lost on the way', async t => {
    SlotPool.prototype.offer = () => {
      SlotPool.prototype.offer = offer
    }
    const [lost] = node.add({ type: 'noop' }) as [string]
    await node.when(() => node.returned.includes(lost), 'its return')
    t.ok(lines.some(line => isLossReport(line) && String(line.workIds) === lost))
    t.equal((await node.result(lost)).error, undefined, 'it runs when it comes again')
  })

  await t.test('when handing it over failed', async t => {
    SlotPool.prototype.offer = () => {
      SlotPool.prototype.offer = offer
      throw new Error('no way in')
    }
    const [lost] = node.add({ type: 'boom' }) as [string]
    await node.when(() => node.returned.includes(lost), 'its return')
    const [next] = node.add({ type: 'noop' }) as [string]
    t.equal((await node.result(next)).error, undefined)
  })
})

t.test('a slot that does not start what it has', async t => {
  const { node, worker } = await startWorker(t, { MUSTER_WORKER_SLOTS: '1' })
  const block = async (name: string): Promise<void> => {
    const file = join(t.testdirName, name)
    await node.result(node.add({ type: 'blockLater', payload: { json: file } })[0] as string)
    await until(() => existsSync(file))
  }
  t.testdir({})

  await t.test('is replaced, and the job runs in the next one', async t => {
    await block('first')
    const [pid] = worker.slotPids
    const [id] = node.add({ type: 'noop' }) as [string]
    t.equal((await node.result(id)).error, undefined)
    t.not(worker.slotPids[0], pid)
  })

  await t.test('keeps no job beyond its run-time limit', async t => {
    await block('second')
    const [id] = node.add({ type: 'noop', timeoutMs: 300 }) as [string]
    t.match((await node.result(id)).error, { code: 'timeout' })
  })
})
