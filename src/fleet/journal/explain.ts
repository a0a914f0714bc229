/**
 * A recorded decision in words: what it saw, what each size rule made of it, and which rule acted on which instance; then
 * the same decision taken again from what was recorded. Pure.
 */
import { decide, sizeSteps } from '../scaling/decide.ts'
import { type ReasonName, reasons } from '../scaling/reasons.ts'
import type { Action, Decision, InstanceView, PoolLoad, PoolSnapshot } from '../scaling/snapshot.ts'

export interface Explained {
  readonly lines: readonly string[]
  /** The decision taken again; absent when nothing was recorded to take it from. */
  readonly replay?: 'same' | 'different'
}

export interface RecordedDecision extends Omit<Decision, 'actions'> {
  readonly id?: string
  readonly queue: string
  /** In ms since the epoch. */
  readonly at: number
  readonly epoch?: number
  readonly decisionId?: string
  readonly actions: readonly (Action | { readonly kind: 'sweep' | 'boot'; readonly reason: ReasonName })[]
  /** Boot diagnostics, under the name that the API gives them. */
  readonly evidence?: Readonly<Record<string, string>>
  readonly inputs?: PoolSnapshot
}

export function explain(decision: RecordedDecision): Explained {
  const { id, queue, at, epoch, reason, explanation, inputs, evidence = {} } = decision
  const name = id === undefined ? 'the latest decision' : `decision ${id}`
  const turn = epoch === undefined ? 'by hand' : `epoch ${epoch}`
  const head = [`${queue}: ${name}, ${new Date(at).toISOString()} (${turn})`, `  ${explanation}`]
  const lines = [...head, `  ${reason}: ${reasons[reason]}`]
  if (inputs === undefined) return { lines: [...lines, '  Nothing was recorded to take it again from.'] }
  const said = Object.entries(evidence).flatMap(([instanceId, text]) => [
    `  ${instanceId} said while it booted:`,
    ...text
      .trimEnd()
      .split('\n')
      .map(line => `    | ${line}`),
  ])
  const again = decide(inputs, at)
  const differences = compare(decision, again)
  const replayed =
    differences.length === 0
      ? ['replayed: same decision']
      : ['replayed: a different decision', ...differences.map(line => `  ${line}`)]
  return {
    lines: [
      ...lines,
      '  Seen:',
      ...describeLoad(inputs).map(line => `    ${line}`),
      '  Size, rule by rule:',
      ...describeSize(inputs, at).map(line => `    ${line}`),
      '  Instances:',
      ...describeInstances(decision, inputs, at).map(line => `    ${line}`),
      ...said,
      ...replayed,
    ],
    replay: differences.length === 0 ? 'same' : 'different',
  }
}

function describeLoad({ load, bootMs, failures, settings }: PoolSnapshot): string[] {
  const { minWorkers, maxWorkers, policy } = settings
  return [
    `${load.waiting} waiting, ${load.dueDelayed} due soon, ${load.running} running${load.paused ? ', paused' : ''}`,
    `a job takes ${unlessUnmeasured(load.serviceMs, 'ms')}, a boot ${unlessUnmeasured(bootMs, 'ms')}; ${comes(load)} come in`,
    `policy ${policy}, ${minWorkers} to ${maxWorkers} workers; launches failed in a row: ${failures.count}`,
  ]
}

const unlessUnmeasured = (value: number | undefined, unit: string): string =>
  value === undefined ? '(not measured yet)' : `${value} ${unit}`

const comes = ({ arrivalsPerSecond }: PoolLoad): string =>
  arrivalsPerSecond === undefined ? '(not measured yet)' : `${arrivalsPerSecond} jobs a second`

function describeSize(inputs: PoolSnapshot, at: number): string[] {
  return sizeSteps(inputs, at).map(({ rule, before, size }) => {
    const name = rule.padEnd(16)
    if (size === undefined) return `${name} leaves it at ${before.workers}`
    // A rule that corrects another repeats its explanation.
    const own = size.explanation.startsWith(before.explanation)
      ? size.explanation.slice(before.explanation.length)
      : size.explanation
    return `${name} ${before.workers} → ${size.workers}  ${own.replace(/^; /, '')}`
  })
}

/** First those that a rule acted on, each with the rule; of the others how many there are. */
function describeInstances(
  { actions, decisionId }: RecordedDecision,
  { instances }: PoolSnapshot,
  at: number,
): string[] {
  const endings = new Map(
    actions.flatMap(action =>
      action.kind === 'drain' || action.kind === 'terminate' ? [[action.instanceId, action] as const] : [],
    ),
  )
  const acted = instances.flatMap(instance => {
    const action = endings.get(instance.id)
    return action === undefined
      ? []
      : [`${action.kind} ${describeInstance(instance, at)}: ${action.reason} (${reasons[action.reason]})`]
  })
  const left = instances.filter(({ id }) => !endings.has(id))
  const states = [...new Set(left.map(({ state }) => state))]
  const counts = states.map(state => `${left.filter(instance => instance.state === state).length} ${state}`)
  const launches = actions.flatMap(action =>
    action.kind === 'launch'
      ? [`launch ${action.count}: ${action.reason}${decisionId === undefined ? '' : `, as ${decisionId}`}`]
      : [],
  )
  return [...acted, `${counts.length === 0 ? 'no others' : `no rule acts on ${counts.join(', ')}`}`, ...launches]
}

function describeInstance(instance: InstanceView, at: number): string {
  const { id, state, slots, leases, idleSince, market, instanceType, zone, hourlyUsd, launchedAt, interrupted } =
    instance
  const facts = [
    state,
    `${leases} of ${slots} slots busy`,
    idleSince === undefined ? undefined : `idle for ${at - idleSince} ms`,
    state === 'booting' ? `launched ${at - launchedAt} ms before` : undefined,
    interrupted === undefined ? undefined : `${interrupted.kind} at ${new Date(interrupted.at).toISOString()}`,
    [market, instanceType, zone].filter(part => part !== undefined).join(' ') || undefined,
    hourlyUsd === undefined ? undefined : `${hourlyUsd} USD an hour`,
  ]
  return `${id} (${facts.filter(fact => fact !== undefined).join(', ')})`
}

function compare(recorded: RecordedDecision, again: Decision): string[] {
  const parts = ['desired', 'reason', 'explanation', 'actions'] as const
  return parts.flatMap(part => {
    const [before, now] = [JSON.stringify(recorded[part]), JSON.stringify(again[part])]
    return before === now ? [] : [`${part}: recorded ${before}, now ${now}`]
  })
}
