/**
 * Three Redis servers as an operator runs them: `muster redis run` for each, with TLS and ACL, on loopback addresses of
 * this test's own; and somebody who writes to them and knows what was acknowledged.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Redis } from 'ioredis'
import type { Test } from 'tap'
import { type GroupStatus, readStatus, sourceOfFolder } from '../../src/redis-server/ha/group-status.ts'
import { ask, type Target } from '../../src/redis-server/ha/probe.ts'
import { parseHosts, type ReplicationGroup } from '../../src/redis-server/ha/replication-group.ts'
import { readSecrets, type Secrets, type UserName } from '../../src/redis-server/ha/secrets.ts'
import { writeGroup } from '../../src/redis-server/ha/write-group.ts'
import { freePort } from './free-port.ts'
import { cli } from './node-process.ts'
import { patienceMs, until } from './until.ts'

export interface RunningHost {
  readonly name: string
  readonly address: string
  readonly folder: string
  start(): void
  /** SIGTERM to the supervisor. @returns its exit code or signal */
  stop(signal?: NodeJS.Signals): Promise<number | string>
  /** SIGKILL to the supervisor and all that it started, as a power loss would. */
  killAll(): Promise<void>
  /** The process of a server, which its configuration names. */
  pidOf(server: 'redis' | 'sentinel'): Promise<number>
  log(): string
}

export class RedisGroup {
  readonly folder: string
  readonly config: ReplicationGroup
  readonly secrets: Secrets
  readonly hosts: readonly RunningHost[]
  /** The test is over. */
  isOver = false

  constructor(folder: string, config: ReplicationGroup, secrets: Secrets) {
    this.folder = folder
    this.config = config
    this.secrets = secrets
    this.hosts = config.hosts.map(({ name, address }) => runningHost(name, address, join(folder, name)))
  }

  host(name: string | undefined): RunningHost {
    const host = this.hosts.find(other => other.name === name)
    if (host === undefined) throw new Error(`no host ${name}`)
    return host
  }

  others(name: string): RunningHost[] {
    return this.hosts.filter(other => other.name !== name)
  }

  target(server: 'redis' | 'sentinel', name: string, user: UserName): Target {
    const { port, sentinelPort } = this.config
    return {
      ...{ address: this.host(name).address, port: server === 'redis' ? port : sentinelPort },
      ...{ username: user, password: this.secrets.passwords[user], tls: { ca: this.secrets.caCertificate } },
    }
  }

  async status(): Promise<GroupStatus> {
    return await readStatus(await sourceOfFolder(join(this.folder, 'a')))
  }

  /** Until one serves as primary, all others follow it, and any of them could take over. @returns its name */
  async untilWhole(withinMs = patienceMs): Promise<string> {
    let last: GroupStatus | undefined
    await until(async () => {
      last = await this.status()
      return last.canFailOver && last.faults.length === 0
    }, withinMs).catch(error => {
      throw new Error(`${(error as Error).message}\n${JSON.stringify(last, null, 1)}`)
    })
    return last?.primary ?? ''
  }

  /** Until one other than `name` is named by a majority and serves. @returns its name */
  async untilPrimaryIsNot(name: string, withinMs = patienceMs): Promise<string> {
    let last: GroupStatus | undefined
    await until(async () => {
      last = await this.status()
      const { primary } = last
      return primary !== undefined && primary !== name && roleOf(last, primary) === 'primary'
    }, withinMs).catch(error => {
      throw new Error(`${(error as Error).message}\n${JSON.stringify(last, null, 1)}`)
    })
    return last?.primary ?? ''
  }

  async keysOf(name: string): Promise<Set<string>> {
    const keys = await ask(this.target('redis', name, 'operator'), 20_000, client => client.keys('{muster}:w:*'))
    return new Set(keys)
  }

  /** What the supervisors printed, and the last that each Sentinel and Redis wrote. */
  logs(): string {
    const tail = (folder: string, file: string): string => {
      const path = join(folder, 'data', file)
      const lines = existsSync(path) ? readFileSync(path, 'utf8').trimEnd().split('\n') : []
      return [`- ${file}`, ...lines.slice(-60)].join('\n')
    }
    return this.hosts
      .map(({ name, folder, log }) =>
        [`--- ${name}`, log(), tail(folder, 'sentinel.log'), tail(folder, 'redis.log')].join('\n'),
      )
      .join('\n')
  }
}

export const roleOf = (status: GroupStatus, name: string | undefined): string | undefined =>
  status.hosts.find(({ host }) => host === name)?.redis

const hasSetpriv = process.platform === 'linux' && spawnSync('setpriv', ['--pdeathsig', 'TERM', 'true']).status === 0

