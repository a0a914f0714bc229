/** What the servers of a host are started with, and where they keep what they write. */
import { mkdir, readFile, stat } from 'node:fs/promises'
import { totalmem } from 'node:os'
import { join, resolve } from 'node:path'
import { StartupError } from '../../errors.ts'
import { writeFileAtomic } from '../../write-file-atomic.ts'
import { directives, mergeSentinelConf, ownFiles, type RunFiles, runConf } from './config-files.ts'
import { type Host, placeFolder, type ServerConfig, serverFiles } from './replication-group.ts'

/** Part of the machine's (or container's) memory that Redis may fill before it refuses writes. */
const memoryShare = 0.6
/** The append-only file of an empty Redis has a head and nothing else. */
const emptyBytes = 256

export interface DataFiles {
  readonly dataDir: string
  readonly redis: RunFiles
  readonly sentinel: RunFiles
}

export function dataFiles(dataDir: string): DataFiles {
  const of = (name: string): RunFiles => ({
    config: join(dataDir, `${name}.conf`),
    log: join(dataDir, `${name}.log`),
    pid: join(dataDir, `${name}.pid`),
  })
  return { dataDir, redis: of('redis'), sentinel: of('sentinel') }
}

/** @throws StartupError when the folder cannot be made */
export async function makeDataDir(dataDir: string): Promise<void> {
  await mkdir(dataDir, { recursive: true, mode: 0o700 }).catch((error: Error) => {
    throw new StartupError(`The data directory ${dataDir} cannot be made: ${error.message}`, { cause: error })
  })
}

/** Writes redis.conf for one start, as replica of `of` or as primary. */
export async function writeRedisConf(
  config: ServerConfig,
  folder: string,
  { dataDir, redis }: DataFiles,
  start: { readonly of?: Host; readonly isBarred: boolean },
): Promise<void> {
  const template = placeFolder(await readFile(serverFiles(folder).redisConf, 'utf8'), resolve(folder))
  const limits = [totalmem(), process.constrainedMemory?.() ?? 0].filter(bytes => bytes > 0)
  const maxMemoryBytes =
    config.maxMemoryMb === undefined ? Math.floor(Math.min(...limits) * memoryShare) : config.maxMemoryMb * 1024 * 1024
  const text = runConf(template, redis, {
    ...{ dataDir, maxMemoryBytes, isBarred: start.isBarred },
    ...(start.of && { replicaOf: { address: start.of.address, port: config.port } }),
  })
  await writeFileAtomic(redis.config, text)
}

/** Writes sentinel.conf: the template, and what Sentinel knew when it last ran here. */
export async function writeSentinelConf(
  config: ServerConfig,
  folder: string,
  { dataDir, sentinel }: DataFiles,
): Promise<void> {
  const template = placeFolder(await readFile(serverFiles(folder).sentinelConf, 'utf8'), resolve(folder))
  const state = await readFile(sentinel.config, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return ''
    throw new StartupError(`What Sentinel knew cannot be read: ${error.message}`, { cause: error })
  })
  const text = mergeSentinelConf(template, state, config)
  await writeFileAtomic(sentinel.config, text + directives({ dir: `"${dataDir}"`, ...ownFiles(sentinel) }))
}

/**
 * Whether a Redis that starts on this folder would come up with no data. It loads what its manifest lists (or the one
 * file of Redis 6), and nothing else: not dump.rdb, which a replica leaves behind, nor files of a manifest that is
 * lost.
 */
export async function holdsNoData(dataDir: string): Promise<boolean> {
  const folder = join(dataDir, 'appendonlydir')
  const manifest = await readFile(join(folder, 'appendonly.aof.manifest'), 'utf8').catch(() => '')
  const listed = [...manifest.matchAll(/^file (\S+) seq \d+ type [bi]\b/gm)].map(([, name = '']) => join(folder, name))
  const sizes = await Promise.all(
    [...listed, join(dataDir, 'appendonly.aof')].map(file =>
      stat(file).then(
        found => found.size,
        () => 0,
      ),
    ),
  )
  return sizes.reduce((sum, bytes) => sum + bytes, 0) <= emptyBytes
}
