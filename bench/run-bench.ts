/**
 * The measurements, one after the other. Ours and BullMQ's take turns, and who goes first changes with every round.
 *
 *   start ─▶ warm-up with a worker, for memory ─▶ enqueue, without workers ─▶ end to end, with a worker
 *         ─▶ pass-through ─▶ latency ─▶ hashing
 */
import { randomBytes } from 'node:crypto'
import type { Figures } from './figures.ts'
import { type Plan, shape } from './plan.ts'
import type { Processes } from './processes.ts'
import { hashInPython } from './python.ts'
import { dataBytes, untilQuiet } from './redis-state.ts'
import type { Stack } from './stack.ts'
import { spreadOf } from './statistics.ts'
import { TaskProcess } from './task-process.ts'
import type { BullTasks } from './tasks/bull.ts'
import type { ClientTasks } from './tasks/client.ts'
import type { HashTasks } from './tasks/hash.ts'

export interface Bench {
  readonly processes: Processes
  readonly stack: Stack
  readonly plan: Plan
  /** Told what is being done. */
  readonly say: (text: string) => void
}

/** @throws Error when a part fails; whoever started the processes ends them */
export async function runBench({ processes, stack, plan, say }: Bench): Promise<Figures> {
  const client = new TaskProcess<ClientTasks>(processes, 'client')
  const bull = new TaskProcess<BullTasks>(processes, 'bull')
  const sides = makeSides(client, bull, stack, plan.jobsPerRound)
  const rounds = async (what: string, round: (turn: Turn) => Promise<void>): Promise<void> => {
    for (let count = 1; count <= plan.rounds; count++) {
      say(`${what}, round ${count} of ${plan.rounds}`)
      await round(turnOf(count, stack))
    }
  }

  say('warm-up, and memory per job')
  const stopFirstWorker = await stack.startWorker()
  const bytes = await measureMemory(sides, stack, plan.jobsPerRound)
  await stopFirstWorker()

  const enqueue: number[] = []
  const bullAdd: number[] = []
  await sides.pause()
  await rounds('enqueue', async turn => {
    await turn(
      async () => enqueue.push(await sides.enqueue()),
      async () => bullAdd.push(await sides.add()),
    )
  })

  say('working off what was enqueued')
  await stack.startWorker()
  await sides.drain(plan.rounds * plan.jobsPerRound)
  await sides.work(plan.rounds * plan.jobsPerRound)

  const bullAddBulk: number[] = []
  const endToEnd: number[] = []
  const bullWork: number[] = []
  await rounds('end to end', async turn => {
    await sides.pause()
    await sides.enqueue()
    bullAddBulk.push(await sides.addBulk())
    await turn(
      async () => endToEnd.push(await sides.drain(plan.jobsPerRound)),
      async () => bullWork.push(await sides.work(plan.jobsPerRound)),
    )
  })

  const passThrough: number[] = []
  await rounds('put, run and pulled at once', async turn => {
    await turn(async () => passThrough.push(await sides.passThrough()))
  })

  say('latency, idle')
  const latency = { url: stack.url, bodyBytes: shape.bodyBytes }
  const idle = await client.run('latency', { ...latency, jobs: plan.idleSamples, jobsPerSecond: 0 })
  const jobsPerSecond = Math.round((plan.jobsPerRound / spreadOf(passThrough).median) * 500)
  say(`latency at half load: ${jobsPerSecond} jobs/s`)
  const jobs = Math.round((jobsPerSecond * plan.halfLoadMs) / 1000)
  const half = await client.run('latency', { ...latency, jobs, jobsPerSecond })

  say('sha512')
  return {
    jobsPerRound: plan.jobsPerRound,
    elapsedMs: { enqueue, bullAdd, bullAddBulk, endToEnd, bullWork, passThrough },
    bytes,
    idleLatenciesMs: idle.latenciesMs,
    halfLoad: { jobsPerSecond, latenciesMs: half.latenciesMs },
    hash: await measureHash(processes, plan.hashRounds),
  }
}

type Turn = (...parts: (() => Promise<unknown>)[]) => Promise<void>

/** Runs the parts one after the other, in every second round the other way round, each on a quiet Redis. */
const turnOf =
  (round: number, { redis }: Stack): Turn =>
  async (...parts) => {
    for (const part of round % 2 === 1 ? parts : parts.toReversed()) {
      await untilQuiet(redis)
      await part()
    }
  }

type Sides = ReturnType<typeof makeSides>

/** What both sides do, with the same number of jobs of the same size. All times in ms. */
function makeSides(client: TaskProcess<ClientTasks>, bull: TaskProcess<BullTasks>, stack: Stack, jobs: number) {
  const { url, socketPath } = stack
  const { bodyBytes, connections, bulk, workerConcurrency } = shape
  const timed = async (run: Promise<{ elapsedMs: number }>): Promise<number> => (await run).elapsedMs
  return {
    async pause(): Promise<void> {
      const reply = await fetch(`${url}/queues/default/pause`, { method: 'POST', signal: AbortSignal.timeout(5000) })
      if (!reply.ok) throw new Error(`The queue was not paused: ${reply.status} ${await reply.text()}`)
    },
    enqueue: () => timed(client.run('enqueue', { url, jobs, connections, bodyBytes })),
    add: () => timed(bull.run('add', { socketPath, jobs, bodyBytes, inFlight: connections })),
    addBulk: () => timed(bull.run('addBulk', { socketPath, jobs, bodyBytes, bulk })),
    passThrough: () => timed(client.run('passThrough', { url, jobs, connections, bodyBytes })),
    drain: (count: number) => timed(client.run('drain', { url, jobs: count })),
    work: (count: number) => timed(bull.run('work', { socketPath, jobs: count, concurrency: workerConcurrency })),
  }
}

async function measureMemory(sides: Sides, { redis }: Stack, jobs: number): Promise<Figures['bytes']> {
  const perJob = async (since: number): Promise<number> => ((await dataBytes(redis)) - since) / jobs
  await sides.pause()
  const before = await dataBytes(redis)
  await sides.enqueue()
  const waiting = await perJob(before)
  await sides.drain(jobs)
  const finished = await perJob(before)
  const between = await dataBytes(redis)
  await sides.add()
  const bullWaiting = await perJob(between)
  await sides.work(jobs)
  return { waiting, finished, bullWaiting, bullFinished: await perJob(between) }
}

async function measureHash(processes: Processes, rounds: number): Promise<Figures['hash']> {
  const hash = new TaskProcess<HashTasks>(processes, 'hash')
  const params = { data: randomBytes(shape.bodyBytes).toString('base64'), iterations: shape.hashIterations }
  const ns = (elapsedMs: number): number => (elapsedMs * 1e6) / params.iterations
  const nsPerIteration: number[] = []
  const pythonNsPerIteration: number[] = []
  for (let round = 0; round < rounds; round++) {
    const ours = await hash.run('hash', params)
    nsPerIteration.push(ns(ours.elapsedMs))
    const python = await hashInPython(processes, params)
    if (python === undefined) continue
    if (python.digest !== ours.digest) throw new Error('The digest is not the one of Python')
    pythonNsPerIteration.push(ns(python.elapsedMs))
  }
  return { nsPerIteration, pythonNsPerIteration }
}
