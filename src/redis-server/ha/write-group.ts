/** Writes the configuration of every host, and what a node needs to find them. May be run again: it updates. */
import { chmod, mkdir, readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { StartupError } from '../../errors.ts'
import { writeFileAtomic } from '../../write-file-atomic.ts'
import { redisConf, redisUsers, sentinelConf, sentinelStateOf, sentinelUsers } from './config-files.ts'
import {
  defaultDataDir,
  type Host,
  type ReplicationGroup,
  type ServerConfig,
  serverFiles,
} from './replication-group.ts'
import { makeSecrets, readSecrets, type Secrets, writeSecrets } from './secrets.ts'

export interface WriteOptions {
  readonly group: ReplicationGroup
  /** Name of the host that is primary at the very first start. */
  readonly primary: string
  readonly out: string
  /** Unset: those in `out`, which are made when there are none. */
  readonly secretsFile?: string
  /** Name of the one host to write for (default: all). */
  readonly only?: string
}

/** @returns lines to print: what was written and kept, and what to do on each host
 * @throws StartupError when a host is not known, the secrets cannot be read, or the folder cannot be written */
export async function writeGroup(options: WriteOptions): Promise<string[]> {
  const { group, only } = options
  const out = resolve(options.out)
  const find = (name: string, option: string): Host => {
    const host = group.hosts.find(other => other.name === name)
    if (host !== undefined) return host
    throw new StartupError(
      `${option} ${name} is none of the hosts (${group.hosts.map(other => other.name).join(', ')}).`,
    )
  }
  const primary = find(options.primary, '--primary')
  const chosen = only === undefined ? group.hosts : [find(only, '--only')]
  const secretsFile = options.secretsFile ?? join(out, 'secrets.json')
  const lines: string[] = []
  try {
    await makeFolder(out)
    const secrets = await haveSecrets(secretsFile, options.secretsFile !== undefined, lines)
    for (const host of chosen) {
      await writeHost(join(out, host.name), group, host, primary, secrets)
      lines.push(`Wrote ${join(out, host.name)} for host ${host.name} (${host.address}).`)
      const kept = await keptState(join(out, host.name), group)
      if (kept !== undefined) lines.push(kept)
    }
    await writeFileAtomic(join(out, 'ca.crt'), secrets.caCertificate)
    await writeFileAtomic(join(out, 'node.env'), nodeEnvironment(group, secrets, join(out, 'ca.crt')))
  } catch (error) {
    if (error instanceof StartupError) throw error
    throw new StartupError(`${out} cannot be written: ${(error as Error).message}`, { cause: error })
  }
  return [...lines, '', ...whatToDo(out, group, chosen, secretsFile)]
}

/** How a node finds the servers, as environment. */
export function nodeEnvironment(group: ReplicationGroup, secrets: Secrets, authorityFile: string): string {
  const scheme = group.tls ? 'rediss+sentinel' : 'redis+sentinel'
  const sentinels = group.hosts.map(({ address }) => `${address}:${group.sentinelPort}`).join(',')
  return [
    `MUSTER_REDIS_URL=${scheme}://muster:${secrets.passwords.muster}@${sentinels}/${group.name}`,
    ...(group.tls ? [`MUSTER_REDIS_CA_FILE=${authorityFile}`, 'MUSTER_REDIS_TLS_NAME=muster-redis'] : []),
    '',
  ].join('\n')
}

async function haveSecrets(file: string, isGiven: boolean, lines: string[]): Promise<Secrets> {
  if (isGiven) return await readSecrets(file)
  const found = await readFile(file).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return false
      throw error
    },
  )
  if (found) return await readSecrets(file)
  const secrets = await makeSecrets([], Date.now())
  await writeSecrets(file, secrets)
  lines.push(`Made secrets: ${file}. Keep it: every host must be written with the same.`)
  return secrets
}

async function writeHost(
  folder: string,
  group: ReplicationGroup,
  host: Host,
  primary: Host,
  secrets: Secrets,
): Promise<void> {
  const files = serverFiles(folder)
  const config: ServerConfig = { version: 1, ...group, host: host.name, password: secrets.passwords.operator }
  await makeFolder(folder)
  await writeFileAtomic(files.users, redisUsers(secrets.passwords))
  await writeFileAtomic(files.sentinelUsers, sentinelUsers(secrets.passwords))
  if (group.tls) {
    await makeFolder(join(folder, 'tls'))
    await writeFileAtomic(files.authority, secrets.caCertificate)
    await writeFileAtomic(files.certificate, secrets.serverCertificate)
    await writeFileAtomic(files.key, secrets.serverKey)
  }
  await writeFileAtomic(files.redisConf, redisConf(group, host, secrets))
  await writeFileAtomic(files.sentinelConf, sentinelConf(group, host, primary, secrets))
  await writeFileAtomic(files.server, `${JSON.stringify(config, null, 2)}\n`)
}

/** What Sentinel has learnt lies beside its data; nothing here touches it. */
async function keptState(folder: string, group: ReplicationGroup): Promise<string | undefined> {
  const file = join(defaultDataDir(folder), 'sentinel.conf')
  const state = sentinelStateOf(await readFile(file, 'utf8').catch(() => ''), group.name)
  if (state === undefined) return undefined
  const name = group.hosts.find(({ address }) => address === state.primary)?.name ?? state.primary
  return `Kept what its Sentinel knows: the primary is ${name} (epoch ${state.configEpoch}).`
}

async function makeFolder(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  await chmod(folder, 0o700)
}

const whatToDo = (out: string, group: ReplicationGroup, chosen: readonly Host[], secretsFile: string): string[] => [
  ...chosen.map(({ name, address }) => `On ${name} (${address}): muster redis run --dir ${join(out, name)}`),
  ...(chosen.length > 1
    ? [
        '',
        `Each host needs its own folder only: copy it there (to any place, owner and modes kept), not ${secretsFile}.`,
      ]
    : []),
  `Nodes: the settings are in ${join(out, 'node.env')}${group.tls ? `; they need ${join(out, 'ca.crt')} too` : ''}.`,
  `Between the hosts, open TCP ${group.port} and ${group.sentinelPort}; to nodes as well, to no other machine.`,
  `Then: muster redis status --dir ${join(out, chosen[0]?.name ?? '')}`,
]
