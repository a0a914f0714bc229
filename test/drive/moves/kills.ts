/** Moves that kill: SIGKILL to node, worker, slot and Redis; all of them come back by themselves or are started again. */
import { setTimeout as delay } from 'node:timers/promises'
import { type Deployment, kill } from '../deployment.ts'
import type { Disturbance } from '../facts.ts'
import type { Move, Stage } from '../move.ts'
import type { ProcessInfo } from '../processes.ts'
import type { Random } from '../random.ts'

export const killMoves: readonly Move[] = [
  {
    ...{ name: 'kill a worker', group: 'kills', weight: 4, stream: 'disturbances', needs: 'deployment' },
    run: async (stage, random) => await killOne(stage, random, 'worker', isWorker),
  },
  {
    ...{ name: 'kill a slot', group: 'kills', weight: 4, stream: 'disturbances', needs: 'deployment' },
    run: async (stage, random) => await killOne(stage, random, 'slot', isSlot),
  },
  {
    ...{ name: 'kill Redis', group: 'kills', weight: 2, stream: 'disturbances', needs: 'deployment' },
    async run(stage, random) {
      await killOne(stage, random, 'redis', ({ command }) => /redis-server/.test(command) && !/sentinel/.test(command))
      await stage.deployment?.untilReady()
    },
  },
  {
    ...{ name: 'kill the node', group: 'kills', weight: 2, stream: 'disturbances', needs: 'deployment' },
    run: async (stage, random) => await restartNode(stage, random, 'SIGKILL'),
  },
  {
    ...{ name: 'restart the node', group: 'kills', weight: 1, stream: 'disturbances', needs: 'deployment' },
    run: async (stage, random) => await restartNode(stage, random, 'SIGTERM'),
  },
  {
    ...{
      name: 'kill a worker in another language',
      group: 'kills',
      weight: 1,
      stream: 'disturbances',
      needs: 'deployment',
    },
    async run(stage, random) {
      const deployment = stage.deployment as Deployment
      tell(stage, 'worker', 'the worker in Python is killed')
      await deployment.restart(random.pick(deployment.outsideWorkers), random.pick(['SIGKILL', 'SIGTERM'] as const))
    },
  },
]

export const isWorker = ({ command }: ProcessInfo): boolean => / worker( |$)/.test(command) && !/python/.test(command)
export const isSlot = ({ command }: ProcessInfo): boolean => /slot-main/.test(command)

function tell({ model }: Stage, kind: Disturbance, text: string): void {
  model.disturbed(kind, Date.now())
  model.history.around(Date.now(), text)
}

async function killOne(
  stage: Stage,
  random: Random,
  kind: Disturbance,
  is: (info: ProcessInfo) => boolean,
): Promise<void> {
  const found = (await (stage.deployment as Deployment).processes()).filter(is)
  if (found.length === 0) return
  const { pid } = random.pick(found)
  tell(stage, kind, `SIGKILL to ${kind} ${pid}`)
  kill(pid, 'SIGKILL')
}

async function restartNode(stage: Stage, random: Random, signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
  const deployment = stage.deployment as Deployment
  const name = random.pick(deployment.nodes)
  tell(stage, 'node', `${signal} to ${name}`)
  await deployment.restart(name, signal)
  await deployment.untilReady()
  tell(stage, 'node', `${name} is ready again`)
  await delay(random.int(0, 1000))
}
