/**
 * The API of a node on a real Redis, without the node's own workers: a test drives a worker by hand, one call at a time.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import type { Test } from 'tap'
import { Access } from '../../src/access/access.ts'
import { openJoinProofs } from '../../src/access/open-access.ts'
import type { App } from '../../src/api/api.ts'
import { createApp } from '../../src/api/app.ts'
import { DeployedHandlers } from '../../src/api/deployed-handlers.ts'
import type {
  ClaimReply,
  CompleteReply,
  Completion,
  HeartbeatReply,
  Lease,
} from '../../src/contract/worker-protocol.ts'
import { createFleet, type Fleet } from '../../src/fleet/fleet.ts'
import { builtInHandlers } from '../../src/handlers/catalogue.ts'
import { toKnownTypes } from '../../src/handlers/known-types.ts'
import { Acks } from '../../src/jobs/collect/acks.ts'
import { Jobs } from '../../src/jobs/jobs.ts'
import { Types } from '../../src/jobs/submit/types.ts'
import { Notifier } from '../../src/notifier.ts'
import { openPayloadStore } from '../../src/payloads/open-payload-store.ts'
import type { PayloadStore } from '../../src/payloads/payload-store.ts'
import type { RedisTarget } from '../../src/redis/connect/address.ts'
import { closeRedis, connectRedis, type RedisClient } from '../../src/redis/connect/connection.ts'
import { openWrites } from '../../src/redis/writes/replicated-writes.ts'
import { Refusals } from '../../src/refusal-counts.ts'
import { readSettings, type Settings } from '../../src/settings/settings.ts'
import { describeBundle } from '../../src/worker/slots/load-bundle.ts'
import { startTestRedis, type TestRedis, type TestRedisOptions } from './redis.ts'

export interface TestApi {
  readonly url: string
  readonly app: App
  readonly access: Access
  readonly fleet: Fleet
  readonly jobs: Jobs
  readonly redis: RedisClient
  readonly refusals: Refusals
  readonly server: TestRedis
  readonly settings: Settings
  readonly store: PayloadStore
  /** A request; the body of the reply is parsed when it is JSON. */
  call(method: string, path: string, options?: CallOptions): Promise<Reply>
  worker(workerId?: string, queue?: string): TestWorker
}

export interface CallOptions {
  readonly headers?: Record<string, string>
  readonly body?: string | Buffer | ReadableStream | FormData
  readonly json?: unknown
  readonly signal?: AbortSignal
}

export interface Reply {
  readonly status: number
  readonly headers: Headers
  // biome-ignore lint/suspicious/noExplicitAny: a test says what it expects of it
  readonly body: any
}

export interface TestWorker {
  readonly workerId: string
  heartbeat(leases?: readonly Lease[], options?: Record<string, unknown>): Promise<HeartbeatReply>
  claim(max?: number, waitMs?: number): Promise<Lease[]>
  claimReply(max?: number, waitMs?: number): Promise<Reply>
  complete(lease: Lease, end: Partial<Completion>, claim?: number): Promise<CompleteReply>
  requeue(leases: readonly Lease[]): Promise<number>
}

export async function startTestApi(
  t: Test,
  environment: Record<string, string> = {},
  redisOptions: TestRedisOptions = {},
): Promise<TestApi> {
  const server = await startTestRedis(t, redisOptions)
  return await startApiOn(t, server, environment)
}

/**
 * Another node on the same Redis (and the same folder for payloads, when `dataDir` is given), or one on whatever
 * MUSTER_REDIS_URL can name; `server` of the result then is only that.
 */
