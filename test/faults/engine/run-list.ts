/** Runs scenarios one after the other on one deployment, and judges them all at the end, when the last result was handed out. */
import { setTimeout as delay } from 'node:timers/promises'
import { type Found, judge } from './checker.ts'
import { nowMs } from './clock.ts'
import { Deployment } from './deployment.ts'
import type { Fact } from './facts.ts'
import { Journal } from './journal.ts'
import { Ledger } from './ledger.ts'
import { Load, type LoadPlan } from './load.ts'
import { lookUp } from './look-up.ts'
import type { Network } from './network.ts'
import { Probe } from './probe.ts'
import type { RunFolder } from './run-folder.ts'
import type { Broken, Outcome, RunOptions, RunResult } from './run-result.ts'
import { runScenario, type ScenarioRun } from './run-scenario.ts'
import type { Scenario } from './scenario.ts'
import { readTally } from './tally.ts'
import { waitFor } from './wait-for.ts'

/** With the processes that ended by themselves meanwhile. */
type FinishedRun = ScenarioRun & { readonly surprises: readonly string[] }

/** As long as the nodes hold results of a pull whose reply got lost, and some more. */
const lastResultsMs = 45_000
/** Longer than this until all is whole again is worth a word. */
const slowHealMs = 30_000
const clients = { putters: 6, plainPullers: 2, leasePullers: 2, leaseMs: 5000 }
const farClients = { putters: 2, jobsPerSecond: 40, plainPullers: 1, leasePullers: 1, leaseMs: 5000 }

export async function runList(
  network: Network,
  run: RunFolder,
  options: RunOptions,
  over: AbortSignal,
): Promise<RunResult> {
  const { scenarios, cli, jobsPerSecond, say, signal } = options
  const reason = network.withoutLinksBecause
  say(
    `hosts: ${network.kind === 'namespaces' ? 'network namespaces' : `loopback addresses (${reason})`}; files: ${run.path}`,
  )
  const isSkipped = ({ needsLinks }: Scenario): boolean => needsLinks === true && reason !== undefined
  const skipped = scenarios.filter(isSkipped).map(({ name }) => ({ name, because: `no links to cut: ${reason}` }))
  for (const { name, because } of skipped) say(`${name}: skipped, ${because}`)

  const probe = new Probe(network, run.path)
  const ledger = new Ledger()
  const journal = new Journal(run.path)
  const note = (facts: readonly Fact[]): void => {
    ledger.note(facts)
    for (const fact of facts) journal.write(fact)
  }
  const deployment = await Deployment.start({ runPath: run.path, network, probe, cli, signal, over })
  const load = new Load(network, run.path, 'clients', note)
  const farLoad = new Load(network, run.path, 'far', note)
  const { nodeUrls, headers } = deployment
  await load.begin({ name: 'near', nodeUrls, headers, jobsPerSecond, ...clients } satisfies LoadPlan)
  await farLoad.begin({ name: 'far', nodeUrls, headers, ...farClients } satisfies LoadPlan)
  for (const one of [load, farLoad]) await one.pull()

  const runs: FinishedRun[] = []
  const broken: Broken[] = []
  for (const scenario of scenarios.filter(one => !isSkipped(one))) {
    say(`${scenario.name}: ${scenario.what}`)
    const beganMs = nowMs()
    try {
      const one = await runScenario(scenario, { deployment, ledger, load, farLoad, signal })
      const surprises = deployment.surprises.splice(0)
      runs.push({ ...one, surprises })
      journal.write({ kind: `harm: ${scenario.name}`, atMs: one.moments.injectedMs })
      for (const line of [...one.faults, ...surprises]) say(`  ${line}`)
      say(`  ${progressOf(one, ledger)}; ${Math.round((nowMs() - beganMs) / 1000)} s in all`)
      if (one.faults.length > 0) await deployment.startOver()
    } catch (error) {
      signal.throwIfAborted()
      const because = (error as Error).message
      say(`  it could not be run to its end: ${because}`)
      broken.push({ name: scenario.name, because })
      const isBack = await deployment.startOver().then(
        () => true,
        () => false,
      )
      if (!isBack) break
    }
  }
  if (ledger.waiting.size > 0) say(`waiting for the last ${ledger.waiting.size} results`)
  await waitFor(() => (ledger.waiting.size === 0 ? true : undefined), lastResultsMs, { signal })
  // What is handed out twice may come a little later than what is handed out once.
  await delay(1000, undefined, { signal })
  for (const one of [load, farLoad]) await one.end()
  await journal.close()
  const found = await lookUp(deployment, [...ledger.waiting])
  const handlerRuns = await readTally(deployment.tally.folder)
  const outcomes = runs.map(one => toOutcome(one, ledger, handlerRuns, found))
  return { network: network.kind, outcomes, skipped, broken }
}

function progressOf({ scenario, wholeAfterMs, late }: ScenarioRun, ledger: Ledger): string {
  const accepted = ledger.accepted.get(scenario.name)?.length ?? 0
  const why = wholeAfterMs > slowHealMs ? ` (${late.join('; ')})` : ''
  return `${accepted} accepted, ${ledger.waiting.size} still to be handed out, whole again after ${wholeAfterMs} ms${why}`
}

function toOutcome(
  { scenario, moments, wholeAfterMs, faults, late, surprises }: FinishedRun,
  ledger: Ledger,
  runs: ReadonlyMap<string, number>,
  found: ReadonlyMap<string, Found>,
): Outcome {
  const cutOff = scenario.cutsOffFarClient ? { cutOffClients: 'far-' } : {}
  const verdict = judge(scenario.name, moments, { ledger, runs, found, ...cutOff })
  const { name, what } = scenario
  const slow = `${Math.round(wholeAfterMs / 1000)} s until all was whole again; last: ${late.join('; ')}`
  return {
    name,
    what,
    verdict,
    wholeAfterMs,
    faults: [...faults, ...verdict.faults, ...(scenario.check?.(verdict) ?? [])],
    notes: [...surprises, ...(wholeAfterMs > slowHealMs ? [slow] : [])],
  }
}
