/**
 * A node: everything that runs in it, listed once, started in this order and stopped in the reverse one.
 *
 *   Redis (embedded or given) → payload store → jobs → HTTP server → fleet → metrics
 */
import { type AddressInfo, createServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { Logger } from 'pino'
import type { Access } from './access/access.ts'
import { openAccess } from './access/open-access.ts'
import type { App } from './api/api.ts'
import { createApp } from './api/app.ts'
import { type DeclaredType, DeployedHandlers } from './api/deployed-handlers.ts'
import { closeApp } from './api/graceful-shutdown.ts'
import { watchStalledWorkers } from './api/stalled-workers.ts'
import { TlsFiles } from './api/tls-files.ts'
import { StartupError } from './errors.ts'
import { createFleet } from './fleet/fleet.ts'
import { LiveSettings } from './fleet/live-settings.ts'
import { withEndNotifications } from './fleet/providers/end-notifications.ts'
import { createLocalProvider } from './fleet/providers/local/local-provider.ts'
import type { Provider } from './fleet/providers/provider.ts'
import { findWorkerUser, refuseReadableKey, workerEnvironment } from './fleet/providers/worker-environment.ts'
import { bundleHandlers } from './handlers/bundle-handlers.ts'
import { builtInHandlers } from './handlers/catalogue.ts'
import { toKnownTypes } from './handlers/known-types.ts'
import type { QueueCounts } from './jobs/admin/control.ts'
import { Acks } from './jobs/collect/acks.ts'
import { Jobs } from './jobs/jobs.ts'
import { type KnownType, Types } from './jobs/submit/types.ts'
import { Watchdog, watchdogExitCode } from './jobs/watchdog/watchdog.ts'
import { openMetrics } from './metrics/publisher.ts'
import { Notifier } from './notifier.ts'
import { openPayloadStore } from './payloads/open-payload-store.ts'
import type { PayloadStore } from './payloads/payload-store.ts'
import { type RedisTarget, targetOf } from './redis/connect/address.ts'
import { closeRedis, connectRedis, type RedisClient, reconnect } from './redis/connect/connection.ts'
import { checkRedis } from './redis/inspect/checks.ts'
import { globalKey } from './redis/keys.ts'
import type { DurableWrites } from './redis/writes/durable-writes.ts'
import { openWrites } from './redis/writes/replicated-writes.ts'
import { EmbeddedRedis } from './redis-server/embedded.ts'
import { Refusals } from './refusal-counts.ts'
import type { Settings } from './settings/settings.ts'
import { removeLeftovers } from './worker/agent/remove-leftovers.ts'
import { describeBundle } from './worker/slots/load-bundle.ts'

export interface RunningNode {
  /** Where it can be reached from this machine, like http://127.0.0.1:5000. */
  readonly url: string
  readonly app: App
  /** Whether requests need a key: a node on loopback is open until there is one. */
  readonly needsKey: boolean
  /** Jobs of every queue, by its name. */
  readonly counts: () => Promise<Map<string, QueueCounts>>
  /** Finishes what is under way, then stops everything it started. Calling twice is safe. */
  stop(): Promise<void>
  /** For an exit right after it: kills local workers and what they run. All else ends with the process. */
  endNow(): void
}

type Stop = () => Promise<unknown>

/** How long requests may go on once the port is closed. */
const inFlightMs = 10_000

/**
 * Starts a node.
 * @param reread the settings as they would be now; with it the node follows MUSTER_FLEET_SETTINGS_FILE
 * @throws StartupError when something outside must be mended first; nothing is left running then
 */
export async function startNode(settings: Settings, log: Logger, reread?: () => Settings): Promise<RunningNode> {
  const stops: Stop[] = []
  const stop = async (): Promise<void> => {
    for (let next = stops.pop(); next !== undefined; next = stops.pop()) {
      await next().catch((error: unknown) => log.error({ err: error }, 'a part did not stop cleanly'))
    }
  }
  let stopped: Promise<void> | undefined
  const stopOnce = (): Promise<void> => {
    stopped ??= stop()
    return stopped
  }
  try {
    const parts = await startParts(settings, log, stops)
    if (reread !== undefined && settings.fleetSettingsFile !== '') {
      const live = new LiveSettings({ settings, reread, log })
      stops.push(async () => live.stop())
      live.start()
    }
    return { ...parts, stop: stopOnce }
  } catch (error) {
    await stopOnce()
    throw error
  }
}

async function startParts(settings: Settings, log: Logger, stops: Stop[]): Promise<Omit<RunningNode, 'stop'>> {
  // Code of users runs as the user of the workers, also when it is only looked at.
  const user = findWorkerUser(settings.workerUser)
  removeLeftovers()
  // Loaded once, before all else: what is wrong with them ends the start.
  const own = settings.handlers === '' ? undefined : await bundleHandlers(settings.handlers)
  const declared = own === undefined ? [] : await describeBundle(own, settings.handlers, user)
  const address = await findRedis(settings, log, stops)
  const redis = await connectRedis({ ...address, purpose: 'commands', log })
  stops.push(() => closeRedis(redis))
  if (settings.redisUrl !== '') await requireSoundRedis(redis, log)
  const { writes, close: closeWrites } = await openWrites(settings.durability, address, redis, log)
  stops.push(closeWrites)
  const notifier = await connectNotifier(address, redis, log, stops)
  const access = await openAccess({ settings, redis, notifier, writes, log })
  stops.push(async () => access.stop())

  const store = await openStore({ settings, address, writes, log, stops })
  const jobs = new Jobs({ settings, redis, writes, notifier, store, log })
  stops.push(() => jobs.stop())
  await jobs.start()
  const acks = new Acks(log)
  stops.push(() => acks.stop())
  acks.start()
  if (settings.watchdogMs > 0) await startWatchdog({ settings, address, jobs, redis, log, stops })

  const stopping = new AbortController()
  const port = await reservePort(settings)
  const tls = openTls(settings, log)
  const pair = await tls?.read()
  const url = reachableUrl(settings.host, port, tls !== undefined)
  const provider = await openProvider(settings, url, access, log)
  const fleet = createFleet({
    settings,
    redis,
    writes,
    queues: jobs,
    notifier,
    log,
    provider,
    ownTypes: () => types.own(),
  })
  const types: Types = new Types(knownTypes([]), async () => [...(await fleet.registry.knownTypes())])
  const handlers = new DeployedHandlers({
    ...{ redis, writes, notifier, log },
    onTypes: declared => types.replace(knownTypes(declared)),
  })
  stops.push(() => handlers.stop())
  await handlers.start()
  if (own !== undefined && !(await handlers.publish(own, declared)))
    log.warn(
      { digest: own.digest },
      `the handlers of ${settings.handlers} were replaced by a deployment, which stays; "muster handlers deploy" brings them back`,
    )
  const refusals = new Refusals()
  const app = await createApp(
    {
      access,
      settings,
      jobs,
      acks,
      types,
      handlers,
      checkHandlers: (bundle, source) => describeBundle(bundle, source, user),
      store,
      fleet,
      notifier,
      ping: () => redis.ping(),
      refusals,
      stopping: stopping.signal,
    },
    log,
    pair,
  )
  tls?.follow(app.server as never)
  stops.push(async () => tls?.stop())
  const lateMs = Math.min(500, settings.shutdownGraceMs)
  stops.push(() => closeApp(app, { lateMs, inFlightMs, log }))
  await listen(app, settings.host, port)
  stops.push(async () => {
    stopping.abort()
    // The port stays open meanwhile: what runs here finishes, clients and load balancers move on.
    await Promise.all([fleet.stop(), delay(settings.shutdownGraceMs)])
  })
  fleet.start()
  const stalled = watchStalledWorkers({ jobs, fleet }, settings, log, queue => notifier.notify(`jobs:${queue}`))
  stops.push(() => stalled.stop())
  stalled.start()
  const metrics = await openMetrics({ settings, jobs, fleet, redis, refusals, log })
  stops.push(async () => metrics?.stop())
  metrics?.start()
  return {
    ...{ url, app, needsKey: !access.isOpen, counts: () => jobs.counts() },
    endNow() {
      provider?.endNow?.()
      removeLeftovers()
    },
  }
}

/** The types of the deployment's handlers, known without any worker, and those of this Muster. */
function knownTypes(declared: readonly DeclaredType[]): KnownType[] {
  const builtIn = new Set(builtInHandlers.map(({ type }) => type))
  return toKnownTypes([...builtInHandlers, ...declared.filter(({ type }) => !builtIn.has(type))])
}

async function findRedis(settings: Settings, log: Logger, stops: Stop[]): Promise<RedisTarget> {
  const given = targetOf(settings)
  if (given !== undefined) return given
  const embedded = new EmbeddedRedis({ dataDir: settings.dataDir, log })
  stops.push(() => embedded.stop())
  return await embedded.start()
}

interface StoreParts {
  readonly settings: Settings
  readonly address: RedisTarget
  readonly writes: DurableWrites
  readonly log: Logger
  readonly stops: Stop[]
}

async function openStore({ settings, address, writes, log, stops }: StoreParts): Promise<PayloadStore> {
  const connect = async (): Promise<RedisClient> => {
    const own = await connectRedis({ ...address, purpose: 'commands', log })
    stops.push(() => closeRedis(own))
    return own
  }
  const { store, close } = await openPayloadStore({ settings, connect, writes, log })
  stops.push(close)
  return store
}

async function requireSoundRedis(redis: RedisClient, log: Logger): Promise<void> {
  const findings = await checkRedis(redis)
  for (const { level, message } of findings) if (level === 'warn') log.warn(message)
  const faults = findings.filter(({ level }) => level === 'error')
  if (faults.length > 0)
    throw new StartupError(
      `Unsupported Redis configuration:\n${faults.map(({ message }) => `  - ${message}`).join('\n')}`,
    )
}

async function connectNotifier(
  address: RedisTarget,
  redis: RedisClient,
  log: Logger,
  stops: Stop[],
): Promise<Notifier> {
  const notifier = new Notifier()
  const channel = globalKey('notifier')
  const subscriber = await connectRedis({ ...address, purpose: 'subscriber', log })
  stops.push(() => closeRedis(subscriber))
  subscriber.on('message', (_channel: string, message: string) => notifier.receive(message))
  await subscriber.subscribe(channel)
  notifier.connect(message => redis.publish(channel, message))
  return notifier
}

interface WatchdogParts {
  readonly settings: Settings
  readonly address: RedisTarget
  readonly jobs: Jobs
  /** The connection that claims use. */
  readonly redis: RedisClient
  readonly log: Logger
  readonly stops: Stop[]
}

async function startWatchdog({ settings, address, jobs, redis, log, stops }: WatchdogParts): Promise<void> {
  // That Redis is away is told by the connections that others use.
  const quiet = { info: log.debug.bind(log), warn: log.debug.bind(log) }
  const own = await connectRedis({ ...address, purpose: 'commands', log: quiet })
  stops.push(() => closeRedis(own))
  const watchdog = new Watchdog({
    queues: jobs.queues.names().map(name => jobs.of(name)),
    redis: own,
    windowMs: settings.watchdogMs,
    log,
    recycle: () => reconnect(redis),
    end: () => process.exit(watchdogExitCode),
  })
  stops.push(() => watchdog.stop())
  watchdog.start()
}

const openTls = ({ tlsCertFile: certFile, tlsKeyFile: keyFile }: Settings, log: Logger): TlsFiles | undefined =>
  certFile === '' ? undefined : new TlsFiles({ certFile, keyFile, log })

async function openProvider(
  settings: Settings,
  url: string,
  access: Access,
  log: Logger,
): Promise<Provider | undefined> {
  if (settings.fleet === 'none') return undefined
  const provider = await openOneProvider(settings, url, access, log)
  return withEndNotifications(provider, { onEnded: ids => access.endInstances(ids), log })
}

async function openOneProvider(settings: Settings, url: string, access: Access, log: Logger): Promise<Provider> {
  if (settings.fleet === 'local') return localProvider(settings, url, access, log)
  // Only now: the AWS SDK costs 0.3 s and 28 MB.
  const { openEc2Provider } = await import('./fleet/providers/ec2/open-ec2-provider.ts')
  return await openEc2Provider(settings, log)
}

function localProvider(settings: Settings, url: string, access: Access, log: Logger): Provider {
  const user = findWorkerUser(settings.workerUser)
  refuseReadableKey(settings.operatorKey, user)
  return createLocalProvider({
    dataDir: settings.dataDir,
    user,
    workerCommand: [process.execPath, fileURLToPath(new URL('./cli.js', import.meta.url)), 'worker'],
    environment: workerEnvironment(settings, process.env, addressForWorkers(settings, url, log)),
    tokenFor: (instanceId, pool) => access.mintFirstToken(instanceId, pool).token,
    // A drain lets jobs run for workerDrainMs, then write their last checkpoints.
    terminateGraceMs: settings.workerDrainMs + 15_000,
    closeGraceMs: 5000,
    log,
  })
}

/** A certificate names a host, which 127.0.0.1 is not: MUSTER_NODE_URLS says by which name the workers find it. */
function addressForWorkers({ tlsCertFile, nodeUrls }: Settings, url: string, log: Logger): string {
  if (tlsCertFile === '') return url
  const named = nodeUrls.find(one => one.startsWith('https:'))
  if (named === undefined)
    log.warn(
      `local workers call ${url}: if the certificate has another name, set MUSTER_NODE_URLS to https://<name>:<port>`,
    )
  return named ?? url
}

/** With port 0 a free one is chosen before anything is told about it. */
async function reservePort({ host, port }: Settings): Promise<number> {
  if (port !== 0) return port
  const probe = createServer()
  await new Promise<void>((resolve, reject) => {
    probe.once('error', error => reject(explainListenError(error, host, port)))
    probe.listen(port, host, resolve)
  })
  const { port: free } = probe.address() as AddressInfo
  await new Promise(resolve => probe.close(resolve))
  return free
}

async function listen(app: App, host: string, port: number): Promise<void> {
  try {
    await app.listen({ host, port })
  } catch (error) {
    throw explainListenError(error, host, port)
  }
}

function explainListenError(error: unknown, host: string, port: number): unknown {
  const { code } = error as NodeJS.ErrnoException
  if (code === 'EADDRINUSE')
    return new StartupError(`Port ${port} is taken. Stop what listens there, or set MUSTER_PORT.`, { cause: error })
  if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND')
    return new StartupError(`MUSTER_HOST is "${host}", which is no address of this machine.`, { cause: error })
  if (code === 'EACCES')
    return new StartupError(`Port ${port} is reserved for root. Set MUSTER_PORT to 1024 or above.`, { cause: error })
  return error
}

function reachableUrl(host: string, port: number, hasTls: boolean): string {
  const reachable = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host
  return `${hasTls ? 'https' : 'http'}://${reachable.includes(':') ? `[${reachable}]` : reachable}:${port}`
}
