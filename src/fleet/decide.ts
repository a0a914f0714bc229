/**
 * Decides what one pool needs: a pure function of what was seen and when. Read it from top to bottom:
 *
 *   1. size:      a policy says how many workers the backlog needs; pause, floor and ceiling correct it, in this order;
 *                 the last rule that changes the size gives the decision its reason
 *   2. instances: lost, never booted, drained and idle ones are ended, in this order; an instance is ended once
 *   3. shortage:  what is missing then is launched, unless launches have been failing
 *
 * Booting instances count as workers, so that nothing is launched twice for the same backlog.
 */
import { bootTimeout } from './rules/boot-timeout.ts'
import { ceiling } from './rules/ceiling.ts'
import { drained } from './rules/drained.ts'
import { fixed } from './rules/fixed.ts'
import { floor } from './rules/floor.ts'
import { idle } from './rules/idle.ts'
import { jobsPerWorker } from './rules/jobs-per-worker.ts'
import { heldBack, launchable } from './rules/launch-backoff.ts'
import { lostWorker } from './rules/lost-worker.ts'
import { paused } from './rules/paused.ts'
import type { InstanceRule, Size, SizeRule } from './rules/rule.ts'
import { targetWait } from './rules/target-wait.ts'
import type { Action, Decision, PoolSnapshot } from './snapshot.ts'

const sizeRules: readonly SizeRule[] = [targetWait, jobsPerWorker, fixed, paused, floor, ceiling]
const instanceRules: readonly InstanceRule[] = [lostWorker, bootTimeout, drained, idle]

/**
 * @param snapshot one pool as it was read
 * @param now the time of the reading, in ms since the epoch
 */
export function decide(snapshot: PoolSnapshot, now: number): Decision {
  const size = chooseSize(snapshot)
  const endings = endInstances(snapshot, size, now)
  const have = countAfter(snapshot, endings)
  const shortage = Math.max(0, Math.min(size.workers - have.serving, snapshot.settings.maxWorkers - have.present))
  const waits = shortage > 0 ? heldBack(snapshot, now) : undefined
  const count = waits === undefined ? launchable(snapshot.failures, shortage) : 0
  const actions: Action[] = count > 0 ? [...endings, { kind: 'launch', count, reason: size.reason }] : endings
  return {
    wanted: size.workers,
    actions,
    reason: waits === undefined ? size.reason : 'launch-backoff',
    sentence: `Wants ${size.workers}: ${size.sentence}. Has ${describe(snapshot)}${outcome(actions, waits)}.`,
  }
}

function chooseSize(snapshot: PoolSnapshot): Size {
  const nothing: Size = { workers: 0, reason: 'no-work', sentence: 'no job waits or runs' }
  return sizeRules.reduce((soFar, rule) => rule(snapshot, soFar) ?? soFar, nothing)
}

function endInstances(snapshot: PoolSnapshot, size: Size, now: number): Action[] {
  const actions: Action[] = []
  const ending = new Set<string>()
  for (const rule of instanceRules) {
    for (const action of rule(snapshot, { wanted: size.workers, ending: new Set(ending) }, now)) {
      actions.push(action)
      if (action.kind !== 'launch') ending.add(action.instanceId)
    }
  }
  return actions
}

/** serving: ready or on their way to it. present: those and the draining ones, which fill a place below the ceiling until they are gone. */
function countAfter({ instances }: PoolSnapshot, endings: readonly Action[]): { serving: number; present: number } {
  const drains = new Set(endings.flatMap(action => (action.kind === 'drain' ? [action.instanceId] : [])))
  const terminates = new Set(endings.flatMap(action => (action.kind === 'terminate' ? [action.instanceId] : [])))
  const present = instances.filter(({ id, state }) => state !== 'terminating' && !terminates.has(id))
  const serving = present.filter(({ id, state }) => state !== 'draining' && !drains.has(id))
  return { serving: serving.length, present: present.length }
}

function describe({ instances }: PoolSnapshot): string {
  const parts = (['ready', 'booting', 'draining', 'terminating'] as const)
    .map(state => ({ state, count: instances.filter(instance => instance.state === state).length }))
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
