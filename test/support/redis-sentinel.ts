/**
 * Three Redis servers and three Sentinels on loopback, as real processes: one primary, two replicas, a quorum of two.
 * Gone at teardown, and gone with the test process however that ends.
 */
import type { ChildProcess } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import type { Test } from 'tap'
import type { ClientOptions } from '../../src/redis/connect/address.ts'
import { type Certificates, makeCertificates } from './certificates.ts'
import { freePort } from './free-port.ts'
import { endProcess, spawnRedis } from './redis.ts'
import { patienceMs, until } from './until.ts'

export interface SentinelTrioOptions {
  /** Everything by TLS, with a certificate for `muster-redis` only. */
  readonly tls?: boolean
  /** Users and passwords: one for Redis, another for the Sentinels. */
  readonly acl?: boolean
}

export interface SentinelTrio {
  /** As for MUSTER_REDIS_URL. */
  readonly url: string
  /** As for connectRedis(): the URL, and what TLS takes. */
  readonly target: { readonly url: string; readonly caFile?: string; readonly tlsName?: string }
  readonly ports: readonly number[]
  readonly sentinelPorts: readonly number[]
  /** Which of the three is primary, as the Sentinels say now. */
  primary(): Promise<number>
  /** One command to one of the three; no error is hidden. */
  ask(index: number, ...command: string[]): Promise<unknown>
  askSentinel(index: number, ...command: string[]): Promise<unknown>
  /** A signal to one Redis; after SIGKILL and SIGTERM returns when it is gone. */
  kill(index: number, signal: NodeJS.Signals): Promise<void>
  /** The same for its Sentinel. */
  killSentinel(index: number, signal: NodeJS.Signals): Promise<void>
  /** Starts one that was killed, as a replica of whom the Sentinels name; wakes one that was stopped. */
  restart(index: number): Promise<void>
  /** A planned switch; returns the new primary once two Sentinels name it. */
  failover(): Promise<number>
  /** Returns the new primary when two Sentinels name one that is not `index`. */
  switchedFrom(index: number, withinMs?: number): Promise<number>
  /** Returns when both replicas follow the primary and each Sentinel knows all of them. */
  settled(): Promise<void>
}

const indexes = [0, 1, 2] as const
const name = 'muster'
const users = {
  redis: { username: 'muster', password: 'pa:ss/w@rd' },
  sentinel: { username: 'watch', password: 'w4tch-it' },
}

