/** Every scenario, listed once. How to write one stands in README.md. */
import type { Host } from './engine/host.ts'
import type { Heal, Scenario, Stage } from './engine/scenario.ts'
import { waitFor } from './engine/wait-for.ts'

const seconds = [5, 20, 60] as const
type Seconds = (typeof seconds)[number]

/** Processes that can be hit, and how they are found. */
const targets = {
  primary: { what: "the primary's redis-server", pid: async ({ primary }: Stage) => await primary.redisServerPid() },
  replica: { what: "a replica's redis-server", pid: async ({ replica }: Stage) => await replica.redisServerPid() },
  node: { what: 'a node', pid: async ({ node }: Stage) => node.pidOf('node') },
  worker: { what: 'a worker', pid: async ({ worker }: Stage) => worker.pidOf('worker') },
}
type Target = keyof typeof targets

const hostOf = (target: Target, stage: Stage) => stage[target]

/** `muster redis run` starts a dead Redis again; nodes and workers are started again as systemd would. */
const killOf = (target: Target, downSeconds: Seconds): Scenario => ({
  name: `${target}-sigkill${downSeconds === 5 ? '' : `-${downSeconds}s`}`,
  what: `SIGKILL of ${targets[target].what}${isSupervised(target) ? '' : `, started again after ${downSeconds} s`}`,
  ...(downSeconds === 5 && target !== 'worker' && { short: true }),
  ...(!isSupervised(target) && { downMs: downSeconds * 1000 }),
  inject: async stage => {
    const pid = await targets[target].pid(stage)
    const host = hostOf(target, stage)
    stage.mark()
    host.kill(pid)
    return async () => host.startAll()
  },
})

const isSupervised = (target: Target): boolean => target === 'primary' || target === 'replica'

const stopOf = (target: Target, downSeconds: Seconds): Scenario => ({
  name: `${target}-sigstop-${downSeconds}s`,
  what: `SIGSTOP of ${targets[target].what}, SIGCONT after ${downSeconds} s`,
  ...(downSeconds === 5 && target === 'primary' && { short: true }),
  downMs: downSeconds * 1000,
  inject: async stage => {
    const pid = await targets[target].pid(stage)
    const host = hostOf(target, stage)
    stage.mark()
    host.stop(pid)
    return async () => host.continueAll()
  },
})

const powerTargets = { primary: "the primary's host", replica: "the other node's host", witness: 'the witness' }

const powerLossOf = (target: keyof typeof powerTargets, downSeconds: Seconds): Scenario => ({
  name: `${target}-power-loss-${downSeconds}s`,
  what: `Power loss of ${powerTargets[target]}: link down, then SIGKILL of all on it; back after ${downSeconds} s`,
  ...(downSeconds === 5 && target === 'primary' && { short: true }),
  needsLinks: true,
  downMs: downSeconds * 1000,
  inject: async stage => {
    const host = stage[target]
    await host.powerOff(stage.mark)
    return async () => await host.powerOn()
  },
})

const rejoin =
  (stage: Stage): Heal =>
  async () =>
    await stage.deployment.network.rejoin()

const partitionOfPrimary = (downSeconds: 12 | 60): Scenario => ({
  name: `primary-partition-${downSeconds}s`,
  what: `The primary's host and a client are cut off from all others for ${downSeconds} s; clients on both sides`,
  ...(downSeconds === 12 && { short: true }),
  needsLinks: true,
  withFarClient: true,
  cutsOffFarClient: true,
  downMs: downSeconds * 1000,
  inject: async stage => {
    await stage.deployment.network.isolate([stage.primary.name, 'far'], stage.mark)
    return rejoin(stage)
  },
})

/**
 * The Sentinel of the new primary heard the old one report itself as primary, and hears nothing better before it is cut off:
 * it asks every 10 s.
 * When it is back it reads the same report again: this time it is true, for the others have made that one primary.
 */
const partitionAfterFailover: Scenario = {
  name: 'failover-then-primary-partition',
  what: 'SENTINEL FAILOVER; as soon as all follow, the new primary is cut off for 12 s, and the old one takes over again',
  needsLinks: true,
  downMs: 12_000,
  inject: async stage => {
    const { copies, network } = stage.deployment
    const [old] = (await copies.byPreference()) as [Host, ...Host[]]
    const isPrimary = async (): Promise<true | undefined> => ((await copies.primary()) === old ? true : undefined)
    // The one that Sentinel prefers takes over when the new primary is cut off.
    if ((await isPrimary()) === undefined) {
      await copies.handOver()
      await waitFor(isPrimary, 10_000)
    }
    await stage.deployment.untilWhole()
    await copies.failover()
    await waitFor(async () => ((await copies.primary()) === old ? undefined : true), 10_000)
    const primary = await copies.primary()
    const hearsPrimary = async () => (await copies.roleAsHeardBy(primary, old)) === 'master' || undefined
    await waitFor(hearsPrimary, 5000)
    await copies.follow(old, primary)
    await waitFor(async () => ((await copies.faults()).length === 0 ? true : undefined), 8000)
    if (primary === old || !(await hearsPrimary())) throw new Error('Sentinel knows better: there is nothing to see')
    await network.isolate([primary.name], stage.mark)
    return rejoin(stage)
  },
}

