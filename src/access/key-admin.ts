/** What `muster keys` works with: a node, over its API, or Redis itself, so that the first key can be made. */
import { existsSync } from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import type { Logger } from 'pino'
import { makeNodeFetch } from '../client/node-fetch.ts'
import { StartupError } from '../errors.ts'
import { type RedisTarget, targetOf } from '../redis/connect/address.ts'
import { closeRedis, connectRedis, type RedisClient } from '../redis/connect/connection.ts'
import { globalKey } from '../redis/keys.ts'
import type { DurableWrites } from '../redis/writes/durable-writes.ts'
import { openWrites } from '../redis/writes/replicated-writes.ts'
import { EmbeddedRedis } from '../redis-server/embedded.ts'
import { embeddedFiles } from '../redis-server/embedded-config.ts'
import { askRedis } from '../redis-server/until-answers.ts'
import type { Settings } from '../settings/settings.ts'
import type { KeyView } from './api-key.ts'
import { AuditLog } from './audit-log.ts'
import { KeyStore, type NewKey } from './key-store.ts'
import { keys, topic } from './redis-keys.ts'
import type { Role } from './roles.ts'
import { rotateSigningSecret, workersKeyId } from './worker-token.ts'

/** A key as the API shows it; times are ISO 8601. */
export interface ShownKey {
  readonly keyId: string
  readonly name: string
  readonly roles: readonly Role[]
  readonly queues?: readonly string[]
  readonly createdAt: string
  readonly expiresAt?: string
  /** Only of a key that was just made. */
  readonly key?: string
}

export interface KeyAdmin {
  /** In words, where the keys are that this changes. */
  readonly where: string
  create(key: NewKey): Promise<ShownKey>
  list(): Promise<ShownKey[]>
  /** @returns undefined for the secret that signs worker tokens, which nobody is shown */
  rotate(keyId: string, graceMs: number): Promise<ShownKey | undefined>
  revoke(keyId: string): Promise<void>
  close(): Promise<void>
}

const callTimeoutMs = 10_000

export interface KeyAdminOptions {
  readonly settings: Settings
  readonly log: Logger
  /** Asks the nodes; else works on Redis itself. */
  readonly asksNode: boolean
  /** Whether a data directory in which no node was ever started may be made. */
  readonly mayCreateDataDir: boolean
}

/** @throws StartupError when the nodes, or Redis, cannot be reached */
export async function openKeyAdmin({ settings, log, asksNode, mayCreateDataDir }: KeyAdminOptions): Promise<KeyAdmin> {
  return asksNode ? await openNodeAdmin(settings) : await openRedisAdmin(settings, log, mayCreateDataDir)
}

async function openNodeAdmin({ nodeUrls, apiKey, caFile }: Settings): Promise<KeyAdmin> {
  const fetch = await makeNodeFetch({ apiKey, caFile })
  const call = async (method: string, path: string, json?: unknown): Promise<unknown> => {
    let failure: StartupError | undefined
    for (const url of nodeUrls) {
      try {
        const signal = AbortSignal.timeout(callTimeoutMs)
        const reply = await fetch(url + path, { method, signal, ...(json !== undefined && { json }) })
        const body = (await reply.json()) as { detail?: string; action?: string }
        if (reply.ok) return body
        failure = new StartupError(`${url} says: ${body.detail ?? reply.status} ${body.action ?? ''}`.trimEnd())
        if (reply.status < 500) throw failure
      } catch (error) {
        if (error === failure) throw error
        failure ??= new StartupError(`No node answers at ${nodeUrls.join(', ')}. Set --url or MUSTER_NODE_URLS.`, {
          cause: error,
        })
      }
    }
    throw failure ?? new StartupError('MUSTER_NODE_URLS names no node.')
  }
  return {
    where: `the node at ${nodeUrls.join(', ')}`,
    create: async key => (await call('POST', '/keys', key)) as ShownKey,
    list: async () => ((await call('GET', '/keys')) as { keys: ShownKey[] }).keys,
    rotate: async (keyId, graceMs) => {
      const reply = (await call('POST', `/keys/${encodeURIComponent(keyId)}/rotate`, { graceMs })) as ShownKey
      return keyId === workersKeyId ? undefined : reply
    },
    revoke: async keyId => void (await call('DELETE', `/keys/${encodeURIComponent(keyId)}`)),
    close: async () => undefined,
  }
}

