/** Walks one scenario through its acts: work flows, harm, heal, work flows again, what was accepted is collected. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Moments } from './checker.ts'
import { nowMs } from './clock.ts'
import type { Deployment } from './deployment.ts'
import type { Ledger } from './ledger.ts'
import type { Load } from './load.ts'
import type { Scenario, Stage } from './scenario.ts'
import { waitFor } from './wait-for.ts'

export interface ScenarioParts {
  readonly deployment: Deployment
  readonly ledger: Ledger
  /** Of the host `clients`, and of the host `far`. */
  readonly load: Load
  readonly farLoad: Load
  readonly signal: AbortSignal
}

export interface ScenarioRun {
  readonly scenario: Scenario
  readonly moments: Moments
  /** From the heal until all was whole again; from the harm, when that mends itself. */
  readonly wholeAfterMs: number
  /** What was last to be whole. */
  readonly late: readonly string[]
  /** What went wrong in the run itself: it never recovered, say. */
  readonly faults: readonly string[]
}

const flowsWithinMs = 20_000
const steadyMs = 1500
const recoversWithinMs = 60_000
const afterwardsMs = 1000
/** The harm takes a moment to show; and clients are watched at least this long after it. */
const lookAfterMs = 1000
const watchMs = 6000
/** What is leased to a pull whose reply got lost comes back later: the next scenarios collect it. */
const drainMs = 6000

/** @throws Error when work does not flow before the harm, or the harm cannot be done */
export async function runScenario(scenario: Scenario, parts: ScenarioParts): Promise<ScenarioRun> {
  const { deployment, ledger, load, farLoad } = parts
  const loads = scenario.withFarClient ? [load, farLoad] : [load]
  await deployment.settlePrimary()
  ledger.begin(scenario.name)
  await Promise.all(loads.map(one => one.put()))
  try {
    return await runActs(scenario, parts, async () => void (await Promise.all(loads.map(one => one.stopPutting()))))
  } finally {
    await Promise.all(loads.map(one => one.stopPutting()))
  }
}

async function runActs(
  scenario: Scenario,
  { deployment, ledger, signal }: ScenarioParts,
  stopPutting: () => Promise<void>,
): Promise<ScenarioRun> {
  const pause = async (ms: number): Promise<void> => await delay(ms, undefined, { signal })
  const untilMs = async (timeMs: number): Promise<void> => await pause(Math.max(0, timeMs - nowMs()))
  const flowsSince = async (sinceMs: number, withinMs: number): Promise<boolean> =>
    (await waitFor(() => hasFlowed(ledger, scenario.name, sinceMs), withinMs, { signal })) ?? false
  if (!(await flowsSince(0, flowsWithinMs))) throw new Error('no work flows before the fault')
  await pause(steadyMs)

  const faults: string[] = []
  let injectedMs: number | undefined
  const stage = await setStage(deployment, pause, () => {
    injectedMs ??= nowMs()
  })
  const heal = await scenario.inject(stage)
  injectedMs ??= nowMs()
  await untilMs(injectedMs + (scenario.downMs ?? lookAfterMs))
  // What mends itself is timed from the harm.
  const healedMs = scenario.downMs === undefined ? injectedMs : nowMs()
  await heal?.()
  const healing = deployment.heal().catch((error: Error) => {
    faults.push(error.message)
    return []
  })
  const whole = healing.then(late => ({ wholeAfterMs: Math.round(nowMs() - healedMs), late }))
  if (!(await flowsSince(nowMs(), recoversWithinMs))) faults.push(`no work flows ${recoversWithinMs} ms after the heal`)
  await untilMs(Math.max(injectedMs + watchMs, nowMs() + afterwardsMs))
  const endedMs = nowMs()
  await stopPutting()
  const { wholeAfterMs, late } = await whole
  await waitFor(() => (ledger.waiting.size === 0 ? true : undefined), drainMs, { signal })
  return { scenario, moments: { injectedMs, healedMs, endedMs }, wholeAfterMs, faults, late }
}

async function setStage(deployment: Deployment, pause: Stage['pause'], mark: Stage['mark']): Promise<Stage> {
  const { a, b, c, w1, w2 } = deployment.hosts
  const primary = await deployment.copies.primary()
  const replica = primary === a ? b : a
  const witness = primary === c ? b : c
  const copies = [a, b, c]
  return {
    deployment,
    primary,
    replica,
    witness,
    node: replica,
    worker: w1,
    copies,
    hosts: [...copies, w1, w2],
    pause,
    mark,
  }
}

/** A PUT that was sent since then was accepted, and its result handed out. */
function hasFlowed(ledger: Ledger, scenario: string, sinceMs: number): true | undefined {
  const accepted = ledger.accepted.get(scenario) ?? []
  for (let index = accepted.length - 1; index >= 0; index--) {
    const { sentMs, workId } = accepted[index] as (typeof accepted)[number]
    if (sentMs > sinceMs && (ledger.jobs.get(workId)?.handings.length ?? 0) > 0) return true
  }
  return undefined
}
