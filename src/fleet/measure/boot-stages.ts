/**
 * How an instance came up, stage by stage: launch → boot of its machine → user data → code installed → agent → registered →
 * first claim. The provider knows the first, its worker tells the next four as far as it knows them, the nodes see the rest.
 * Pure. Times are ms since the epoch.
 */
import type { WorkerDescription } from '../../contract/worker-protocol.ts'

/** When its machine and its process came up, as a worker says. */
export type BootReport = NonNullable<WorkerDescription['boot']>

export interface BootTimeline {
  readonly launchedAt: number
  readonly bootedAt?: number
  readonly userDataAt?: number
  readonly installedAt?: number
  readonly agentAt?: number
  readonly registeredAt: number
  readonly firstClaimAt?: number
}

/** What the registry knows of the worker of an instance. */
export interface BootedWorker {
  readonly boot: BootReport
  readonly firstSeenAt: number
  readonly firstClaimAt: number | undefined
}

/** In order. Each takes from the one before it that is known. */
export const bootStages = ['booted', 'userData', 'installed', 'agent', 'registered', 'firstClaim'] as const
export type BootStage = (typeof bootStages)[number]
export type StageTimes = { readonly [Stage in BootStage as `${Stage}Ms`]?: number } & {
  /** From the launch to the registration. */
  readonly readyMs: number
}

/** Clocks differ, but not by more: what lies further before the launch is no stage of it (the uptime of a host, say). */
const mostSkewMs = 60_000

export function bootTimeline(launchedAt: number, { boot, firstSeenAt, firstClaimAt }: BootedWorker): BootTimeline {
  const registeredAt = Math.max(launchedAt, firstSeenAt)
  let before = launchedAt
  const reported: { -readonly [Name in keyof BootReport]: number } = {}
  for (const name of ['bootedAt', 'userDataAt', 'installedAt', 'agentAt'] as const) {
    const time = Date.parse(boot[name] ?? '')
    if (Number.isNaN(time) || time < launchedAt - mostSkewMs) continue
    before = Math.min(registeredAt, Math.max(before, time))
    reported[name] = before
  }
  return {
    launchedAt,
    ...reported,
    registeredAt,
    ...(firstClaimAt !== undefined && { firstClaimAt: Math.max(registeredAt, firstClaimAt) }),
  }
}

export function stageTimes(timeline: BootTimeline): StageTimes {
  const times: { -readonly [Name in keyof StageTimes]: number } = {
    readyMs: timeline.registeredAt - timeline.launchedAt,
  }
  let before = timeline.launchedAt
  for (const stage of bootStages) {
    const at = timeline[`${stage}At`]
    if (at === undefined) continue
    times[`${stage}Ms`] = at - before
    before = at
  }
  return times
}

const names: Readonly<Record<BootStage, string>> = {
  booted: 'boot',
  userData: 'to user data',
  installed: 'install',
  agent: 'to agent',
  registered: 'register',
  firstClaim: 'first claim',
}

/** Like "43.2 s (boot 8.1 s, install 30.1 s, …)"; without the wait for the first job. */
export function describeBoot(times: StageTimes): string {
  const parts = bootStages.flatMap(stage => {
    const ms = times[`${stage}Ms`]
    return ms === undefined || stage === 'firstClaim' ? [] : [`${names[stage]} ${seconds(ms)}`]
  })
  return `${seconds(times.readyMs)} (${parts.join(', ')})`
}

export const seconds = (ms: number): string => `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`
