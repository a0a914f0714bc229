/** `muster redis backup`, `backups` and `restore`: the whole Redis to S3, and from there into an empty one. */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Redis } from 'ioredis'
import type { Logger } from 'pino'
import { StartupError } from '../errors.ts'
import type { RedisTarget } from '../redis/connect/address.ts'
import { closeRedis, connectRedis, isCluster, type RedisClient, serversOf } from '../redis/connect/connection.ts'
import { readInfo } from '../redis/inspect/info.ts'
import { EmbeddedRedis } from '../redis-server/embedded.ts'
import type { Settings } from '../settings/settings.ts'
import { version } from '../version.ts'
import { type Backup, type BackupPlace, openBackupPlace } from './backup-place.ts'
import { placeOf, placeToFill, serverToAsk } from './backup-redis.ts'
import { copyKeys, countKeys, countOthers, loadSnapshot } from './copy-keys.ts'
import { readSnapshot } from './snapshot.ts'

type Log = Pick<Logger, 'info' | 'warn' | 'error'>

interface Context {
  readonly settings: Settings
  readonly log: Log
  readonly print: (line: string) => void
  /** The folder of a host with a server; unset: MUSTER_REDIS_URL, else the Redis of the node in MUSTER_DATA_DIR. */
  readonly dir: string | undefined
}

const readyWithinMs = 15_000
const confirmTries = 15
const confirmMs = 4000

/**
 * Takes a backup. Where two hosts take turns, `unlessNewerMs` keeps the second from doing again what the first has
 * done.
 * @throws StartupError
 */
export async function runBackup(
  { to, unlessNewerMs }: { readonly to: string; readonly unlessNewerMs?: number },
  { settings, log, print, dir }: Context,
): Promise<void> {
  await withPlace(to, settings, async place => {
    if (unlessNewerMs !== undefined) {
      const newest = (await place.names()).at(-1)
      if (newest !== undefined && Date.now() - takenMs(newest) < unlessNewerMs)
        return print(`${newest} is recent enough: nothing was done.`)
    }
    const target = await serverToAsk(placeOf({ ...settings, dir }))
    const { keyCount, redisVersion } = await describe(target, log)
    const takenAt = new Date()
    await inPrivateFolder(async folder => {
      const file = join(folder, 'snapshot.rdb')
      const { bytes, sha256 } = await writeSnapshot(target, file)
      const name = `${takenAt.toISOString().slice(0, 19).replaceAll(':', '-')}Z-muster-${version}`
      const about = { takenAt: takenAt.toISOString(), musterVersion: version, redisVersion, keyCount, bytes, sha256 }
      await place.put(file, { format: 1, name, ...about })
      print(`${name}: ${keyCount} keys, ${bytes} bytes.`)
    })
  })
}

/** Lists the backups, oldest first. @throws StartupError */
export async function runBackups(from: string, { settings, print }: Context): Promise<void> {
  await withPlace(from, settings, async place => {
    for (const name of await place.names()) print(name)
  })
}

export interface RestoreOptions {
  readonly from: string
  /** The name of a backup; unset: the newest. */
  readonly backup?: string
  /** Delete what the Redis holds first. */
  readonly replace: boolean
}

/**
 * Fills an empty Redis with a backup.
 * @throws StartupError when it holds something and may not be emptied, nodes are connected, or the backup is damaged:
 * nothing is changed then. When it breaks off later, it says that the Redis is not complete.
 */
export async function runRestore({ from, backup, replace }: RestoreOptions, context: Context): Promise<void> {
  const { settings, log, print } = context
  await withPlace(from, settings, async place => {
    const name = backup ?? (await place.names()).at(-1)
    if (name === undefined) throw new StartupError(`There is no backup in ${from}.`)
    const found = await place.look(name)
    await inPrivateFolder(async folder => {
      const file = join(folder, 'snapshot.rdb')
      await place.fetch(found, file)
      const loaded = await loadSnapshot(file, folder, log)
      try {
        await withTarget(context, async target => {
          await connected({ socketPath: loaded.socketPath }, log, async source => {
            await makeRoom(target, replace)
            await fill(source as Redis, target, found, print)
          })
        })
      } finally {
        await loaded.close()
      }
    })
  })
}

