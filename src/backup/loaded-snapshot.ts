/**
 * A redis-server that holds what a snapshot holds, and nothing else: on a unix socket in a private folder, for as long as it
 * is copied from. Redis checks the snapshot's own checksum when it loads it.
 */
import { mkdir, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Logger } from 'pino'
import { embeddedFiles } from '../redis/embedded-config.ts'
import { findRedisBinary } from '../redis/redis-binary.ts'
import { endRedis, launchRedis, untilAnswers } from '../redis/redis-process.ts'

export interface LoadedSnapshot {
  readonly socketPath: string
  /** Ends it; 25 s at most. */
  close(): Promise<void>
}

/**
 * Loads `file` into a server that works in `folder`.
 * @throws StartupError with Redis's reason when it cannot be loaded (damaged, or of a newer Redis), or there is no redis-server
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
  const child = launchRedis(binary, files)
  try {
    await untilAnswers(child, files, log)
  } catch (error) {
    await endRedis(child, files)
    throw error
  }
  return { socketPath: files.socket, close: () => endRedis(child, files) }
}