export async function startSentinelTrio(
  t: Pick<Test, 'teardown'>,
  options: SentinelTrioOptions = {},
): Promise<SentinelTrio> {
  const folder = await mkdtemp(join(tmpdir(), 'muster-trio-'))
  const servers: ChildProcess[] = []
  const sentinels: ChildProcess[] = []
  t.teardown(async () => {
    await Promise.all([...servers, ...sentinels].map(child => endProcess(child)))
    await rm(folder, { recursive: true, force: true })
  })
  const certificates = options.tls ? await makeCertificates(folder) : undefined
  const ports = [await freePort(), await freePort(), await freePort()]
  const sentinelPorts = [await freePort(), await freePort(), await freePort()]

  const callOnce = async (
    port: number,
    user: ClientOptions,
    command: readonly string[],
    ms: number,
  ): Promise<unknown> => {
    const client = new Redis({
      host: '127.0.0.1',
      port,
      lazyConnect: true,
      retryStrategy: null,
      enableReadyCheck: false,
      commandTimeout: ms,
      ...(options.acl && user),
      ...(certificates && { tls: { servername: certificates.name, rejectUnauthorized: false } }),
    })
    client.on('error', () => undefined)
    try {
      return await client.call(...(command as [string, ...string[]]))
    } finally {
      client.disconnect()
    }
  }
  const ask = (index: number, ...command: string[]): Promise<unknown> =>
    callOnce(ports[index] as number, users.redis, command, patienceMs)
  const askSentinel = (index: number, ...command: string[]): Promise<unknown> =>
    callOnce(sentinelPorts[index] as number, users.sentinel, command, patienceMs)
  /** For what is asked again and again: one that stands still is not waited for. */
  const briefly = {
    ask: (index: number, ...command: string[]): Promise<unknown> =>
      callOnce(ports[index] as number, users.redis, command, 2000),
    askSentinel: (index: number, ...command: string[]): Promise<unknown> =>
      callOnce(sentinelPorts[index] as number, users.sentinel, command, 2000),
  }

  /** What each Sentinel says; undefined where one does not answer. */
  const named = (): Promise<(number | undefined)[]> =>
    Promise.all(
      indexes.map(async index => {
        const question = briefly.askSentinel(index, 'SENTINEL', 'GET-MASTER-ADDR-BY-NAME', name)
        const reply = await question.catch(() => undefined)
        const at = ports.indexOf(Number((reply as string[] | undefined)?.[1]))
        return at === -1 ? undefined : at
      }),
    )
  const majority = async (): Promise<number | undefined> => {
    const votes = await named()
    return indexes.find(index => votes.filter(vote => vote === index).length >= 2)
  }
  const primary = async (): Promise<number> => {
    let found: number | undefined
    await until(async () => {
      found = await majority()
      return found !== undefined
    })
    return found as number
  }
  const startRedis = async (index: number, of: number): Promise<void> => {
    const dir = join(folder, `redis-${index}`)
    await mkdir(dir, { recursive: true })
    const file = join(dir, 'redis.conf')
    await writeFile(file, redisConf(ports, index, of, dir, options, certificates))
    const { child, output } = spawnRedis([file])
    servers[index] = child
    await untilUp(child, output, () => ask(index, 'PING'))
  }
  const startSentinel = async (index: number): Promise<void> => {
    const dir = join(folder, `sentinel-${index}`)
    await mkdir(dir, { recursive: true })
    const file = join(dir, 'sentinel.conf')
    await writeFile(file, sentinelConf(sentinelPorts[index] as number, ports[0] as number, dir, options, certificates))
    const { child, output } = spawnRedis([file, '--sentinel'])
    sentinels[index] = child
    await untilUp(child, output, () => askSentinel(index, 'PING'))
  }
  const signal = async (child: ChildProcess | undefined, name: NodeJS.Signals): Promise<void> => {
    if (child === undefined) throw new Error('it does not run')
    if (name === 'SIGKILL' || name === 'SIGTERM') await endProcess(child, name)
    else child.kill(name)
  }
  const settled = (): Promise<void> =>
    until(async () => {
      const now = await majority()
      if (now === undefined) return false
      const info = String(await briefly.ask(now, 'INFO', 'replication').catch(() => ''))
      if ((info.match(/state=online/g) ?? []).length < 2) return false
      const views = await Promise.all(
        indexes.map(index => briefly.askSentinel(index, 'SENTINEL', 'MASTER', name).catch(() => [])),
      )
      return views.every(
        view => knows(view as string[], 'num-slaves', 2) && knows(view as string[], 'num-other-sentinels', 2),
      )
    })
  const switchedFrom = async (index: number, withinMs = patienceMs): Promise<number> => {
    let now: number | undefined
    await until(async () => {
      now = await majority()
      return now !== undefined && now !== index
    }, withinMs)
    return now as number
  }

  await Promise.all(indexes.map(index => startRedis(index, 0)))
  await Promise.all(indexes.map(startSentinel))
  await settled()

  const url = urlOf(sentinelPorts, options)
  return {
    url,
    target: { url, ...(certificates && { caFile: certificates.caFile, tlsName: certificates.name }) },
    ports,
    sentinelPorts,
    ask,
    askSentinel,
    settled,
    switchedFrom,
    primary,
    kill: (index, name) => signal(servers[index], name),
    killSentinel: (index, name) => signal(sentinels[index], name),
    async restart(index) {
      const child = servers[index]
      if (child !== undefined && child.exitCode === null && child.signalCode === null) child.kill('SIGCONT')
      else await startRedis(index, await primary())
    },
    async failover() {
      const before = await primary()
      // Refused for a moment after another switch.
      await until(() =>
        askSentinel(0, 'SENTINEL', 'FAILOVER', name).then(
          () => true,
          () => false,
        ),
      )
      return await switchedFrom(before)
    },
  }
}

