/** Moves on queues: pause, drain, and resume again. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Move, Stage } from '../move.ts'
import { jsonValue } from '../values.ts'
import { look } from './jobs.ts'
import { submit } from './submit.ts'

const queues = ['default', 'second']

export const queueMoves: readonly Move[] = [
  {
    ...{ name: 'pause', group: 'queues', weight: 1, stream: 'users' },
    async run(stage, random) {
      const queue = random.pick(queues)
      await whileClosed(stage, queue, 'pause', async () => {
        const draw = {
          ...{ type: 'noop', queue, payload: undefined, attempts: 1, timeoutMs: 60_000 },
          ending: { value: jsonValue(null), attempts: 1 },
        }
        const workId = await submit(stage, random, draw)
        await delay(random.int(100, 3000))
        if (workId === undefined) return
        await look(stage, workId)
        const job = stage.model.jobs.get(workId)
        if (job?.state === 'running' || job?.state === 'succeeded')
          stage.model.fault(
            'wrong outcome',
            Date.now(),
            `it is ${job.state} although its queue was paused before`,
            workId,
          )
      })
    },
  },
  {
    ...{ name: 'drain', group: 'queues', weight: 0.5, stream: 'users' },
    async run(stage, random) {
      await whileClosed(stage, random.pick(queues), 'drain', async () => await delay(random.int(100, 2000)))
    },
  },
  {
    ...{ name: 'figures', group: 'queues', weight: 4, stream: 'users' },
    async run({ http, model }, random) {
      const path = random.pick(['/status', '/queues', '/queues/second', '/fleet', '/fleet/decisions', '/health/ready'])
      const reply = await http.call('GET', path)
      if (reply.status !== 200 && reply.status !== 503)
        model.fault('wrong answer', reply.at, `GET ${path}: ${reply.status} ${reply.bytes.toString().slice(0, 300)}`)
    },
  },
]

/** One at a time for each queue; resumed whatever happens. */
async function whileClosed(
  stage: Stage,
  queue: string,
  verb: 'pause' | 'drain',
  work: () => Promise<void>,
): Promise<void> {
  const { http, model, closedQueues } = stage
  if (closedQueues.has(queue)) return
  closedQueues.add(queue)
  try {
    const reply = await http.insist('POST', `/queues/${queue}/${verb}`)
    model.history.around(reply.at, `${queue}: ${verb}, answered ${reply.status}`)
    await work()
  } finally {
    const reply = await http.insist('POST', `/queues/${queue}/resume`)
    model.history.around(reply.at, `${queue}: resumed, answered ${reply.status}`)
    // Submissions that were under way meanwhile may still be refused for it.
    void delay(5000, undefined, { ref: false }).then(() => closedQueues.delete(queue))
  }
}
