/** GET /status: the figures at a glance. */
import { Type } from 'typebox'
import { mayUseQueue } from '../../access/roles.ts'
import type { Api, App } from '../api.ts'
import { problems } from '../schemas.ts'

const count = (description: string) => Type.Integer({ minimum: 0, description })

const Status = Type.Object(
  {
    Jobs: count('Waiting, ready to be claimed'),
    Workers: count('Alive'),
    Running: count('Leased to workers'),
    Delayed: count('Waiting for their time'),
    Uncollected: count('Results that wait to be pulled; not those under the lease of a pull'),
    Dead: count('Failed for good; can be replayed'),
  },
  { description: 'Sums over all queues, or over those of the key' },
)

export function addStatus(app: App, { jobs, fleet }: Api): void {
  app.get(
    '/status',
    {
      schema: {
        operationId: 'getStatus',
        summary: 'The figures at a glance',
        tags: ['work'],
        response: { 200: Status, ...problems() },
      },
    },
    async ({ caller }) => {
      const [counts, workers] = await Promise.all([jobs.counts(), countWorkers(caller.queues)])
      const sum = (key: 'waiting' | 'running' | 'delayed' | 'uncollected' | 'dead'): number =>
        [...counts].reduce((total, [queue, one]) => total + (mayUseQueue(caller, queue) ? one[key] : 0), 0)
      return {
        Jobs: sum('waiting'),
        Workers: workers,
        Running: sum('running'),
        Delayed: sum('delayed'),
        Uncollected: sum('uncollected'),
        Dead: sum('dead'),
      }
    },
  )

  async function countWorkers(queues: ReadonlySet<string> | undefined): Promise<number> {
    if (queues === undefined) return await fleet.registry.countAlive()
    return (await fleet.registry.list()).filter(({ queue }) => queues.has(queue)).length
  }
}
