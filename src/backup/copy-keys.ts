/**
 * Copies every key, with its time to live, from one Redis to another. The target must be empty and nobody else may
 * write to it: a key that is there already ends the copy. No key is read as anything but bytes.
 */

import { mkdir, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Redis } from 'ioredis'
import type { Logger } from 'pino'
import { StartupError } from '../errors.ts'
import { isCluster, type RedisClient, serversOf } from '../redis/connect/connection.ts'
import { embeddedFiles } from '../redis-server/embedded-config.ts'
import { findRedisBinary } from '../redis-server/redis-binary.ts'
import { launchServer } from '../redis-server/server-process.ts'
import { untilAnswers } from '../redis-server/until-answers.ts'

const keysAtOnce = 200

/** How many keys there are, on all servers of a Cluster. */
export async function countKeys(client: RedisClient): Promise<number> {
  const counts = await Promise.all(serversOf(client).map(server => server.dbsize()))
  return counts.reduce((sum, count) => sum + count, 0)
}

/**
 * Connections of others: of nodes, that is. Sentinels, replicas and operators do not write jobs.
 * On a Cluster nobody is counted: its own servers cannot be told from others there.
 */
export async function countOthers(client: RedisClient): Promise<number> {
  if (isCluster(client)) return 0
  const [own, text] = await Promise.all([client.client('ID'), client.client('LIST')])
  return String(text)
    .split('\n')
    .filter(line => line !== '' && !new RegExp(`^id=${own} `).test(line))
    .filter(line => !/ flags=\S*[SM]/.test(line) && !/ name=sentinel-/.test(line))
    .filter(line => !/ user=(?:operator|sentinel|replica)(?: |$)/.test(line)).length
}

/** @returns how many keys were copied @throws StartupError when the target refuses one */
export async function copyKeys(source: Redis, target: RedisClient, said: (copied: number) => void): Promise<number> {
  let copied = 0
  let cursor = '0'
  do {
    const [next, keys]: [Buffer, Buffer[]] = await source.scanBuffer(cursor, 'COUNT', keysAtOnce)
    cursor = next.toString()
    const counts = await Promise.all(keys.map(key => copyKey(source, target, key)))
    copied += counts.filter(Boolean).length
    said(copied)
  } while (cursor !== '0')
  return copied
}

async function copyKey(source: Redis, target: RedisClient, key: Buffer): Promise<boolean> {
  // The time to live first: what is then left of it can only be too much by a moment, never without end.
  const [ttlMs, value] = await Promise.all([source.pttl(key), source.dumpBuffer(key)])
  if (value === null) return false // It has just expired.
  try {
    await target.restore(key, Math.max(0, ttlMs), value)
  } catch (error) {
    const { message } = error as Error
    const why = message.startsWith('BUSYKEY') ? 'somebody else writes to this Redis: stop all nodes' : message
    throw new StartupError(`A key was not taken, and the restore is not complete: ${why}.`, { cause: error })
  }
  return true
}

/**
 * A redis-server that holds what a snapshot holds, and nothing else: on a unix socket in a private folder, for as long
 * as it is copied from. Redis checks the snapshot's own checksum when it loads it.
 */
export interface LoadedSnapshot {
  readonly socketPath: string
  /** Ends it; 25 s at most. */
  close(): Promise<void>
}

/**
 * Loads `file` into a server that works in `folder`.
 * @throws StartupError with Redis's reason when it cannot be loaded (damaged, or of a newer Redis), or there is no
 * redis-server
 */
export async function loadSnapshot(file: string, folder: string, log: Pick<Logger, 'info'>): Promise<LoadedSnapshot> {
  const binary = await findRedisBinary()
  const files = embeddedFiles(folder, tmpdir())
  for (const each of [files.folder, files.socketFolder]) await mkdir(each, { recursive: true, mode: 0o700 })
  const settings = {
    ...{ dir: JSON.stringify(folder), dbfilename: file.slice(join(folder, '/').length), save: '""', appendonly: 'no' },
    ...{ port: '0', unixsocket: JSON.stringify(files.socket), unixsocketperm: '700', daemonize: 'no' },
    ...{ pidfile: JSON.stringify(files.pid), logfile: JSON.stringify(files.log), maxmemory: '0' },
  }
  const lines = Object.entries(settings).map(([name, value]) => `${name} ${value}\n`)
  await writeFile(files.config, lines.join(''), { mode: 0o600 })
  const server = launchServer(binary, [files.config])
  try {
    await untilAnswers(server, files, log)
  } catch (error) {
    await server.end()
    throw error
  }
  return { socketPath: files.socket, close: server.end }
}
