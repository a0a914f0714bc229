/** What comes from a slot is input from outside: it can end that slot, and nothing else. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { encodeFrame, encodeFrameHead, FrameReader } from '../../src/worker/protocol/frames.ts'
import { checkedMessage } from '../../src/worker/protocol/slot-protocol.ts'
import { badHandlers, keptLog, startWorker } from '../support/agent.ts'
import type { FakeNode } from '../support/fake-node.ts'
import { type Random, random } from '../support/random.ts'

const babble = (node: FakeNode, bytes: Uint8Array, after = 'wait', timeoutMs = 60_000, exclusive?: true): string =>
  node.add({
    type: 'babble',
    timeoutMs,
    ...(exclusive && { exclusive }),
    payload: { json: { base64: Buffer.from(bytes).toString('base64'), after } },
  })[0] as string

/** A header length that nobody means. */
const hugeHeader = (): Buffer => {
  const frame = encodeFrame({ k: 'start', id: 1 })
  frame.writeUInt32LE(0xffff_ffff, 0)
  return frame
}

t.test('frames that a slot may not send end it alone', async t => {
  const { node, worker } = await startWorker(t)
  const frames: Record<string, Uint8Array> = {
    'no header': Buffer.alloc(8),
    'a header that is no JSON': Buffer.from('\x04\0\0\0\0\0\0\0oops', 'latin1'),
    'a header of 4 GiB': hugeHeader(),
    'a body over the limit': encodeFrameHead({ k: 'done', id: 1, ms: 1, kind: 'json' }, 0xffff_ffff),
    null: encodeFrame(null as unknown as object),
    'an unknown kind': encodeFrame({ k: 'constructor' }),
    'ready again': encodeFrame({ k: 'ready', types: [] }),
    'ready with no types': encodeFrame({ k: 'ready' }),
    'an error without its shape': encodeFrame({ k: 'failed', id: 1, ms: 1 }),
    'an id that is none': encodeFrame({ k: 'start', id: {} }),
    'ids that are none': encodeFrame({ k: 'recalled', seq: 1, ids: 5 }),
    'a time that is none': encodeFrame({ k: 'done', id: 1, ms: null, kind: 'json' }, 'null'),
    'a start in the middle of a job': encodeFrame({ k: 'start', id: 1 }),
  }
  for (const [what, bytes] of Object.entries(frames)) {
    const [neighbour] = node.add({ type: 'span', payload: { json: { file: '/dev/null', name: what, ms: 300 } } }) as [
      string,
    ]
    const { error } = await node.result(babble(node, bytes))
    t.match(error, { code: /^(crash|result_too_large)$/ }, what)
    t.same((await node.result(neighbour)).value, { json: what }, `${what}: the job in the other slot goes on`)
  }
  t.equal(worker.slotPids.length, 2)
})

t.test('a value that is not JSON does not reach the node', async t => {
  const { node } = await startWorker(t, { MUSTER_WORKER_SLOTS: '1' })
  // Its own number in the slot: the first job of this worker has it, or one of those after it.
  const forged = '1}},{"workId":"w2","token":"t2","type":"noop","durationMs":1,"value":{"json":"FORGED"'
  const frames = Array.from({ length: 20_000 }, (_, id) => encodeFrame({ k: 'done', id, ms: 1, kind: 'json' }, forged))
  const id = babble(node, Buffer.concat(frames), 'wait')
  const { error, value } = await node.result(id)
  t.match(error, { code: 'crash', message: /not JSON|did not run/ })
  t.equal(value, undefined)
})

t.test('a job ends itself and nobody else', async t => {
  const { node } = await startWorker(t, { MUSTER_WORKER_SLOTS: '1' })
  for (let round = 0; round < 5; round++)
    for (const type of ['echo', 'babble']) {
      const json = { base64: '', after: '' }
      await node.result(node.add({ type, payload: { json } })[0] as string)
    }
  const forged = Buffer.concat(
    Array.from({ length: 30_000 }, (_, id) => encodeFrame({ k: 'done', id, ms: 1, kind: 'json' }, '"FORGED"')),
  )
  const gate = node.add({ type: 'busy', payload: { json: 100 } })
  const ids = Array.from({ length: 40 }, (_, index) =>
    index % 10 === 0
      ? babble(node, forged, 'end')
      : (node.add({ type: 'echo', payload: { json: index } })[0] as string),
  )
  await node.result(gate[0] as string)
  for (const [index, id] of ids.entries()) {
    const { value, error } = await node.result(id)
    if (index % 10 !== 0) t.same([value, error], [{ json: index }, undefined])
  }
})