async function makeRoom(target: RedisClient, replace: boolean): Promise<void> {
  const others = await countOthers(target)
  if (others > 0)
    throw new StartupError(
      `${others} other connections are open to this Redis: stop all nodes first. Nothing was changed.`,
    )
  const count = await countKeys(target)
  if (count === 0) return
  if (!replace)
    throw new StartupError(
      `This Redis holds ${count} keys, and nothing was changed. --replace deletes them, and then restores the backup.`,
    )
  for (const server of serversOf(target)) await server.flushall('ASYNC')
}

async function fill(source: Redis, target: RedisClient, backup: Backup, print: Context['print']): Promise<void> {
  let saidMs = Date.now()
  const copied = await copyKeys(source, target, count => {
    if (Date.now() - saidMs < 5000) return
    saidMs = Date.now()
    print(`${count} of ${backup.keyCount} keys …`)
  })
  await confirmed(target)
  const held = await countKeys(target)
  const gone = backup.keyCount - copied
  print(`${backup.name}: ${copied} keys restored${gone > 0 ? `; ${gone} had a time to live that is over` : ''}.`)
  if (held > copied)
    throw new StartupError(
      `This Redis holds ${held - copied} keys more than were restored: another client wrote to it.`,
    )
}

/** Where there are replicas, one of them has it all before this says that it is done. */
async function confirmed(target: RedisClient): Promise<void> {
  if (isCluster(target)) return
  if (readInfo(await target.info('replication')).replicaCount === 0) return
  for (let tries = 0; tries < confirmTries; tries += 1) if ((await target.wait(1, confirmMs)) >= 1) return
  throw new StartupError(
    'No second server has confirmed what was restored: see "muster redis status", and restore again.',
  )
}

/** The embedded Redis is started for the restore: its lock shows whether a node runs. */
async function withTarget({ settings, dir, log }: Context, use: (target: RedisClient) => Promise<void>): Promise<void> {
  const place = placeOf({ ...settings, dir })
  const target = await placeToFill(place)
  if (place.kind !== 'embedded') return await connected(target, log, use)
  const embedded = new EmbeddedRedis({ dataDir: place.dataDir, log })
  await embedded.start()
  try {
    await connected(target, log, use)
  } finally {
    await embedded.stop()
  }
}

async function connected<T>(target: RedisTarget, log: Log, use: (client: RedisClient) => Promise<T>): Promise<T> {
  const client = await connectRedis({ ...target, purpose: 'commands', log, readyWithinMs })
  try {
    return await use(client)
  } finally {
    await closeRedis(client)
  }
}

const describe = (target: RedisTarget, log: Log): Promise<{ keyCount: number; redisVersion: string }> =>
  connected(target, log, async client => {
    const { version } = readInfo(isCluster(client) ? '' : await client.info('server'))
    return { keyCount: await countKeys(client), redisVersion: version }
  })

async function writeSnapshot(target: RedisTarget, file: string): Promise<{ bytes: number; sha256: string }> {
  const hash = createHash('sha256')
  const out = createWriteStream(file, { flags: 'wx', mode: 0o600 })
  // A full disk: told by the write that waits for it, or by the end.
  const failed = once(out, 'error').then(([error]) => Promise.reject(error as Error))
  failed.catch(() => undefined)
  let bytes = 0
  try {
    for await (const chunk of readSnapshot(target)) {
      hash.update(chunk)
      bytes += chunk.byteLength
      if (!out.write(chunk)) await Promise.race([once(out, 'drain'), failed])
    }
    out.end()
    await Promise.race([once(out, 'close'), failed])
  } finally {
    out.destroy()
  }
  return { bytes, sha256: hash.digest('hex') }
}

/** All jobs are in there for a while: nobody else may read it, and it goes whatever happens. */
async function inPrivateFolder<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'muster-backup-'))
  try {
    return await use(folder)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

async function withPlace<T>(url: string, settings: Settings, use: (place: BackupPlace) => Promise<T>): Promise<T> {
  const place = await openBackupPlace(url, { region: settings.awsRegion, endpoint: settings.awsEndpointUrl })
  try {
    return await use(place)
  } finally {
    place.close()
  }
}

/** Of the name of a backup; a name of another kind is old. */
const takenMs = (name: string): number =>
  Date.parse(name.slice(0, 20).replace(/T(\d\d)-(\d\d)-(\d\d)Z/, 'T$1:$2:$3Z')) || 0
