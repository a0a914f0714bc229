/**
 * The replication group as the operator names it: three (or five) hosts, each with a Redis and a Sentinel; and what one
 * host has to know to run its own server (`server.json`).
 */
import { readFile } from 'node:fs/promises'
import { isIPv4 } from 'node:net'
import { isAbsolute, join, resolve } from 'node:path'
import { StartupError } from '../../errors.ts'

/** The name in the certificate of every server: a client verifies this, not an address. */
export const tlsName = 'muster-redis'

export interface Host {
  readonly name: string
  /** IPv4: Sentinel and its clients compare addresses as text, so there is one spelling. */
  readonly address: string
}

/** What all hosts agree on. */
export interface ReplicationGroup {
  readonly hosts: readonly Host[]
  /** The name of the group in Sentinel. */
  readonly name: string
  readonly port: number
  readonly sentinelPort: number
  readonly tls: boolean
  readonly downAfterMs: number
  /** Unset: 60 % of the memory of the machine that Redis runs on. */
  readonly maxMemoryMb?: number
}

/** One host's share, as `server.json` holds it. */
export interface ServerConfig extends ReplicationGroup {
  readonly version: 1
  /** The name of this host. */
  readonly host: string
  /** Of the user `operator`, on Redis and on Sentinel. */
  readonly password: string
}

/** A bare majority: so many Sentinels must agree on who is down, and on who is primary. */
export const majorityOf = (hostCount: number): number => Math.floor(hostCount / 2) + 1

/** From when on a failover attempt counts as failed; another one is barred for twice as long. */
export const failoverTimeoutMs = (downAfterMs: number): number => 2 * downAfterMs

const hostName = /^[a-z][a-z0-9-]{0,31}$/

/**
 * Reads `a=10.0.1.10,b=10.0.2.10,c=10.0.3.10`.
 * @throws StartupError that names every fault
 */
export function parseHosts(text: string): Host[] {
  const faults: string[] = []
  const hosts = text
    .split(',')
    .map(part => part.trim())
    .filter(part => part !== '')
    .map(part => {
      const [name = '', address = '', ...rest] = part.split('=').map(side => side.trim())
      if (!hostName.test(name) || rest.length > 0)
        faults.push(`"${part}" is not NAME=ADDRESS with a name of lower-case letters, digits and dashes`)
      else if (!isIPv4(address)) faults.push(`the address of ${name} ("${address}") is not an IPv4 address`)
      return { name, address }
    })
  if (hosts.length !== 3 && hosts.length !== 5) faults.push(`there are ${hosts.length} hosts; it takes 3 (or 5)`)
  for (const key of ['name', 'address'] as const) {
    const twice = hosts.find((host, at) => hosts.findIndex(other => other[key] === host[key]) !== at)
    if (twice !== undefined && twice[key] !== '') faults.push(`two hosts have the ${key} ${twice[key]}`)
  }
  if (faults.length > 0) throw new StartupError(`--hosts cannot be used: ${faults.join('; ')}.`)
  return hosts
}

/** Where everything of one host lies. */
export interface ServerFiles {
  readonly folder: string
  readonly server: string
  readonly redisConf: string
  readonly sentinelConf: string
  readonly users: string
  readonly sentinelUsers: string
  readonly authority: string
  readonly certificate: string
  readonly key: string
}

/** The files in the folder of one host; they name each other by absolute paths. */
export function serverFiles(folder: string): ServerFiles {
  const at = (...parts: string[]): string => join(resolve(folder), ...parts)
  return {
    folder: at(),
    server: at('server.json'),
    redisConf: at('redis.conf'),
    sentinelConf: at('sentinel.conf'),
    users: at('users.acl'),
    sentinelUsers: at('sentinel-users.acl'),
    authority: at('tls', 'ca.crt'),
    certificate: at('tls', 'server.crt'),
    key: at('tls', 'server.key'),
  }
}

/** Where Redis and Sentinel keep what they write, by default. */
export const defaultDataDir = (folder: string): string => join(resolve(folder), 'data')

/**
 * Paths that differ between the machine that wrote the files and the one that runs them are written in relation to
 * this.
 */
export const folderMark = '@FOLDER@'

/** Puts the folder in which the files now lie into a text of ours. */
export function placeFolder(text: string, folder: string): string {
  if (!isAbsolute(folder) || /["\\\n]/.test(folder))
    throw new StartupError(`${folder} cannot be named in a redis.conf: use a path without quotes and backslashes.`)
  return text.replaceAll(folderMark, folder)
}

/**
 * Reads the `server.json` of a host.
 * @throws StartupError when it is not there or not one of ours
 */
export async function readServerConfig(folder: string): Promise<ServerConfig> {
  const file = serverFiles(folder).server
  // Muster 0.1 called it copy.json.
  const earlier = join(resolve(folder), 'copy.json')
  let found: ServerConfig
  try {
    const text = await readFile(file, 'utf8').catch(async (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error
      return await readFile(earlier, 'utf8').catch(() => Promise.reject(error))
    })
    found = JSON.parse(text) as ServerConfig
  } catch (error) {
    throw new StartupError(
      `${file} cannot be read (${(error as Error).message}). Give the folder of this host, as "muster redis init" wrote it.`,
      { cause: error },
    )
  }
  if (found.version !== 1 || !Array.isArray(found.hosts) || !found.hosts.some(({ name }) => name === found.host))
    throw new StartupError(`${file} is of another version of Muster: run "muster redis init" again.`)
  return found
}

/** The host itself, and the others. */
export function sidesOf(config: ServerConfig): { own: Host; others: Host[] } {
  const own = config.hosts.find(({ name }) => name === config.host) as Host
  return { own, others: config.hosts.filter(({ name }) => name !== config.host) }
}