async function openRedisAdmin(settings: Settings, log: Logger, mayCreateDataDir: boolean): Promise<KeyAdmin> {
  const stops: (() => Promise<unknown>)[] = []
  const close = async (): Promise<void> => {
    for (let next = stops.pop(); next !== undefined; next = stops.pop()) await next()
  }
  try {
    const { target, where, release } = await findRedis(settings, log, mayCreateDataDir)
    stops.push(release)
    const redis = await connectRedis({ ...target, purpose: 'commands', log })
    stops.push(() => closeRedis(redis))
    const { writes, close: closeWrites } = await openWrites(settings.durability, target, redis, log)
    stops.push(closeWrites)
    return { where, ...redisAdmin(redis, writes, close) }
  } catch (error) {
    await close()
    throw error
  }
}

function redisAdmin(redis: RedisClient, writes: DurableWrites, closeAll: () => Promise<void>): Omit<KeyAdmin, 'where'> {
  const audit = new AuditLog(redis)
  let told: Promise<unknown> = Promise.resolve()
  const announce = (): void => {
    // As the notifier of a node writes it: the sender, then the topics.
    told = redis.publish(globalKey('notifier'), `muster-keys\n${topic}`).catch(() => undefined)
  }
  const store = new KeyStore({ redis, announce, writes })
  const note = async (action: string, target: string, details?: Record<string, unknown>): Promise<void> =>
    await audit.write({
      at: Date.now(),
      who: { kind: 'shell', id: userInfo().username, name: `${userInfo().username} at the shell, on Redis itself` },
      ...{ action, target, status: 200 },
      ...(details !== undefined && { details }),
    })
  return {
    create: async key => {
      const { key: text, ...view } = await store.create(key)
      await note('key.create', view.id, { ...key })
      return { ...show(view), key: text }
    },
    list: async () => (await store.list()).map(show),
    rotate: async (keyId, graceMs) => {
      if (keyId === workersKeyId) {
        await writes.confirm(keys.signing, () => rotateSigningSecret(redis, graceMs, Date.now()))
        announce()
        await note('key.rotate', keyId, { graceMs })
        return undefined
      }
      const issued = await store.rotate(keyId, graceMs)
      if (issued === undefined) throw unknown(keyId)
      await note('key.rotate', keyId, { graceMs })
      const { key: text, ...view } = issued
      return { ...show(view), key: text }
    },
    revoke: async keyId => {
      if (!(await store.revoke(keyId))) throw unknown(keyId)
      await note('key.revoke', keyId)
    },
    close: async () => {
      await told
      await closeAll()
    },
  }
}

const unknown = (keyId: string): StartupError =>
  new StartupError(`No key has the id "${keyId}". "muster keys list" shows those that there are.`)

interface FoundRedis {
  readonly target: RedisTarget
  readonly where: string
  readonly release: () => Promise<void>
}

/**
 * The Redis of the settings; else that of a node that runs on the data directory; else one for the moment.
 * A folder that nobody named and no node knows is refused: a key made there would let nobody in.
 */
async function findRedis(settings: Settings, log: Logger, mayCreateDataDir: boolean): Promise<FoundRedis> {
  const given = targetOf(settings)
  if (given !== undefined)
    return { target: given, where: 'the Redis of MUSTER_REDIS_URL', release: async () => undefined }
  const { folder, socket } = embeddedFiles(settings.dataDir, tmpdir())
  if ((await askRedis(socket, 'PING', 2000)) !== undefined) {
    const where = `the node that runs on ${settings.dataDir}`
    return { target: { socketPath: socket }, where, release: async () => undefined }
  }
  if (!mayCreateDataDir && !existsSync(folder))
    throw new StartupError(
      `No node was ever started on ${settings.dataDir}, so a key made there would open none. Name the folder of your node with --data-dir (or MUSTER_DATA_DIR), or ask a running node with MUSTER_API_KEY and --url. With --data-dir ${settings.dataDir} the key is made here, for a node that is started later.`,
    )
  const embedded = new EmbeddedRedis({ dataDir: settings.dataDir, log })
  const where = `${settings.dataDir}, where no node runs now`
  return { target: await embedded.start(), where, release: () => embedded.stop() }
}

function show({ id, name, roles, queues, createdAt, expiresAt }: KeyView): ShownKey {
  return {
    keyId: id,
    name,
    roles,
    ...(queues !== undefined && { queues }),
    createdAt: new Date(createdAt).toISOString(),
    ...(expiresAt !== undefined && { expiresAt: new Date(expiresAt).toISOString() }),
  }
}
