/** What goes back to its queue, and when: a checkpoint that is on its way goes ahead. */
import { pino } from 'pino'
import t from 'tap'
import { Attempt } from '../../src/worker/agent/attempt.ts'
import { Returns } from '../../src/worker/agent/returns.ts'
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
  const returns = new Returns({
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
  return { returns, sent, gone, idle: attempt('idle'), busy, keep: () => keep() }
}

t.test('one whose checkpoint is on its way keeps its lease until it is kept', async t => {
  const { returns, sent, gone, idle, busy, keep } = setUp()
  returns.give([busy, idle])
  returns.give([busy])
  t.same(gone, ['idle'])
  t.ok(returns.has(busy) && !returns.has(idle))
  t.notOk(returns.isSettled)
  keep()
  await returns.settled()
  t.same({ sent, gone }, { sent: ['idle', 'busy'], gone: ['idle', 'busy'] })
  t.ok(returns.isSettled && !returns.has(busy))
})

t.test('it goes at once when there is no time, or does not go when its lease is lost', async t => {
  const late = setUp()
  late.returns.give([late.busy])
  late.returns.giveNow([late.busy, late.idle])
  await late.returns.settled()
  t.same(late.sent.sort(), ['busy', 'idle'])

  const lost = setUp()
  lost.returns.give([lost.busy])
  lost.returns.forget(lost.busy)
  t.notOk(lost.returns.has(lost.busy))
  await lost.returns.settled()
  t.same({ sent: lost.sent, gone: lost.gone }, { sent: [], gone: [] })
})

t.test('one that is to go at once was not given before', async t => {
  const { returns, sent, busy } = setUp()
  returns.giveNow([busy])
  await returns.settled()
  t.same(sent, ['busy'])
})
