/** The three copies of Redis as the harness knows them: from what `muster redis init` wrote. */
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Host } from './host.ts'
import type { Network } from './network.ts'
import type { Probe } from './probe.ts'

const run = promisify(execFile)

interface CopyFile {
  readonly name: string
  readonly port: number
  readonly sentinelPort: number
  readonly tls: boolean
  readonly password: string
}

export interface CopiesOptions {
  readonly cli: string
  /** In which each host has its own folder, by its name. */
  readonly folder: string
  readonly hosts: readonly Host[]
  readonly network: Network
  readonly probe: Probe
}

export class Copies {
  readonly hosts: readonly Host[]
  /** For the nodes: what node.env says. */
  readonly nodeEnvironment: Readonly<Record<string, string>>
  readonly #cli: string
  readonly #network: Network
  readonly #probe: Probe
  readonly #file: CopyFile
  readonly #caFile: string

  private constructor(options: CopiesOptions, environment: Record<string, string>, file: CopyFile) {
    const { cli, hosts, network, probe } = options
    this.hosts = hosts
    this.nodeEnvironment = environment
    this.#file = file
    this.#cli = cli
    this.#network = network
    this.#probe = probe
    this.#caFile = join((hosts[0] as Host).folder, 'tls', 'ca.crt')
  }

  static async init(options: CopiesOptions): Promise<Copies> {
    const { cli, folder, hosts } = options
    const named = hosts.map(({ name, address }) => `${name}=${address}`).join(',')
    const args = [cli, 'redis', 'init', '--hosts', named, '--out', folder, '--max-memory-mb', '2048']
    await run(process.execPath, args, { timeout: 120_000 })
    const environment = parseEnvironment(await readFile(join(folder, 'node.env'), 'utf8'))
    const file = JSON.parse(await readFile(join((hosts[0] as Host).folder, 'server.json'), 'utf8')) as CopyFile
    return new Copies(options, environment, file)
  }

