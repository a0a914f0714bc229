/** Moves of an operator on the fleet: spawn, terminate, with and without force. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Deployment } from '../deployment.ts'
import type { Move, Stage } from '../move.ts'
import type { Random } from '../random.ts'

interface Instance {
  readonly instanceId: string
}

export const fleetMoves: readonly Move[] = [
  {
    ...{ name: 'resize the fleet', group: 'fleet', weight: 1, stream: 'disturbances', needs: 'deployment' },
    /** As an operator does it: each node is restarted with other limits, one after another. */
    async run(stage, random) {
      const deployment = stage.deployment as Deployment
      const most = random.int(1, 4)
      const limits = { MUSTER_MAX_WORKERS: String(most), MUSTER_MIN_WORKERS: String(random.int(0, Math.min(2, most))) }
      const tell = (text: string): void => {
        stage.model.disturbed('node', Date.now())
        stage.model.history.around(Date.now(), text)
      }
      for (const name of deployment.nodes) {
        tell(`${name} is restarted with ${JSON.stringify(limits)}`)
        await deployment.restart(name, 'SIGTERM', limits)
        await deployment.untilReady()
        tell(`${name} is ready again`)
      }
    },
  },
  {
    ...{ name: 'deploy handlers', group: 'fleet', weight: 3, stream: 'disturbances', needs: 'deployment' },
    async run(stage, random) {
      const { http, model } = stage
      const { version, body } = nextHandlers(stage)
      model.history.around(Date.now(), `version ${version} of the handlers is deployed`)
      model.versions.asked(version, Date.now())
      const reply = await http.call('PUT', '/handlers', { headers: { 'content-type': 'text/javascript' }, body })
      model.history.around(reply.at, `version ${version} was answered ${reply.status} ${reply.code()}`)
      if (reply.status === 200) model.versions.answered(version, reply.at)
      else if (reply.status !== 503)
        model.fault('wrong answer', reply.at, `PUT /handlers: ${reply.status} ${reply.bytes.toString().slice(0, 600)}`)
      await delay(random.int(0, 3000))
    },
  },
  {
    ...{ name: 'take a type away', group: 'fleet', weight: 2, stream: 'disturbances', needs: 'deployment' },
    /** Its jobs wait meanwhile, and run once the handlers have it again. */
    async run(stage, random) {
      const { http, model } = stage
      const put = async (body: string): Promise<number> =>
        (await http.insist('PUT', '/handlers', { headers: { 'content-type': 'text/javascript' }, body })).status
      const [less, all] = [
        nextHandlers(stage).body.replace("type: 'd.version'", "type: 'd.absent'"),
        nextHandlers(stage),
      ]
      model.history.around(Date.now(), 'the handlers lose the type "d.version"')
      const statuses = [await put(less)]
      await delay(random.int(0, 6000))
      model.history.around(Date.now(), `version ${all.version} of the handlers is deployed, with the type "d.version"`)
      model.versions.asked(all.version, Date.now())
      statuses.push(await put(all.body))
      if (statuses[1] === 200) model.versions.answered(all.version, Date.now())
      if (statuses.some(status => status !== 200))
        model.fault('wrong answer', Date.now(), `PUT /handlers: ${statuses.join(', ')}`)
    },
  },
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

function nextHandlers({ deployment }: Stage): { version: number; body: string } {
  const { handlers } = deployment as Deployment
  const version = (deployment as Deployment).nextVersion()
  return { version, body: handlers.replace('const deployed = 0', `const deployed = ${version}`) }
}

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
