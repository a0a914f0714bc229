/** Moves of an operator on the fleet: spawn, terminate, with and without force. */
import type { Move, Stage } from '../move.ts'
import type { Random } from '../random.ts'

interface Instance {
  readonly instanceId: string
}

export const fleetMoves: readonly Move[] = [
  {
    ...{ name: 'spawn', group: 'fleet', weight: 2, stream: 'disturbances' },
    async run(stage, random) {
      const body = JSON.stringify({ queue: random.pick(['default', 'second']), count: random.int(1, 3) })
      await order(stage, '/fleet/spawn', body, ['fleet_at_ceiling', 'fleet_launch_failed', 'fleet_none'])
    },
  },
  {
    ...{ name: 'terminate', group: 'fleet', weight: 2, stream: 'disturbances' },
    run: async (stage, random) => await terminate(stage, random, false),
  },
  {
    ...{ name: 'terminate by force', group: 'fleet', weight: 1, stream: 'disturbances' },
    run: async (stage, random) => await terminate(stage, random, true),
  },
]

async function terminate(stage: Stage, random: Random, force: boolean): Promise<void> {
  const fleet = await stage.http.insist('GET', '/fleet')
  if (fleet.status !== 200) return
  const pools = fleet.json().pools as { queue: string; instances: Instance[] }[]
  const instances = pools.flatMap(({ instances }) => instances)
  if (instances.length === 0) return
  const { instanceId } = random.pick(instances)
  if (force) stage.model.disturbed('worker', Date.now())
  await order(stage, `/fleet/instances/${instanceId}/terminate?force=${force}`, '{}', ['instance_not_found'])
}

async function order({ http, model }: Stage, path: string, body: string, refusals: readonly string[]): Promise<void> {
  const reply = await http.call('POST', path, { headers: { 'content-type': 'application/json' }, body })
  model.history.around(reply.at, `POST ${path} ${body}: ${reply.status} ${reply.code()}`)
  if (reply.status !== 200 && reply.status !== 503 && !refusals.includes(reply.code()))
    model.fault(
      'wrong answer',
      reply.at,
      `POST ${path} ${body}: ${reply.status} ${reply.bytes.toString().slice(0, 300)}`,
    )
}