/** Writes the configuration of three hosts; nothing runs yet. A primary that is silent for `downAfterMs` is given up. */
export async function makeGroup(t: Test, { downAfterMs = 5000 } = {}): Promise<RedisGroup> {
  const folder = await mkdtemp(join(tmpdir(), 'muster-group-'))
  // An address block that other tests do not use at the same time.
  const block = `127.${1 + (process.pid % 250)}.1`
  const hosts = parseHosts(`a=${block}.1,b=${block}.2,c=${block}.3`)
  const ports = { port: await freePort(), sentinelPort: await freePort() }
  const group = { hosts, ...ports, name: 'muster', tls: true, downAfterMs, maxMemoryMb: 64 }
  await writeGroup({ group, primary: 'a', out: folder })
  const made = new RedisGroup(folder, group, await readSecrets(join(folder, 'secrets.json')))
  t.teardown(async () => {
    made.isOver = true
    if (!t.passing()) t.comment(made.logs())
    await Promise.all(made.hosts.map(host => host.killAll()))
    await rm(folder, { recursive: true, force: true })
  })
  return made
}

function runningHost(name: string, address: string, folder: string): RunningHost {
  let child: ChildProcess | undefined
  let output = ''
  const processes = async (): Promise<number[]> => {
    const found: number[] = []
    for (const entry of await readdir('/proc')) {
      if (!/^\d+$/.test(entry)) continue
      const command = await readFile(`/proc/${entry}/cmdline`, 'utf8').catch(() => '')
      // The supervisor by its argument, the servers by their titles.
      if (command.includes(folder)) found.push(Number(entry))
    }
    return found
  }
  return {
    ...{ name, address, folder },
    log: () => output,
    start() {
      const args = [cli, 'redis', 'run', '--dir', folder]
      const env = Object.fromEntries(
        Object.entries(process.env).filter(([key]) => !/^(MUSTER_|NODE_OPTIONS)/.test(key)),
      )
      // Gone with this process, however that ends; and what it started with it.
      const [program = '', ...before] = hasSetpriv
        ? ['setpriv', '--pdeathsig', 'TERM', process.execPath]
        : [process.execPath]
      child = spawn(program, [...before, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
      for (const stream of [child.stdout, child.stderr]) stream?.on('data', chunk => (output += chunk))
    },
    async stop(signal = 'SIGTERM') {
      if (child === undefined) return 0
      const ended = once(child, 'exit')
      child.kill(signal)
      const [code, by] = await ended
      return code ?? by
    },
    async killAll() {
      for (const pid of await processes()) kill(pid)
      await until(async () => {
        const left = await processes()
        for (const pid of left) kill(pid)
        return left.length === 0
      })
    },
    async pidOf(server) {
      const pid = Number(await readFile(join(folder, 'data', `${server}.pid`), 'utf8'))
      if (!(pid > 1)) throw new Error(`no ${server} of ${name}`)
      return pid
    },
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // gone by itself
  }
}

/** As BullMQ's scripts do: what writes twice is kept as a transaction. */
const twoWrites = "redis.call('SET', KEYS[1] .. ':before', '1') return redis.call('SET', KEYS[1], '1').ok"

/** Writes as fast as it goes, each write together with its WAIT, to whoever is primary; keeps what was acknowledged. */
export class Writer {
  readonly acknowledged: string[] = []
  readonly #group: RedisGroup
  readonly #done: Promise<void>
  #isStopping = false
  #count = 0

  constructor(group: RedisGroup) {
    this.#group = group
    this.#done = this.#run()
  }

  async stop(): Promise<string[]> {
    this.#isStopping = true
    await this.#done
    return this.acknowledged
  }

  async #run(): Promise<void> {
    while (!this.#isStopping && !this.#group.isOver) {
      for (const { name } of this.#group.hosts) {
        await ask(this.#group.target('redis', name, 'muster'), 60_000, client => this.#write(client)).catch(
          () => undefined,
        )
      }
      await delay(20)
    }
  }

  async #write(client: Redis): Promise<void> {
    while (!this.#isStopping && !this.#group.isOver) {
      const key = `{muster}:w:${process.pid}:${this.#count++}`
      const [set, wait] = (await client.pipeline().eval(twoWrites, 1, key).call('WAIT', '1', '1000').exec()) ?? []
      if (set?.[0]) throw set[0]
      if (set?.[1] === 'OK' && Number(wait?.[1]) >= 1) this.acknowledged.push(key)
    }
  }
}

/** Waits until all three are in sync again, and looks for what was acknowledged. */
export async function holdsAll(t: Test, group: RedisGroup, acknowledged: readonly string[], what: string) {
  const kept = await group.keysOf(await group.untilWhole())
  const lost = acknowledged.filter(key => !kept.has(key))
  t.strictSame(lost, [], `${what}: ${acknowledged.length} acknowledged, none lost`)
}