const knows = (view: readonly string[], field: string, count: number): boolean =>
  Number(view[view.indexOf(field) + 1]) === count

function urlOf(sentinelPorts: readonly number[], { tls, acl }: SentinelTrioOptions): string {
  const { redis, sentinel } = users
  const user = acl ? `${redis.username}:${encodeURIComponent(redis.password)}@` : ''
  const query = acl ? `?sentinelUsername=${sentinel.username}&sentinelPassword=${sentinel.password}` : ''
  const hosts = sentinelPorts.map(port => `127.0.0.1:${port}`).join(',')
  return `redis${tls ? 's' : ''}+sentinel://${user}${hosts}/${name}${query}`
}

async function untilUp(child: ChildProcess, output: () => string, ping: () => Promise<unknown>): Promise<void> {
  await until(async () => {
    if (child.pid === undefined || child.exitCode !== null) throw new Error(`redis-server did not start:\n${output()}`)
    return await ping().then(
      () => true,
      error => /NOREPLICAS|LOADING/.test(String(error)),
    )
  })
}

const listen = (port: number, certificates: Certificates | undefined): string[] =>
  certificates === undefined
    ? [`port ${port}`]
    : [
        'port 0',
        `tls-port ${port}`,
        'tls-replication yes',
        'tls-auth-clients no',
        `tls-ca-cert-file ${certificates.caFile}`,
        `tls-cert-file ${certificates.certFile}`,
        `tls-key-file ${certificates.keyFile}`,
      ]

const aclOf = ({ username, password }: ClientOptions): string[] => [
  'user default off',
  `user ${username} on >${password} ~* &* +@all`,
]

function redisConf(
  ports: readonly number[],
  index: number,
  primary: number,
  dir: string,
  { acl }: SentinelTrioOptions,
  certificates: Certificates | undefined,
): string {
  const { username, password } = users.redis
  return [
    ...listen(ports[index] as number, certificates),
    'bind 127.0.0.1',
    `dir ${dir}`,
    'save ""',
    'appendonly yes',
    'appendfsync everysec',
    'maxmemory-policy noeviction',
    'hash-max-listpack-value 1024',
    'min-replicas-to-write 1',
    'min-replicas-max-lag 2',
    'repl-timeout 5',
    'repl-ping-replica-period 1',
    'repl-diskless-sync yes',
    'repl-diskless-sync-delay 0',
    'replica-announce-ip 127.0.0.1',
    ...(acl ? [...aclOf(users.redis), `masteruser ${username}`, `masterauth ${password}`] : []),
    ...(primary === index ? [] : [`replicaof 127.0.0.1 ${ports[primary]}`]),
    '',
  ].join('\n')
}

function sentinelConf(
  port: number,
  primaryPort: number,
  dir: string,
  { acl }: SentinelTrioOptions,
  certificates: Certificates | undefined,
): string {
  const { redis, sentinel } = users
  return [
    ...listen(port, certificates),
    'bind 127.0.0.1',
    `dir ${dir}`,
    'sentinel announce-ip 127.0.0.1',
    ...(acl
      ? [
          ...aclOf(sentinel),
          `sentinel sentinel-user ${sentinel.username}`,
          `sentinel sentinel-pass ${sentinel.password}`,
        ]
      : []),
    `sentinel monitor ${name} 127.0.0.1 ${primaryPort} 2`,
    ...(acl ? [`sentinel auth-user ${name} ${redis.username}`, `sentinel auth-pass ${name} ${redis.password}`] : []),
    `sentinel down-after-milliseconds ${name} 5000`,
    `sentinel failover-timeout ${name} 4000`,
    `sentinel parallel-syncs ${name} 1`,
    '',
  ].join('\n')
}
