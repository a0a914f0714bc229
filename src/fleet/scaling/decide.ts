/**
 * Decides what one pool needs: a pure function of what was seen and when. Read it from top to bottom:
 *
 *   1. size:      a policy says how many workers the backlog needs, less what would come up too late; pause, floor and
 *                 ceiling correct it, in this order; the last rule that changes the size gives the decision its reason
 *   2. instances: lost, never booted, interrupted, drained, unhealthy and idle ones are ended, in this order; an instance
 *                 is ended once
 *   3. shortage:  what is missing then is launched, unless launches have been failing
 *
 * Booting instances count as workers, so that nothing is launched twice for the same backlog. Interrupted ones count as
 * gone from the notice on: their replacement is launched while they are still there, if need be above the ceiling.
 */
import type { ReasonName } from './reasons.ts'
import { bootTimeout, drained, idle, interrupted, lostWorker, unhealthy } from './rules/instances.ts'
import { bootTime, heldBack, launchable, paused } from './rules/launch-backoff.ts'
import type { InstanceRule, Size, SizeRule } from './rules/rule.ts'
import { ceiling, fixed, floor, jobsPerWorker, targetWait } from './rules/size.ts'
import type { Action, Decision, InstanceView, PoolSnapshot } from './snapshot.ts'

/** By the name of the rule, which is the reason that it gives. */
const sizeRules: readonly (readonly [ReasonName, SizeRule])[] = [
  ['target-wait', targetWait],
  ['boot-time', bootTime],
  ['jobs-per-worker', jobsPerWorker],
  ['fixed', fixed],
  ['paused', paused],
  ['floor', floor],
  ['ceiling', ceiling],
]
const instanceRules: readonly InstanceRule[] = [lostWorker, bootTimeout, interrupted, drained, unhealthy, idle]

/**
 * @param snapshot one pool as it was read
 * @param now the time of the reading, in ms since the epoch
 */
export function decide(snapshot: PoolSnapshot, now: number): Decision {
  const size = sizeSteps(snapshot, now).reduce((soFar, { size }) => size ?? soFar, noWork)
  const endings = endInstances(snapshot, size, now)
  const have = countAfter(snapshot, endings)
  const shortage = Math.max(0, Math.min(size.workers - have.serving, snapshot.settings.maxWorkers - have.present))
  const waits = shortage > 0 ? heldBack(snapshot, now) : undefined
  const count = waits === undefined ? launchable(snapshot.failures, shortage) : 0
  // Had the interrupted ones stayed, nobody would be missing.
  const reason = shortage > 0 && size.workers <= have.serving + have.interrupted ? 'interrupted' : size.reason
  const actions: Action[] = count > 0 ? [...endings, { kind: 'launch', count, reason }] : endings
  return {
    desired: size.workers,
    actions,
    reason: waits === undefined ? reason : 'launch-backoff',
    explanation: `Wants ${size.workers}: ${size.explanation}. Has ${describe(snapshot)}${outcome(actions, waits)}.`,
  }
}

const noWork: Size = { workers: 0, reason: 'no-work', explanation: 'no job waits or runs' }

/** What each size rule made of the pool, in their order; `size` is absent where a rule left it as it was. */
export function sizeSteps(
  snapshot: PoolSnapshot,
  now: number,
): { readonly rule: ReasonName; readonly before: Size; readonly size?: Size }[] {
  let soFar = noWork
  return sizeRules.map(([rule, apply]) => {
    const before = soFar
    const size = apply(snapshot, before, now)
    soFar = size ?? before
    return size === undefined ? { rule, before } : { rule, before, size }
  })
}

function endInstances(snapshot: PoolSnapshot, size: Size, now: number): Action[] {
  const actions: Action[] = []
  const ending = new Set<string>()
  for (const rule of instanceRules) {
    for (const action of rule(snapshot, { desired: size.workers, ending: new Set(ending) }, now)) {
      actions.push(action)
      if (action.kind !== 'launch') ending.add(action.instanceId)
    }
  }
  return actions
}

/**
 * serving: ready or on their way to it. present: those and the draining ones, which fill a place below the ceiling until
 * they are gone. interrupted: still there, and neither.
 */
function countAfter(
  { instances }: PoolSnapshot,
  endings: readonly Action[],
): { serving: number; present: number; interrupted: number } {
  const drains = new Set(endings.flatMap(action => (action.kind === 'drain' ? [action.instanceId] : [])))
  const terminates = new Set(endings.flatMap(action => (action.kind === 'terminate' ? [action.instanceId] : [])))
  const there = instances.filter(({ id, state }) => state !== 'terminating' && !terminates.has(id))
  const present = there.filter(({ interrupted }) => interrupted === undefined)
  const serving = present.filter(({ id, state }) => state !== 'draining' && !drains.has(id))
  return { serving: serving.length, present: present.length, interrupted: there.length - present.length }
}

const stateOf = ({ state, interrupted }: InstanceView): string =>
  interrupted !== undefined && state !== 'terminating' ? 'interrupted' : state

function describe({ instances }: PoolSnapshot): string {
  const parts = ['ready', 'booting', 'interrupted', 'draining', 'terminating']
    .map(state => ({ state, count: instances.filter(instance => stateOf(instance) === state).length }))
    .filter(({ count }) => count > 0)
    .map(({ state, count }) => `${count} ${state}`)
  return parts.length === 0 ? 'none' : parts.join(', ')
}

function outcome(actions: readonly Action[], waits: string | undefined): string {
  const parts: string[] = []
  const drains = actions.filter(({ kind }) => kind === 'drain').length
  const terminates = actions.filter(({ kind }) => kind === 'terminate').length
  if (drains > 0) parts.push(`drains ${drains}`)
  if (terminates > 0) parts.push(`terminates ${terminates}`)
  for (const action of actions) if (action.kind === 'launch') parts.push(`launches ${action.count}`)
  if (waits !== undefined) parts.push(waits)
  return parts.map(part => `; ${part}`).join('')
}
