/** `muster redis …`: the three Redis servers, configured, run and looked at. */
import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import type { Logger } from 'pino'
import { StartupError } from '../../errors.ts'
import { expiresAtMs } from './certificates.ts'
import { readStatus, sourceOfFolder, sourceOfUrl, statusTable } from './group-status.ts'
import { openTargets } from './probe.ts'
import { parseHosts, readServerConfig, sidesOf } from './replication-group.ts'
import { makeSecrets, readSecrets, renewCertificate, replaceSecrets, writeSecrets } from './secrets.ts'
import { ServerSupervisor } from './server-supervisor.ts'
import { switchover } from './switchover.ts'
import { writeGroup } from './write-group.ts'

export type Print = (line: string) => void

export interface SecretsOptions {
  readonly out: string
  readonly hostsNames?: string
  readonly renewCertificate?: boolean
}

/** Makes a file of secrets, or renews the certificate in one. @throws StartupError */
export async function runRedisSecrets(options: SecretsOptions, print: Print): Promise<void> {
  const file = resolve(options.out)
  const names = (options.hostsNames ?? '').split(',').filter(name => name !== '')
  const odd = names.find(name => !/^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/.test(name))
  if (odd !== undefined) throw new StartupError(`--hosts-names: "${odd}" is no DNS name.`)
  const secrets = options.renewCertificate
    ? await renewCertificate(await readSecrets(file), names, Date.now())
    : await makeSecrets(names, Date.now())
  if (options.renewCertificate) await replaceSecrets(file, secrets)
  else await writeSecrets(file, secrets)
  const until = new Date(expiresAtMs(secrets.serverCertificate)).toISOString().slice(0, 10)
  print(`Wrote ${file}; the certificate of the servers holds until ${until}.`)
  if (options.renewCertificate)
    print(
      'Run "muster redis init" again with it, bring the folders to their hosts, and restart one host after the other.',
    )
}

/** As commander reads them: all text. */
export interface InitOptions {
  readonly hosts: string
  readonly out: string
  readonly only?: string
  readonly secrets?: string
  readonly name: string
  readonly port: string
  readonly sentinelPort: string
  readonly tls: boolean
  readonly primary?: string
  readonly maxMemoryMb?: string
  readonly downAfterMs: string
}

/** Writes the configuration of the hosts. @throws StartupError */
export async function runRedisInit(options: InitOptions, print: Print): Promise<void> {
  const hosts = parseHosts(options.hosts)
  const port = wholeNumber('--port', options.port, 1, 65_535)
  const sentinelPort = wholeNumber('--sentinel-port', options.sentinelPort, 1, 65_535)
  if (port === sentinelPort) throw new StartupError('--port and --sentinel-port must differ.')
  if (!/^[A-Za-z0-9._-]{1,64}$/.test(options.name))
    throw new StartupError('--name takes letters, digits, ".", "-" and "_".')
  const lines = await writeGroup({
    group: {
      ...{ hosts, name: options.name, port, sentinelPort, tls: options.tls },
      downAfterMs: wholeNumber('--down-after-ms', options.downAfterMs, 500, 60_000),
      ...(options.maxMemoryMb !== undefined && {
        maxMemoryMb: wholeNumber('--max-memory-mb', options.maxMemoryMb, 16, 100_000_000),
      }),
    },
    primary: options.primary ?? hosts[0]?.name ?? '',
    out: options.out,
    ...(options.secrets !== undefined && { secretsFile: resolve(options.secrets) }),
    ...(options.only !== undefined && { only: options.only }),
  })
  for (const line of lines) print(line)
}

function wholeNumber(option: string, text: string, least: number, most: number): number {
  const value = Number(text)
  if (!/^\d+$/.test(text) || value < least || value > most)
    throw new StartupError(`${option} must be a whole number from ${least} to ${most}.`)
  return value
}

export interface RunOptions {
  readonly dir: string
  readonly dataDir?: string
  readonly failover: boolean
  readonly log: Pick<Logger, 'info' | 'warn' | 'error'>
  /** Resolves when it is time to stop; asked again, when it is time to stop at once. */
  readonly untilSignalled: () => Promise<void>
}

/** Runs this host's Redis and Sentinel until signalled. @returns the exit code @throws StartupError */
export async function runRedisServer({ dir, dataDir, failover, log, untilSignalled }: RunOptions): Promise<number> {
  // Redis rewrites its files, with passwords in them.
  process.umask(0o077)
  const supervisor = new ServerSupervisor({ folder: dir, log, ...(dataDir !== undefined && { dataDir }) })
  const signalled = untilSignalled()
  await supervisor.start()
  await signalled
  const stopped = supervisor.stop({ failover }).then(() => 0)
  return await Promise.race([stopped, untilSignalled().then(() => 130)])
}

/** Moves the role of primary to another host, while all go on running. @throws StartupError */
export async function runRedisFailover(dir: string, log: Pick<Logger, 'info' | 'warn'>, print: Print): Promise<number> {
  const source = await sourceOfFolder(dir)
  const config = await readServerConfig(dir)
  const targets = await openTargets(dir, config)
  const { primary } = await readStatus(source)
  const from = config.hosts.find(({ name }) => name === primary)
  if (from === undefined)
    throw new StartupError('No majority of the Sentinels names a primary: see "muster redis status".')
  const { own } = sidesOf({ ...config, host: from.name })
  const sentinels = [own, ...config.hosts.filter(host => host !== own)].map(targets.sentinel)
  // Ended half-way, the primary would go on refusing writes.
  const goOn = (): void => print('The switchover is under way: it takes 20 s at most.')
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, goOn)
  const outcome = await switchover({ redis: targets.redis(own), sentinels, name: config.name, log })
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, goOn)
  if (outcome.outcome === 'failed') print(`The primary is still ${from.name}: ${outcome.reason}.`)
  if (outcome.outcome === 'replica') print(`${from.name} is no longer primary: see "muster redis status".`)
  if (outcome.outcome === 'moved')
    print(
      `The primary was ${from.name} and is now ${config.hosts.find(({ address }) => address === outcome.to)?.name}.`,
    )
  return outcome.outcome === 'moved' ? 0 : 1
}

export interface StatusOptions {
  readonly dir?: string
  readonly url: string
  readonly caFile: string
  readonly tlsName: string
  readonly json: boolean
}

/** Prints the state of the servers. @returns 1 when no failover could happen now @throws StartupError */
export async function runRedisStatus(options: StatusOptions, print: Print): Promise<number> {
  const { dir, url, caFile, tlsName, json } = options
  if (dir === undefined && url === '')
    throw new StartupError('Name a folder (--dir) or a URL (--url, MUSTER_REDIS_URL).')
  const source = dir === undefined ? sourceOfUrl(url, await readTls(caFile, tlsName)) : await sourceOfFolder(dir)
  const status = await readStatus(source)
  for (const line of json ? [JSON.stringify(status, null, 2)] : statusTable(status)) print(line)
  return status.canFailOver ? 0 : 1
}

async function readTls(caFile: string, name: string): Promise<{ ca?: string; name?: string }> {
  const ca =
    caFile === ''
      ? undefined
      : await readFile(caFile, 'utf8').catch((error: Error) => {
          throw new StartupError(`MUSTER_REDIS_CA_FILE cannot be read: ${error.message}`)
        })
  return { ...(ca !== undefined && { ca }), ...(name !== '' && { name }) }
}