export async function startApiOn(
  t: Test,
  server: TestRedis | RedisTarget,
  environment: Record<string, string> = {},
): Promise<TestApi> {
  const dataDir = environment.MUSTER_DATA_DIR ?? (await mkdtemp(join(tmpdir(), 'muster-api-')))
  const settings = readSettings({
    MUSTER_CONFIG_FILE: '/nonexistent',
    MUSTER_FLEET: 'none',
    MUSTER_DATA_DIR: dataDir,
    ...environment,
  })
  const log = pino({ level: process.env.TEST_LOG_LEVEL ?? 'silent' })
  const address: RedisTarget = 'socketPath' in server ? { socketPath: server.socketPath } : server
  const redis = await connectRedis({ ...address, purpose: 'commands', log })
  const subscriber = await connectRedis({ ...address, purpose: 'subscriber', log })
  const notifier = new Notifier()
  subscriber.on('message', (_channel: string, message: string) => notifier.receive(message))
  await subscriber.subscribe('notifier')
  notifier.connect(message => redis.publish('notifier', message))
  const { writes, close: closeWrites } = await openWrites(settings.durability, address, redis, log)
  const { store } = await openPayloadStore({ settings, connect: async () => redis, writes, log })
  const jobs = new Jobs({ settings, redis, writes, notifier, store, log })
  await jobs.start()
  const access = new Access({
    ...{ redis, notifier, operatorKey: settings.operatorKey, joinSecret: settings.workerJoinSecret },
    ...{ workerTokenTtlMs: settings.workerTokenTtlMs, isPrivate: true },
    joinProofs: await openJoinProofs(settings, redis),
  })
  await access.start()
  const acks = new Acks(log)
  acks.start()
  const fleet = createFleet({ settings, redis, writes, queues: jobs, notifier, log, provider: undefined })
  fleet.start()
  const known = toKnownTypes(builtInHandlers)
  const types = new Types(known, async () => [...(await fleet.registry.knownTypes())])
  const handlers = new DeployedHandlers({ redis, writes, notifier, log, onTypes: () => undefined })
  await handlers.start()
  const stopping = new AbortController()
  const refusals = new Refusals()
  const app = await createApp(
    {
      access,
      settings,
      jobs,
      acks,
      types,
      handlers,
      checkHandlers: describeBundle,
      store,
      fleet,
      notifier,
      ping: () => redis.ping(),
      refusals,
      stopping: stopping.signal,
    },
    log,
  )
  const url = await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(async () => {
    stopping.abort()
    await app.close()
    access.stop()
    await handlers.stop()
    await fleet.stop()
    await acks.stop()
    await jobs.stop()
    await closeRedis(subscriber)
    await closeWrites()
    await closeRedis(redis)
    if (environment.MUSTER_DATA_DIR === undefined) await rm(dataDir, { recursive: true, force: true })
  })

  const call = async (
    method: string,
    path: string,
    { headers = {}, body, json, signal }: CallOptions = {},
  ): Promise<Reply> => {
    const reply = await fetch(url + path, {
      method,
      headers: { ...(json !== undefined && { 'content-type': 'application/json' }), ...headers },
      ...(body !== undefined && { body, duplex: 'half' }),
      ...(json !== undefined && { body: JSON.stringify(json) }),
      ...(signal !== undefined && { signal }),
    } as RequestInit)
    const isJson = /json/.test(reply.headers.get('content-type') ?? '')
    return {
      status: reply.status,
      headers: reply.headers,
      body: isJson ? await reply.json() : Buffer.from(await reply.arrayBuffer()),
    }
  }
  const worker = (workerId = 'w1', queue = 'default'): TestWorker => makeWorker(call, workerId, queue)
  return { url, app, access, fleet, jobs, redis, refusals, server: server as TestRedis, settings, store, call, worker }
}

function makeWorker(call: TestApi['call'], workerId: string, queue: string): TestWorker {
  const refs = (leases: readonly Lease[]) => leases.map(({ workId, token }) => ({ workId, token }))
  const post = async (path: string, json: unknown): Promise<Reply> => await call('POST', path, { json })
  const must = (reply: Reply): Reply => {
    if (reply.status !== 200) throw new Error(`${reply.status} ${JSON.stringify(reply.body)}`)
    return reply
  }
  return {
    workerId,
    heartbeat: async (leases = [], options = {}) =>
      must(
        await post('/workers/heartbeat', {
          worker: { workerId, queue, slots: 2, types: ['sha512', 'noop', 'sleep', 'primes', 'countToThree', 'remote'] },
          state: 'ready',
          leases: refs(leases),
          ...options,
        }),
      ).body,
    claim: async (max = 1, waitMs = 0) =>
      (must(await post('/workers/claim', { workerId, queue, max, waitMs })).body as ClaimReply).jobs,
    claimReply: async (max = 1, waitMs = 0) => await post('/workers/claim', { workerId, queue, max, waitMs }),
    complete: async ({ workId, token, type }, end, claim = 0) =>
      must(
        await post('/workers/complete', {
          workerId,
          queue,
          results: [{ workId, token, type, durationMs: 1, ...end }],
          claim,
        }),
      ).body,
    requeue: async leases => must(await post('/workers/return', { workerId, queue, jobs: refs(leases) })).body.returned,
  }
}
