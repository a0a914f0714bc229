/** Moves that take room away for a while: on the disk of the data, and in Redis. Jobs at hand go on; new ones are refused. */
import { setTimeout as delay } from 'node:timers/promises'
import { type Deployment, diskReserveMib } from '../deployment.ts'
import { NoAnswer } from '../http.ts'
import type { Move, Stage } from '../move.ts'
import type { Random } from '../random.ts'
import { withRedis } from '../redis-keys.ts'
import { jsonValue } from '../values.ts'
import { pull } from './collect.ts'
import { cancel } from './jobs.ts'
import { submit } from './submit.ts'

const mebibyte = 1 << 20
/** A busy machine may take so long to see that there is no room, and to heal when there is. */
const patienceMs = 90_000

const plainJob = (delayMs?: number) => ({
  ...{ type: 'noop', queue: 'default', payload: undefined, attempts: 1, timeoutMs: 60_000 },
  ending: { value: jsonValue(null), attempts: 1 },
  ...(delayMs !== undefined && { options: { delayMs } }),
})

export const roomMoves: readonly Move[] = [
  {
    ...{
      name: 'fill the disk into its reserve',
      group: 'room',
      weight: 2,
      stream: 'disturbances',
      needs: 'small disk',
    },
    async run(stage, random) {
      const disk = (stage.deployment as Deployment).disk as NonNullable<Deployment['disk']>
      const leftMib = random.int(diskReserveMib / 2, diskReserveMib - 16)
      // Not before all disturbances have let it be: it is cancelled while there is no room.
      const toCancel = await submit(stage, random.fork('to cancel'), plainJob(600_000), { isOnce: true })
      try {
        await whileFull(
          stage,
          `the disk has ${leftMib} MiB`,
          async () => {
            await disk.fill(leftMib * mebibyte)
            await untilRefused(stage, random, async () => (await disk.freeBytes()) < diskReserveMib * mebibyte)
            if (toCancel !== undefined && (await cancel(stage, toCancel)) !== 'cancelled')
              stage.model.fault('wrong answer', Date.now(), 'it cannot be cancelled while the disk is full', toCancel)
            await pull(stage, 'default', { top: 5 })
            await delay(random.int(0, 4000))
          },
          async () => disk.free(),
        )
      } finally {
        await cancelled(stage, toCancel)
      }
    },
  },
  {
    ...{ name: 'fill the disk', group: 'room', weight: 1, stream: 'disturbances', needs: 'small disk' },
    async run(stage, random) {
      const disk = (stage.deployment as Deployment).disk as NonNullable<Deployment['disk']>
      await whileFull(
        stage,
        'the disk is full',
        async () => {
          await disk.fill(0)
          await delay(random.int(500, 6000))
        },
        async () => disk.free(),
      )
    },
  },
  {
    ...{ name: 'fill Redis', group: 'room', weight: 1, stream: 'disturbances', needs: 'one machine' },
    async run(stage, random) {
      const { redis: place } = stage.deployment as Deployment
      const before = await withRedis(place, async redis => ((await redis.config('GET', 'maxmemory')) as string[])[1])
      const share = random.pick([0.8, 1.02, 1.08])
      await whileFull(
        stage,
        `Redis may have ${share} of what it uses`,
        async () => {
          await withRedis(place, async redis => {
            const used = Number(/^used_memory:(\d+)/m.exec(await redis.info('memory'))?.[1])
            await redis.config('SET', 'maxmemory', Math.floor(used * share))
          })
          await delay(random.int(500, 5000))
        },
        async () => await withRedis(place, async redis => void (await redis.config('SET', 'maxmemory', before ?? '0'))),
      )
    },
  },
]

/** Takes room away, gives it back whatever happens, and waits until jobs are taken again. */
async function whileFull(
  stage: Stage,
  text: string,
  work: () => Promise<void>,
  requeue: () => Promise<void>,
): Promise<void> {
  const { model, http } = stage
  const tell = (line: string): void => {
    model.disturbed('room', Date.now())
    model.history.around(Date.now(), line)
  }
  tell(text)
  const refusedBefore = http.refusals.overloaded ?? 0
  try {
    await work()
  } finally {
    await requeue()
    tell(`there is room again; ${(http.refusals.overloaded ?? 0) - refusedBefore} submissions were refused meanwhile`)
  }
  await stage.deployment?.untilReady()
  await untilTaken(stage)
  tell('jobs are taken again')
}

/** Until a submission is refused for want of room; what is accepted before is a job like any other. */
async function untilRefused(stage: Stage, random: Random, isFull: () => Promise<boolean>): Promise<void> {
  const { http, model } = stage
  for (let [deadline, tries] = [Date.now() + patienceMs, 0]; ; tries += 1) {
    const refusedBefore = http.refusals.overloaded ?? 0
    await submit(stage, random.fork(`refused ${tries}`), plainJob(), { isOnce: true })
    if ((http.refusals.overloaded ?? 0) > refusedBefore || !(await isFull())) return
    if (Date.now() > deadline) break
    await delay(250)
  }
  model.fault('wrong answer', Date.now(), `jobs were taken for ${patienceMs} ms although the disk is in its reserve`)
}

/** As the node says itself; users find out meanwhile. */
async function untilTaken(stage: Stage): Promise<void> {
  const { http, model } = stage
  for (const deadline = Date.now() + patienceMs; ; await delay(250)) {
    const checks = await http.call('GET', '/health/checks').catch((error: unknown) => {
      if (!(error instanceof NoAnswer)) throw error
    })
    if (checks?.status === 200 && checks.json().overloaded === undefined) return
    if (Date.now() < deadline) continue
    const said = checks === undefined ? 'nothing' : checks.bytes.toString().slice(0, 500)
    model.fault('no answer', Date.now(), `no jobs are taken ${patienceMs} ms after there was room again: ${said}`)
    return
  }
}

async function cancelled(stage: Stage, workId: string | undefined): Promise<void> {
  if (workId === undefined || stage.model.jobs.get(workId)?.state === 'cancelled') return
  for (let tries = 0; tries < 100; tries += 1) {
    const answer = await cancel(stage, workId).catch((error: unknown) => {
      if (!(error instanceof NoAnswer)) throw error
    })
    if (answer !== undefined) return
    await delay(500)
  }
}