  /** Starts Redis and Sentinel everywhere. */
  start(): void {
    for (const host of this.hosts)
      host.start('redis', [process.execPath, this.#cli, 'redis', 'run', '--dir', host.folder])
  }

  /** The host whose Redis is primary, by what a Sentinel says. @throws Error when none says anything */
  async primary(): Promise<Host> {
    let failure: unknown
    for (const { address } of this.hosts) {
      try {
        const [reply] = await this.#sentinel(address, ['sentinel', 'get-master-addr-by-name', this.#file.name])
        const found = this.hosts.find(host => host.address === (reply as string[] | null)?.[0])
        if (found !== undefined) return found
      } catch (error) {
        failure = error
      }
    }
    throw new Error('no Sentinel names the primary', { cause: failure })
  }

  /** A planned failover, as an operator does it: `muster redis failover`. */
  async handOver(): Promise<void> {
    const { folder } = this.hosts[0] as Host
    const [program, ...args] = this.#network.commandOn('control', [
      ...[process.execPath, this.#cli, 'redis', 'failover', '--dir', folder],
    ])
    await run(program as string, args, { timeout: 120_000 })
  }

  /** A failover by Sentinel alone: the old primary goes on for a moment. */
  async failover(): Promise<void> {
    await this.#sentinel((await this.primary()).address, ['sentinel', 'failover', this.#file.name])
  }

  /** The hosts, in the order in which Sentinel prefers them among copies that have the same data: by the ids of their runs. */
  async byPreference(): Promise<Host[]> {
    const ids = await Promise.all(
      this.hosts.map(async ({ address }) => {
        const [info] = await this.#ask(address, this.#file.port, ['info', 'server'])
        return /run_id:(\w+)/.exec(String(info))?.[1] ?? ''
      }),
    )
    const places = this.hosts.map((host, at) => ({ host, id: ids[at] as string }))
    return places.toSorted((one, other) => (one.id < other.id ? -1 : 1)).map(({ host }) => host)
  }

  /** The role in which the Sentinel of `witness` last heard the Redis of `host` report itself. */
  async roleAsHeardBy(witness: Host, host: Host): Promise<string> {
    const [replicas] = await this.#sentinel(witness.address, ['sentinel', 'replicas', this.#file.name])
    const found = (replicas as string[][]).find(pairs => pairs[pairs.indexOf('ip') + 1] === host.address)
    return found?.[found.indexOf('role-reported') + 1] ?? 'unknown'
  }

  /** As `muster redis failover` does with the old primary, so that it need not wait for Sentinel. */
  async follow(host: Host, primary: Host): Promise<void> {
    await this.#ask(host.address, this.#file.port, ['replicaof', primary.address, String(this.#file.port)])
  }

  /** What keeps the copies from being whole; empty when they are: one primary, two replicas in sync, three Sentinels that agree. */
  async faults(): Promise<string[]> {
    const views = await Promise.allSettled(this.hosts.map(host => this.#viewOf(host)))
    const faults: string[] = []
    const named = new Set<string>()
    const primaries: string[] = []
    for (const [index, view] of views.entries()) {
      const { name, address } = this.hosts[index] as Host
      if (view.status === 'rejected') {
        faults.push(`${name}: ${(view.reason as Error).message}`)
        continue
      }
      const { primary, flags, quorum, replicas, info } = view.value
      named.add(primary)
      if (flags !== 'master') faults.push(`${name}: its Sentinel says ${flags}`)
      if (!quorum.startsWith('OK 3 ')) faults.push(`${name}: its Sentinel says ${quorum}`)
      // A failover leaves behind what Sentinel has never seen.
      if (replicas !== 2) faults.push(`${name}: its Sentinel knows ${replicas} replicas`)
      if (info.role === 'master') {
        primaries.push(address)
        const inSync = [info.slave0, info.slave1].filter(line => /state=online/.test(line ?? '')).length
        if (inSync !== 2) faults.push(`${name}: primary with ${inSync} replicas in sync`)
      } else if (info.master_link_status !== 'up')
        faults.push(`${name}: replica whose link is ${info.master_link_status}`)
    }
    if (named.size !== 1) faults.push(`Sentinels name ${[...named].join(' and ') || 'nobody'}`)
    if (primaries.length !== 1 || !named.has(primaries[0] as string))
      faults.push(`primary by its own account: ${primaries.join(' and ') || 'nobody'}`)
    return faults
  }

  async #viewOf({ address }: Host) {
    const { name, port } = this.#file
    const [[master, quorum], [info]] = await Promise.all([
      this.#sentinel(address, ['sentinel', 'master', name], ['sentinel', 'ckquorum', name]),
      this.#ask(address, port, ['info', 'replication']),
    ])
    const pairs = master as string[]
    const field = (key: string): string => pairs[pairs.indexOf(key) + 1] ?? ''
    return {
      primary: field('ip'),
      flags: field('flags'),
      quorum: String(quorum),
      replicas: Number(field('num-slaves')),
      info: Object.fromEntries(
        String(info)
          .split('\r\n')
          .filter(line => line.includes(':'))
          .map(line => line.split(/:(.*)/) as [string, string]),
      ) as Record<string, string | undefined>,
    }
  }

  async #sentinel(address: string, ...commands: string[][]): Promise<unknown[]> {
    return await this.#ask(address, this.#file.sentinelPort, ...commands)
  }

  async #ask(host: string, port: number, ...commands: string[][]): Promise<unknown[]> {
    const { password, tls } = this.#file
    const secured = tls ? { caFile: this.#caFile, tlsName: 'muster-redis' } : {}
    return await this.#probe.redis({ host, port, username: 'operator', password, ...secured, commands })
  }
}

const parseEnvironment = (text: string): Record<string, string> =>
  Object.fromEntries(
    [...text.matchAll(/^([A-Z_]+)=(.*)$/gm)].map(([, name, value]) => [
      name,
      (value as string).replace(/^(["'])(.*)\1$/, '$2'),
    ]),
  )
