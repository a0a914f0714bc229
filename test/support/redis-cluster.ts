/**
 * A Redis Cluster of three masters, without replicas unless one is asked for, as real processes on loopback. Gone at teardown, and gone with the
 * test process however that ends.
 */
import type { ChildProcess } from 'node:child_process'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import type { Test } from 'tap'
import { freePort } from './free-port.ts'
import { endProcess, spawnRedis } from './redis.ts'
import { patienceMs, until } from './until.ts'

export interface TestCluster {
  /** As for MUSTER_REDIS_URL; names two of the three, so that the third must be found. */
  readonly url: string
  readonly ports: readonly number[]
  /** One command to one of them. */
  ask(index: number, ...command: (string | number)[]): Promise<unknown>
  /** Which of them has this key. */
  ownerOf(key: string): Promise<number>
  kill(index: number, signal: NodeJS.Signals): Promise<void>
  /** Starts one that was killed, with its data; wakes one that was stopped. */
  restart(index: number): Promise<void>
  /** Gives a master a replica, and returns when it follows; its number is 3. */
  addReplica(of: number): Promise<void>
  /** Returns when every one says that the Cluster is whole. */
  whole(): Promise<void>
}

const indexes = [0, 1, 2] as const
const ranges = [
  [0, 5460],
  [5461, 10_922],
  [10_923, 16_383],
] as const

export async function startCluster(t: Pick<Test, 'teardown'>): Promise<TestCluster> {
  const folder = await mkdtemp(join(tmpdir(), 'muster-cluster-'))
  const servers: ChildProcess[] = []
  t.teardown(async () => {
    await Promise.all(servers.map(child => endProcess(child)))
    await rm(folder, { recursive: true, force: true })
  })
  const ports = [await freePort(), await freePort(), await freePort()]
  const busPorts = [await freePort(), await freePort(), await freePort()]

  const askWithin = async (ms: number, index: number, ...command: (string | number)[]): Promise<unknown> => {
    const client = new Redis({
      host: '127.0.0.1',
      port: ports[index] as number,
      lazyConnect: true,
      retryStrategy: null,
      commandTimeout: ms,
      enableReadyCheck: false,
    })
    client.on('error', () => undefined)
    try {
      return await client.call(...(command as [string, ...string[]]))
    } finally {
      client.disconnect()
    }
  }
  const ask = async (index: number, ...command: (string | number)[]): Promise<unknown> =>
    await askWithin(patienceMs, index, ...command)
  const start = async (index: number): Promise<void> => {
    const dir = join(folder, String(index))
    await mkdir(dir, { recursive: true })
    const flags: Record<string, string> = {
      dir,
      port: String(ports[index]),
      bind: '127.0.0.1',
      save: '',
      appendonly: 'yes',
      appendfsync: 'always',
      'maxmemory-policy': 'noeviction',
      'cluster-enabled': 'yes',
      'cluster-port': String(busPorts[index]),
      'cluster-node-timeout': '5000',
    }
    const { child, output } = spawnRedis(Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, value]))
    servers[index] = child
    await until(async () => {
      if (child.pid === undefined || child.exitCode !== null)
        throw new Error(`redis-server did not start:\n${output()}`)
      return await ask(index, 'PING').then(
        () => true,
        () => false,
      )
    })
  }
  const whole = (): Promise<void> =>
    until(async () => {
      // Asked again and again, so no single one is waited for.
      const said = await Promise.all(indexes.map(index => askWithin(2000, index, 'CLUSTER', 'INFO').catch(() => '')))
      return said.every(
        text => /cluster_state:ok/.test(String(text)) && !/cluster_known_nodes:[12]\b/.test(String(text)),
      )
    })

  await Promise.all(indexes.map(start))
  for (const index of indexes) {
    await ask(index, 'CLUSTER', 'ADDSLOTSRANGE', ...ranges[index])
    await ask(index, 'CLUSTER', 'SET-CONFIG-EPOCH', index + 1)
  }
  for (const index of [1, 2])
    await ask(0, 'CLUSTER', 'MEET', '127.0.0.1', ports[index] as number, busPorts[index] as number)
  await whole()

  return {
    url: `redis+cluster://127.0.0.1:${ports[0]},127.0.0.1:${ports[1]}`,
    ports,
    ask,
    whole,
    async ownerOf(key) {
      const slot = Number(await ask(0, 'CLUSTER', 'KEYSLOT', key))
      return indexes.find(index => slot <= ranges[index][1]) as number
    },
    async addReplica(of) {
      ports.push(await freePort())
      busPorts.push(await freePort())
      await start(3)
      await ask(3, 'CLUSTER', 'MEET', '127.0.0.1', ports[of] as number, busPorts[of] as number)
      const id = String(await ask(of, 'CLUSTER', 'MYID'))
      // Refused until it has heard of that master.
      await until(() =>
        ask(3, 'CLUSTER', 'REPLICATE', id).then(
          () => true,
          () => false,
        ),
      )
      await until(async () => /state=online/.test(String(await ask(of, 'INFO', 'replication'))))
    },
    async kill(index, signal) {
      const child = servers[index] as ChildProcess
      if (signal === 'SIGKILL' || signal === 'SIGTERM') await endProcess(child, signal)
      else child.kill(signal)
    },
    async restart(index) {
      const child = servers[index] as ChildProcess
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGCONT')
      else await start(index)
      await whole()
    },
  }
}
