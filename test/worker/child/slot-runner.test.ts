/** What a slot does with the frames that it gets, without a process around it. */
import t from 'tap'
import type { Handler } from '../../../src/handlers/define-handler.ts'
import type { SlotOutput } from '../../../src/worker/child/slot-output.ts'
import { SlotRunner } from '../../../src/worker/child/slot-runner.ts'
import type { FromSlot, SlotJob } from '../../../src/worker/protocol/slot-protocol.ts'

const job = (id: number, more: Partial<SlotJob> = {}): SlotJob => ({
  ...{ id, workId: `w${id}`, type: 'echo', attempt: 1, attempts: 1, params: {} },
  ...more,
})
const blob = (bytes: number): { blob: { kind: 'bytes'; bytes: number } } => ({ blob: { kind: 'bytes', bytes } })

function setUp() {
  const seen: unknown[] = []
  const sent: FromSlot[] = []
  let end: () => void = () => undefined
  const gate = new Promise<void>(resolve => {
    end = resolve
  })
  const handle: Handler['handle'] = async (payload, { lastCheckpoint }) => {
    await gate
    seen.push([String(payload), lastCheckpoint?.toString()])
  }
  let onSent: () => void = () => undefined
  const output = {
    isFlushed: true,
    flushed: async () => undefined,
    send: (message: FromSlot) => {
      sent.push(message)
      onSent()
    },
  } as unknown as SlotOutput
  const runner = new SlotRunner(new Map([['echo', { type: 'echo', handle }]]), output)
  const done = async (count: number): Promise<void> =>
    await new Promise(resolve => {
      onSent = () => {
        if (sent.filter(({ k }) => k === 'done' || k === 'failed').length === count) resolve()
      }
    })
  return { runner, seen, sent, end, done }
}

t.test('each job gets its own part of the body of its frame', async t => {
  const { runner, seen, end, done } = setUp()
  const body = Buffer.from('onetwo7three')
  const jobs = [
    job(1, { payload: blob(3) }),
    job(2, { payload: blob(3), checkpoint: blob(1) }),
    job(3, { payload: { json: 'json' } }),
    job(4, { payload: blob(5) }),
    job(5, { payload: blob(0) }),
  ]
  runner.receive({ k: 'run', jobs }, body)
  // The bytes of a frame are only good until it was received.
  body.fill('x')
  const allDone = done(5)
  end()
  await allDone
  t.same(seen, [
    ['one', undefined],
    ['two', '7'],
    ['json', undefined],
    ['three', undefined],
    ['', undefined],
  ])
})

t.test('a payload that was streamed ahead is found; one that did not come fails its job', async t => {
  const { runner, seen, sent, end, done } = setUp()
  const nothing = Buffer.alloc(0)
  runner.receive({ k: 'blob', id: 2, part: 'payload', blob: { kind: 'bytes', bytes: 6 } }, nothing)
  for (const part of ['str', 'eam']) runner.receive({ k: 'chunk' }, Buffer.from(part))
  const allDone = done(2)
  runner.receive({ k: 'run', jobs: [job(2), job(3)] }, nothing)
  end()
  await allDone
  t.same(seen, [['stream', undefined]])
  t.match(sent.at(-1), { k: 'failed', id: 3, error: { message: /did not arrive/ } })
})