t.test('a job that always blames another one ends in the end, also where handlers load slowly', async t => {
  const slow = join(t.testdir(), 'slow.mjs')
  await writeFile(
    slow,
    `import { setTimeout as delay } from 'node:timers/promises'
// pause: handlers that take long to load
await delay(1500)
export * from ${JSON.stringify(badHandlers)}
`,
  )
  const { node } = await startWorker(t, { MUSTER_HANDLERS: slow, MUSTER_WORKER_SLOTS: '1' })
  const blame = encodeFrame({ k: 'fault', id: 999_999, ms: 1, error: { message: 'it was another one' } })
  const bytes = Buffer.concat([blame, encodeFrame({ k: 'constructor' })])
  for (const alone of [undefined, true] as const) {
    const id = babble(node, bytes, 'wait', 60_000, alone)
    t.match((await node.result(id)).error, { code: 'crash' })
    t.ok(node.returned.includes(id), 'it went back meanwhile')
  }
})

const seed = random().seed
t.test(`random frames: the agent lives, the other jobs succeed (MUSTER_TEST_SEED=${seed})`, async t => {
  const chance = random(seed)
  const { log, lines } = keptLog()
  const { node, worker } = await startWorker(t, {}, log)
  const others: string[] = []
  for (let round = 0; round < 60; round++) {
    others.push(...node.add({ type: 'echo', payload: { json: round } }, { type: 'busy', payload: { json: 5 } }))
    const bytes = Buffer.concat(Array.from({ length: 1 + chance.int(4) }, () => randomFrame(chance)))
    const id = babble(node, bytes, chance.pick(['wait', 'end']), 2000)
    await node.result(id)
  }
  for (const id of others) t.equal((await node.result(id)).error, undefined)
  t.notOk(lines.some(({ msg }) => /no slot here has/.test(String(msg))))
  t.equal(node.stale.length, 0)
  await node.when(() => worker.slotPids.length === 2, 'both slots')
})

t.test('the reader of frames', async t => {
  await t.test('keeps nothing of what is over the limits, in any pieces', async t => {
    for (const size of [1, 7, 8, 100_000]) {
      const reader = new FrameReader(() => t.fail('no frame'), { headerBytes: 1000, bodyBytes: 1000 })
      const bytes = hugeHeader()
      t.throws(() => {
        for (let start = 0; start < bytes.length; start += size) reader.push(bytes.subarray(start, start + size))
      }, /header of 4294967295 bytes/)
    }
  })

  await t.test('reads a header that comes byte by byte without copying it again and again', async t => {
    let seen = 0
    const reader = new FrameReader(() => seen++)
    const bytes = encodeFrame({ k: 'unready', message: 'x'.repeat(1_000_000) }, 'body')
    for (let start = 0; start < bytes.length; start++) reader.push(bytes.subarray(start, start + 1))
    t.equal(seen, 1)
  })
})

t.test(`random headers are refused, or are messages (MUSTER_TEST_SEED=${seed})`, async t => {
  const chance = random(seed)
  for (let round = 0; round < 20_000; round++) {
    const header = JSON.parse(JSON.stringify(randomHeader(chance)) ?? 'null')
    try {
      checkedMessage(header)
    } catch (error) {
      if (!(error instanceof Error) || error instanceof TypeError) t.fail(`${JSON.stringify(header)}: ${error}`)
    }
  }
})

const odd = (chance: Random): unknown =>
  chance.pick<unknown>([
    0,
    1,
    -1,
    2 ** 53,
    0.5,
    null,
    true,
    '',
    'x',
    [],
    {},
    [[]],
    [1],
    { k: 'done' },
    'a'.repeat(1000),
    ['x', 1],
    undefined,
  ])

const shapes: Record<string, unknown>[] = [
  { k: 'ready', types: [{ type: 'x' }] },
  { k: 'unready', message: 'x' },
  { k: 'start', id: 1 },
  { k: 'done', id: 1, ms: 1, kind: 'json', next: 2 },
  { k: 'failed', id: 1, ms: 1, error: { message: 'x', stack: 'y', code: 'z' }, next: 2 },
  { k: 'progress', id: 1, fraction: 0.5, note: 'x' },
  { k: 'checkpoint', id: 1, seq: 1 },
  { k: 'log', id: 1, lines: ['x'], dropped: 1 },
  { k: 'recalled', seq: 1, ids: [1] },
  { k: 'fault', id: 1, ms: 1, error: { message: 'x' } },
]

function randomHeader(chance: Random): unknown {
  const header: Record<string, unknown> = { ...chance.pick(shapes) }
  if (chance.int(8) === 0) return odd(chance)
  if ('id' in header) header.id = chance.int(600)
  for (const key of Object.keys(header)) if (chance.int(5) === 0) header[key] = odd(chance)
  return header
}

function randomFrame(chance: Random): Buffer {
  if (chance.int(6) === 0) return Buffer.from(Array.from({ length: chance.int(200) }, () => chance.int(256)))
  const frame = encodeFrame(
    (randomHeader(chance) ?? null) as object,
    chance.pick(['', '1', '"x"', '{', 'x'.repeat(500)]),
  )
  if (chance.int(4) === 0) frame[chance.int(frame.length)] = chance.int(256)
  return chance.int(6) === 0 ? frame.subarray(0, chance.int(frame.length)) : frame
}
