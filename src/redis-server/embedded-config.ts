/**
 * How the embedded Redis is set up: every job is on disk before it is acknowledged, nothing is ever evicted, and only
 * this user reaches it.
 */
import { createHash } from 'node:crypto'
import { totalmem, userInfo } from 'node:os'
import { join } from 'node:path'

/** Part of the machine's (or container's) memory that Redis may fill before it refuses writes. */
const memoryShare = 0.6

/** sun_path holds 104 bytes on macOS and 108 on Linux, with the closing NUL. */
const maxSocketPathBytes = 103

export interface EmbeddedFiles {
  readonly folder: string
  readonly config: string
  readonly log: string
  readonly pid: string
  readonly socket: string
  /** Holds the socket: `folder`, or a short one under the temporary directory. */
  readonly socketFolder: string
}

/** Where everything of the Redis of a data directory (absolute) lies. */
export function embeddedFiles(dataDir: string, temporaryDir: string): EmbeddedFiles {
  const folder = join(dataDir, 'redis')
  const socketFolder =
    Buffer.byteLength(join(folder, 'redis.sock')) <= maxSocketPathBytes ? folder : shortFolder(dataDir, temporaryDir)
  return {
    folder,
    config: join(folder, 'redis.conf'),
    log: join(folder, 'redis.log'),
    pid: join(folder, 'redis.pid'),
    socket: join(socketFolder, 'redis.sock'),
    socketFolder,
  }
}

function shortFolder(dataDir: string, temporaryDir: string): string {
  const name = `muster-${userInfo().uid}-${createHash('sha256').update(dataDir).digest('hex').slice(0, 16)}`
  const folder = join(temporaryDir, name)
  return Buffer.byteLength(join(folder, 'redis.sock')) <= maxSocketPathBytes ? folder : join('/tmp', name)
}

/** The text of redis.conf for a server of this major version. */
export function embeddedConfig(files: EmbeddedFiles, majorVersion: number): string {
  const limits = [totalmem(), process.constrainedMemory?.() ?? 0].filter(bytes => bytes > 0)
  return Object.entries({
    dir: quote(files.folder),
    port: '0',
    unixsocket: quote(files.socket),
    unixsocketperm: '700',
    daemonize: 'no',
    pidfile: quote(files.pid),
    logfile: quote(files.log),
    loglevel: 'notice',
    appendonly: 'yes',
    appendfsync: 'always',
    // A power loss can cut the last write short; what is cut off was never acknowledged.
    'aof-load-truncated': 'yes',
    save: '""',
    'maxmemory-policy': 'noeviction',
    maxmemory: String(Math.floor(Math.min(...limits) * memoryShare)),
    // Jobs are hashes: packed, they take half of the memory.
    [majorVersion >= 7 ? 'hash-max-listpack-value' : 'hash-max-ziplist-value']: '1024',
  })
    .map(([name, value]) => `${name} ${value}\n`)
    .join('')
}

/** redis.conf knows \\ and \" inside quotes; JSON's other escapes do not occur in paths that we make. */
const quote = (path: string): string => JSON.stringify(path)
