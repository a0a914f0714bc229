/**
 * One drive, from an empty deployment to an empty deployment:
 *
 *   start ──▶ moves (users at once, disturbances one after another; the oracle looks on) ──▶ settle ──▶ nothing is left
 */
import { setTimeout as delay } from 'node:timers/promises'
import { Deployment, limits } from './deployment.ts'
import type { Fault } from './facts.ts'
import { Http, NoAnswer } from './http.ts'
import { kinds } from './kinds.ts'
import { Model } from './model.ts'
import type { Move, Stage } from './move.ts'
import { moves } from './moves/catalogue.ts'
import { chosen, type DriveOptions } from './options.ts'
import { Oracle } from './oracle.ts'
import { Random } from './random.ts'
import { whatIsLeft } from './what-is-left.ts'

export interface DriveResult {
  readonly faults: readonly Fault[]
  readonly model: Model
  /** How often each move was made. */
  readonly counts: ReadonlyMap<string, number>
  readonly peakNodeBytes: number
  /** How often each code of 429 and 503 was answered. */
  readonly refusals: Readonly<Record<string, number>>
  /** Why no more moves were made. */
  readonly endedBy: string
}

/** In CI other things run beside it. */
const slackMs = process.env.CI === undefined ? 45_000 : 90_000
/** Of a deployment that is not ours; by default it is half a minute. */
const longestLeaseMs = 60_000
/** So long after a kill a node may be away. */
const recoversWithinMs = 60_000

export async function drive(options: DriveOptions, root: string, say: (line: string) => void): Promise<DriveResult> {
  const startedAt = Date.now()
  const leaseMs = options.url === undefined ? limits.leaseMs : longestLeaseMs
  const model = new Model({ startedAt, leaseMs, slackMs, looksAreFinal: !options.twoNodes })
  const deployment = options.url === undefined ? await startDeployment(options, root, model, say) : undefined
  if (deployment !== undefined) say(`${deployment.urls.join(' and ')}, data in ${deployment.folder}`)
  const counts = new Map<string, number>()
  try {
    const stage = makeStage(options, model, deployment)
    const worker = await makeOwners(stage, options)
    deployment?.startOutsideWorkers(worker)
    await untilTypesAreKnown(stage)
    if (deployment === undefined) await overlookWhatIsThere(stage)
    const oracle = new Oracle({ stage, slackMs })
    const over = new AbortController()
    const watching = oracle.watch(over.signal)
    let told = 0
    const tell = (): void => {
      for (const { kind, sentence, workId } of model.faults.slice(told)) {
        say(`  ${kind} ${workId ?? ''}: ${sentence.slice(0, 300)}`)
        if (workId !== undefined) void noteLog(stage, workId)
      }
      told = model.faults.length
      say(progressOf(model))
    }
    const telling = setInterval(tell, 10_000)
    over.signal.addEventListener('abort', () => clearInterval(telling))
    await makeMoves(stage, options, counts)
    const endedBy =
      model.faults.length >= options.maxFaults
        ? `${model.faults.length} faults, where --max-faults is ${options.maxFaults}`
        : `its time, ${options.minutes} minutes`
    say(`the moves were ended by ${endedBy}; ${model.jobs.size} jobs were accepted, and all is collected now`)
    await oracle.settle()
    over.abort()
    await watching
    model.settled(Date.now())
    if (deployment !== undefined)
      await whatIsLeft(stage, deployment, slackMs, !options.without.includes('payload files'))
    const { refusals } = stage.http
    return { faults: model.faults, model, counts, peakNodeBytes: oracle.peakNodeBytes, refusals, endedBy }
  } finally {
    const left = (await deployment?.stop()) ?? []
    for (const { pid, command } of left)
      model.fault('leaked', Date.now(), `the process ${pid} (${command.slice(0, 120)}) outlived the deployment`)
  }
}

/** What handlers and workers wrote into the log of a job that went wrong, while it can be read. */
async function noteLog({ http, model }: Stage, workId: string): Promise<void> {
  try {
    const { lines } = (await http.call('GET', `/jobs/${workId}/logs`)).json() as { lines?: readonly string[] }
    for (const line of (lines ?? []).slice(-20)) model.history.job(workId, Date.now(), `its log: ${line.slice(0, 300)}`)
  } catch {
    // The history goes without.
  }
}

async function startDeployment(
  options: DriveOptions,
  root: string,
  model: Model,
  say: (line: string) => void,
): Promise<Deployment> {
  const onSurprise = (sentence: string): void => {
    // What it takes along is judged by its own loss.
    model.disturbed('node', Date.now())
    model.history.around(Date.now(), sentence.split('\n')[0] as string)
    model.fault('node ended', Date.now(), sentence)
  }
  const hasWorkerUser = new Random(options.seed).fork('worker user').chance(0.5)
  const { twoNodes, keep } = options
  return await Deployment.start({ ...{ root, twoNodes, keep, hasWorkerUser }, onSurprise, say })
}