const partitionOfNode = (downSeconds: Seconds): Scenario => ({
  name: `node-partition-${downSeconds}s`,
  what: `The other node's host is cut off from all others for ${downSeconds} s`,
  needsLinks: true,
  downMs: downSeconds * 1000,
  inject: async stage => {
    await stage.deployment.network.isolate([stage.node.name], stage.mark)
    return rejoin(stage)
  },
})

const plannedFailover: Scenario = {
  name: 'planned-failover',
  what: 'muster redis failover while all is well',
  short: true,
  inject: async stage => {
    stage.mark()
    await stage.deployment.copies.handOver()
    return undefined
  },
}

/** The old primary goes on for a second, together with a replica that is about to follow another. */
const sentinelFailover: Scenario = {
  name: 'sentinel-failover',
  what: 'SENTINEL FAILOVER while all is well',
  inject: async stage => {
    stage.mark()
    await stage.deployment.copies.failover()
    return undefined
  },
}

/** What the primary acknowledged within these 100 ms, only the third copy has. */
const linkThenPower: Scenario = {
  name: 'replica-link-then-primary-power-loss',
  what: "A replica's link goes down; 100 ms later the primary's host loses power; both back after 20 s",
  needsLinks: true,
  downMs: 20_000,
  inject: async stage => {
    const { network } = stage.deployment
    await network.cut(stage.witness.name)
    await stage.pause(100)
    await stage.primary.powerOff(stage.mark)
    // Two of three are gone: nobody may write until the replica's link is back.
    await stage.pause(5000)
    await network.mend(stage.witness.name)
    return async () => await stage.primary.powerOn()
  },
}

const restartOfAll: Scenario = {
  name: 'restart-of-everything',
  what: 'SIGKILL of every process on every host at once; all started again at once',
  downMs: 1000,
  inject: async stage => {
    stage.mark()
    await Promise.all(stage.hosts.map(host => host.killAll()))
    return async () => {
      for (const host of stage.hosts) await host.startAll()
    }
  },
}

const twoCopiesGone: Scenario = {
  name: 'two-copies-gone',
  what: 'Both replicas are killed with their hosts and stay away for 20 s: 503, nothing acknowledged, then work goes on',
  downMs: 20_000,
  inject: async stage => {
    const away = [stage.replica, stage.witness]
    stage.mark()
    await Promise.all(away.map(host => host.killAll()))
    return async () => {
      for (const host of away) await host.startAll()
    }
  },
  check: ({ acceptedWhileBroken }) =>
    acceptedWhileBroken > 0 ? [`${acceptedWhileBroken} jobs were acknowledged with one copy alone`] : [],
}

const rollingRestart: Scenario = {
  name: 'rolling-restart',
  what: 'Both nodes in turn: SIGTERM, started again, ready; clients that know both see no failed request',
  short: true,
  inject: async stage => {
    stage.mark()
    for (const node of stage.deployment.nodes) {
      await node.end('node')
      node.startAgain('node')
      await stage.deployment.untilWhole()
    }
    return undefined
  },
  // A time-out says how busy this machine is; a call that broke off or was refused with an answer says what the node did.
  check: ({ failures }) =>
    Object.entries(failures)
      .filter(([kind]) => !kind.endsWith('timeout'))
      .map(([kind, count]) => `failed requests: ${kind} × ${count}`),
}

export const scenarios: readonly Scenario[] = [
  killOf('primary', 5),
  ...seconds.map(s => stopOf('primary', s)),
  ...seconds.map(s => powerLossOf('primary', s)),
  partitionOfPrimary(12),
  partitionOfPrimary(60),
  partitionAfterFailover,
  ...seconds.map(s => killOf('node', s)),
  ...seconds.map(s => stopOf('node', s)),
  ...seconds.map(s => partitionOfNode(s)),
  ...seconds.map(s => powerLossOf('replica', s)),
  killOf('replica', 5),
  ...seconds.map(s => stopOf('replica', s)),
  ...seconds.map(s => powerLossOf('witness', s)),
  ...seconds.map(s => killOf('worker', s)),
  ...seconds.map(s => stopOf('worker', s)),
  plannedFailover,
  sentinelFailover,
  linkThenPower,
  twoCopiesGone,
  restartOfAll,
  rollingRestart,
]
