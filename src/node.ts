/**
 * A node: everything that runs in it, listed once, started in this order and stopped in the reverse one.
 *
 *   Redis (embedded or given) → jobs → HTTP server → fleet
 */
import { type AddressInfo, createServer } from 'node:net'
import { fileURLToPath } from 'node:url'
import type { Redis } from 'ioredis'
import type { Logger } from 'pino'
import type { App } from './api/api.ts'
import { createApp } from './api/app.ts'
import { StartupError } from './errors.ts'
import { createFleet } from './fleet/fleet.ts'
import { createLocalProvider } from './fleet/providers/local-provider.ts'
import type { Provider } from './fleet/providers/provider.ts'
import { workerEnvironment } from './fleet/providers/worker-environment.ts'
import { builtInHandlers } from './handlers/catalogue.ts'
import { compilePayloadCheck } from './handlers/payload-schema.ts'
import { Acks } from './jobs/acks.ts'
import { Jobs } from './jobs/jobs.ts'
import { type KnownType, Types } from './jobs/types.ts'
import { FolderStore } from './payloads/folder-store.ts'
import { Bell } from './redis/bell.ts'
import { checkRedis } from './redis/checks.ts'
import { closeRedis, connectRedis, type RedisAddress } from './redis/connection.ts'
import { EmbeddedRedis } from './redis/embedded.ts'
import { globalKey } from './redis/keys.ts'
import type { Settings } from './settings.ts'
import { describeHandlers } from './worker/describe-handlers.ts'

export interface RunningNode {
  /** Where it can be reached from this machine, like http://127.0.0.1:5000. */
  readonly url: string
  readonly app: App
  /** Finishes what is under way, then stops everything it started. Calling twice is safe. */
  stop(): Promise<void>
}

type Stop = () => Promise<unknown>

/**
 * Starts a node.
 * @throws StartupError when something outside must be mended first; nothing is left running then
 */
export async function startNode(settings: Settings, log: Logger): Promise<RunningNode> {
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
    return { ...(await startParts(settings, log, stops)), stop: stopOnce }
  } catch (error) {
    await stopOnce()
    throw error
  }
}

async function startParts(settings: Settings, log: Logger, stops: Stop[]): Promise<{ url: string; app: App }> {
  const known = await knownTypes(settings)
  const address = await findRedis(settings, log, stops)
  const redis = await connectRedis({ ...address, role: 'commands', log })
  stops.push(() => closeRedis(redis))
  if (settings.redisUrl !== '') await requireSoundRedis(redis, log)
  const bell = await connectBell(address, redis, log, stops)

  const store = new FolderStore(`${settings.dataDir}/payloads`)
  await store.start()
  const jobs = new Jobs({ settings, redis, bell, store, log })
  stops.push(() => jobs.stop())
  await jobs.start()
  const acks = new Acks(log)
  stops.push(() => acks.stop())
  acks.start()

  const stopping = new AbortController()
  const port = await reservePort(settings)
  const url = reachableUrl(settings.host, port)
  const provider = await openProvider(settings, url, log)
  const fleet = createFleet({ settings, redis, queues: jobs, bell, log, provider })
  const types = new Types(known, async () => [...(await fleet.registry.knownTypes())])
  const app = await createApp(
    { settings, jobs, acks, types, store, fleet, bell, ping: () => redis.ping(), stopping: stopping.signal },
    log,
  )
  stops.push(async () => {
    stopping.abort()
    await app.close()
  })
  await listen(app, settings.host, port)
  stops.push(() => fleet.stop())
  fleet.start()
  return { url, app }
}

async function knownTypes(settings: Settings): Promise<KnownType[]> {
  const described: { type: string; payload?: object }[] =
    settings.handlers === '' ? [...builtInHandlers] : await describeHandlers(settings.handlers)
  return described.map(({ type, payload }) =>
    payload === undefined ? { type } : { type, check: compilePayloadCheck({ type, payload }) },
  )
}

async function findRedis(settings: Settings, log: Logger, stops: Stop[]): Promise<RedisAddress> {
  if (settings.redisUrl !== '') return { url: settings.redisUrl }
  const embedded = new EmbeddedRedis({ dataDir: settings.dataDir, log })
  stops.push(() => embedded.stop())
  return await embedded.start()
}

async function requireSoundRedis(redis: Redis, log: Logger): Promise<void> {
  const findings = await checkRedis(redis)
  for (const { level, message } of findings) if (level === 'warn') log.warn(message)
  const faults = findings.filter(({ level }) => level === 'error')
  if (faults.length > 0)
    throw new StartupError(`This Redis will not do:\n${faults.map(({ message }) => `  - ${message}`).join('\n')}`)
}

async function connectBell(address: RedisAddress, redis: Redis, log: Logger, stops: Stop[]): Promise<Bell> {
  const bell = new Bell()
  const channel = globalKey('bell')
  const subscriber = await connectRedis({ ...address, role: 'subscriber', log })
  stops.push(() => closeRedis(subscriber))
  subscriber.on('message', (_channel: string, message: string) => bell.receive(message))
  await subscriber.subscribe(channel)
  bell.connect(message => redis.publish(channel, message))
  return bell
}

async function openProvider(settings: Settings, url: string, log: Logger): Promise<Provider | undefined> {
  if (settings.fleet === 'none') return undefined
  if (settings.fleet === 'local') return localProvider(settings, url, log)
  // Only now: the AWS SDK costs 0.3 s and 28 MB.
  const { openEc2Provider } = await import('./fleet/providers/ec2/open-ec2-provider.ts')
  return await openEc2Provider(settings, log)
}

function localProvider(settings: Settings, url: string, log: Logger): Provider {
  return createLocalProvider({
    dataDir: settings.dataDir,
    workerCommand: [process.execPath, fileURLToPath(new URL('./cli.js', import.meta.url)), 'worker'],
    environment: workerEnvironment(settings, process.env, url),
    // A drain lets jobs run for workerDrainMs, then write their last checkpoints.
    terminateGraceMs: settings.workerDrainMs + 15_000,
    closeGraceMs: 5000,
    log,
  })
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

function reachableUrl(host: string, port: number): string {
  const reachable = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host
  return `http://${reachable.includes(':') ? `[${reachable}]` : reachable}:${port}`
}