function makeStage(options: DriveOptions, model: Model, deployment: Deployment | undefined): Stage {
  const onServerError = (sentence: string): void => model.fault('server error', Date.now(), sentence)
  const onWrongRefusal = (sentence: string): void => model.fault('wrong answer', Date.now(), sentence)
  const urls = deployment?.urls ?? [options.url as string]
  return {
    ...{ http: new Http(urls, { onServerError, onWrongRefusal }, options.key), model, deployment },
    kinds: chosen(kinds, options),
    maxBodyBytes: limits.maxBodyBytes,
    ...{ closedQueues: new Set<string>(), leases: [], keys: [] },
    openJob(random) {
      const open = [...model.jobs.values()].slice(-400)
      return open.length === 0 ? undefined : random.pick(open)
    },
    calmForMs: () => Date.now() - model.lastDisturbedAt,
  }
}

/**
 * Two keys, of which the first may do all. A deployment that is open is not ours to close.
 * @returns the key of the first
 */
async function makeOwners({ http, deployment }: Stage, { key: given }: DriveOptions): Promise<string> {
  if (deployment === undefined && given === '') return ''
  const make = async (name: string, roles: readonly string[]): Promise<string> => {
    const body = JSON.stringify({ name, roles })
    const reply = await http.insist('POST', '/keys', { headers: { 'content-type': 'application/json' }, body })
    if (reply.status !== 200)
      throw new Error(`no key can be made: ${reply.status} ${reply.bytes.toString().slice(0, 300)}`)
    return reply.json().key
  }
  const key = given === '' ? await make('drive', ['submit', 'collect', 'work', 'read', 'operate']) : given
  http.useKeys(key, '')
  http.useKeys(key, await make('drive-other', ['submit']))
  return key
}

/** A type of workers in another language is known once such a worker was there. */
async function untilTypesAreKnown({ http, kinds: some }: Stage): Promise<void> {
  if (!some.some(({ group }) => group === 'foreign')) return
  for (const deadline = Date.now() + slackMs; Date.now() < deadline; await delay(200)) {
    const fleet = await http.insist('GET', '/fleet')
    if (fleet.status === 200 && fleet.bytes.includes('"wordCount"')) return
  }
  throw new Error('the worker in Python did not appear')
}

/** Jobs of others from before are no business of this drive. */
async function overlookWhatIsThere({ http, model }: Stage): Promise<void> {
  for (let cursor = ''; ; ) {
    const reply = await http.insist('GET', `/jobs?limit=1000${cursor}`)
    if (reply.status !== 200) throw new Error(`GET /jobs: ${reply.status} ${reply.bytes.toString().slice(0, 300)}`)
    const { jobs, nextCursor } = reply.json() as { jobs: { workId: string }[]; nextCursor?: string }
    for (const { workId } of jobs) model.acceptedUnjudged(workId)
    if (nextCursor === undefined) return
    cursor = `&cursor=${encodeURIComponent(nextCursor)}`
  }
}

async function makeMoves(stage: Stage, options: DriveOptions, counts: Map<string, number>): Promise<void> {
  const { model } = stage
  const random = new Random(options.seed)
  const deadline = Date.now() + options.minutes * 60_000
  const isOver = (): boolean => Date.now() > deadline || model.faults.length >= options.maxFaults
  const usable = chosen(moves, options).filter(({ needs }) => isPossible(needs, stage))
  let made = 0
  const user = async (): Promise<void> => {
    while (!isOver()) {
      // The plan is one sequence, whoever of the users comes first to take the next move of it.
      const own = random.fork(`user ${made++}`)
      await makeMove(own.weighted(usable.filter(({ stream }) => stream === 'users')), own, stage, counts)
    }
  }
  const disturbances = usable.filter(({ stream }) => stream === 'disturbances')
  const disturb = async (): Promise<void> => {
    for (let index = 0; disturbances.length > 0 && !isOver(); index += 1) {
      const own = random.fork(`disturbance ${index}`)
      await delay(Math.min(own.int(500, 6000), Math.max(0, deadline - Date.now())))
      if (!isOver()) await makeMove(own.weighted(disturbances), own, stage, counts)
    }
  }
  await Promise.all([disturb(), ...Array.from({ length: options.users }, user)])
}

function progressOf({ jobs, faults, history }: Model): string {
  const over = [...jobs.values()].filter(({ end }) => end !== undefined).length
  return `${history.time(Date.now())}: ${jobs.size} jobs accepted, ${over} over, ${faults.length} faults`
}

function isPossible(needs: Move['needs'], { deployment }: Stage): boolean {
  if (needs === undefined) return true
  if (deployment === undefined) return false
  if (needs === 'small disk') return deployment.disk !== undefined
  return needs === 'deployment' || (needs === 'two nodes') === deployment.isTwoNodes
}

async function makeMove(move: Move, random: Random, stage: Stage, counts: Map<string, number>): Promise<void> {
  counts.set(move.name, (counts.get(move.name) ?? 0) + 1)
  try {
    await move.run(stage, random)
  } catch (error) {
    if (!(error instanceof NoAnswer)) throw new Error(`the move "${move.name}" failed`, { cause: error })
    // A node that is away refuses at once: no reason to try as fast as that. By then its end is known, too.
    await delay(500)
    if (stage.calmForMs() > recoversWithinMs && move.group !== 'hostile')
      stage.model.fault('no answer', Date.now(), `${move.name}: ${error.message} (${describeCause(error)})`)
  }
}

const describeCause = ({ cause }: Error): string => {
  const inner = cause instanceof Error ? (cause.cause ?? cause) : cause
  return inner instanceof Error
    ? `${(inner as NodeJS.ErrnoException).code ?? inner.name}: ${inner.message}`
    : String(inner)
}
