/** What goes back to its queue, and when: a checkpoint that is on its way goes ahead. */
import { pino } from 'pino'
import t from 'tap'
import { Requeues } from '../../src/worker/agent/requeues.ts'
import { Attempt } from '../../src/worker/attempts/attempt.ts'
import { AttemptTable } from '../../src/worker/attempts/attempt-table.ts'
import type { NodeClient } from '../../src/worker/node/node-client.ts'

function setUp() {
  const sent: string[] = []
  const none = (): void => undefined
  const table = new AttemptTable({
    ...{ onOutcome: none, onRequeue: none, onUpdate: none, onCheckpoint: none, onRoom: none },
  })
  const client = {
    requeue: async ({ jobs }: { jobs: { workId: string }[] }) => {
      sent.push(...jobs.map(({ workId }) => workId))
      return { returned: jobs.length }
    },
  } as unknown as NodeClient
  const requeues = new Requeues({
    ...{ client, workerId: 'w1', queue: 'default', log: pino({ level: 'silent' }), attempts: table },
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
  const idle = attempt('idle')
  for (const one of [idle, busy]) table.add(one)
  const held = (): string[] => table.refs().map(({ workId }) => workId)
  return { requeues, table, sent, held, idle, busy, keep: () => keep() }
}

t.test('one whose checkpoint is on its way keeps its lease until it is kept', async t => {
  const { requeues, table, sent, held, idle, busy, keep } = setUp()
  requeues.requeue([busy, idle])
  requeues.requeue([busy])
  t.same(held(), ['busy'])
  t.same([busy.place, idle.place], ['requeues', 'gone'])
  t.notOk(table.isOnly(busy), 'a call is on its way')
  keep()
  await requeues.settled()
  t.same({ sent, held: held() }, { sent: ['idle', 'busy'], held: [] })
  t.equal(table.leaving.size, 0)
})

t.test('it goes at once when there is no time, or does not go when its lease is lost', async t => {
  const late = setUp()
  late.requeues.requeue([late.busy])
  late.requeues.requeueNow([late.busy, late.idle])
  await late.requeues.settled()
  t.same(late.sent.sort(), ['busy', 'idle'])

  const lost = setUp()
  lost.requeues.requeue([lost.busy])
  lost.table.remove([lost.busy])
  await lost.requeues.settled()
  t.same({ sent: lost.sent, held: lost.held() }, { sent: [], held: ['idle'] })
})

t.test('one that is to go at once was not sent before', async t => {
  const { requeues, sent, busy } = setUp()
  requeues.requeueNow([busy])
  await requeues.settled()
  t.same(sent, ['busy'])
})
