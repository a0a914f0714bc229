/** What goes back to its queue, and when: a checkpoint that is on its way goes ahead. */
import { pino } from 'pino'
import t from 'tap'
import { Attempt } from '../../src/worker/agent/attempt.ts'
import { Requeues } from '../../src/worker/agent/requeues.ts'
import type { NodeClient } from '../../src/worker/node/node-client.ts'

function setUp() {
  const sent: string[] = []
  const gone: string[] = []
  const client = {
    requeue: async ({ jobs }: { jobs: { workId: string }[] }) => {
      sent.push(...jobs.map(({ workId }) => workId))
      return { returned: jobs.length }
    },
  } as unknown as NodeClient
  const requeues = new Requeues({
    ...{ client, workerId: 'w1', queue: 'default', log: pino({ level: 'silent' }) },
    onGone: attempts => gone.push(...attempts.map(({ ref }) => ref.workId)),
  })
  let keep: () => void = () => undefined
  const attempt = (workId: string): Attempt =>
    new Attempt(
      {
        ...{ workId, token: workId, type: 'x', attempt: 1, attempts: 1 },
        payload: { json: 1 },
        params: {},
        timeoutMs: 1,
      },
      0,
    )
  const busy = attempt('busy')
  busy.checkpointing = new Promise<void>(resolve => {
    keep = () => {
      busy.checkpointing = undefined
      resolve()
    }
  })
  return { requeues, sent, gone, idle: attempt('idle'), busy, keep: () => keep() }
}

t.test('one whose checkpoint is on its way keeps its lease until it is kept', async t => {
  const { requeues, sent, gone, idle, busy, keep } = setUp()
  requeues.requeue([busy, idle])
  requeues.requeue([busy])
  t.same(gone, ['idle'])
  t.ok(requeues.has(busy) && !requeues.has(idle))
  t.notOk(requeues.isSettled)
  keep()
  await requeues.settled()
  t.same({ sent, gone }, { sent: ['idle', 'busy'], gone: ['idle', 'busy'] })
  t.ok(requeues.isSettled && !requeues.has(busy))
})

t.test('it goes at once when there is no time, or does not go when its lease is lost', async t => {
  const late = setUp()
  late.requeues.requeue([late.busy])
  late.requeues.requeueNow([late.busy, late.idle])
  await late.requeues.settled()
  t.same(late.sent.sort(), ['busy', 'idle'])

  const lost = setUp()
  lost.requeues.requeue([lost.busy])
  lost.requeues.forget(lost.busy)
  t.notOk(lost.requeues.has(lost.busy))
  await lost.requeues.settled()
  t.same({ sent: lost.sent, gone: lost.gone }, { sent: [], gone: [] })
})

t.test('one that is to go at once was not sent before', async t => {
  const { requeues, sent, busy } = setUp()
  requeues.requeueNow([busy])
  await requeues.settled()
  t.same(sent, ['busy'])
})
