/**
 * What is tested: two nodes, three copies of Redis, two workers, each host with the processes that it would have in earnest.
 *
 *   started ──fault──▶ broken ──heal──▶ whole again ──fault──▶ …
 */
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { nowMs } from './clock.ts'
import { Copies } from './copies.ts'
import { Host } from './host.ts'
import type { HostName, Network } from './network.ts'
import type { Probe } from './probe.ts'
import { makeTally, type Tally } from './tally.ts'
import { waitFor } from './wait-for.ts'

export interface DeploymentOptions {
  readonly runPath: string
  readonly network: Network
  readonly probe: Probe
  /** dist/cli.js, or that of another build. */
  readonly cli: string
  readonly signal: AbortSignal
  /** The run is over: nothing is started again. */
  readonly over: AbortSignal
}

const nodePort = 5000
const wholeWithinMs = 90_000
const lookEveryMs = 250

/** Short, so that what a lost worker held runs again while the scenario lasts; the default is 15 s. */
const leaseMs = '5000'

export class Deployment {
  readonly hosts: Readonly<Record<'a' | 'b' | 'c' | 'w1' | 'w2', Host>>
  readonly network: Network
  readonly copies: Copies
  readonly tally: Tally
  /** Processes that ended although nobody ended them; they were started again. */
  readonly surprises: string[]
  readonly #probe: Probe
  readonly #cli: string
  readonly #signal: AbortSignal
  readonly #operatorKey = randomBytes(32).toString('base64url')
  /** Of clients and workers. */
  #key = ''

  private constructor(
    { network, probe, cli, signal }: DeploymentOptions,
    hosts: Deployment['hosts'],
    copies: Copies,
    tally: Tally,
    surprises: string[],
  ) {
    this.network = network
    this.#probe = probe
    this.#cli = cli
    this.#signal = signal
    this.hosts = hosts
    this.copies = copies
    this.tally = tally
    this.surprises = surprises
  }

  /** Starts everything; resolves when it is whole. */
  static async start(options: DeploymentOptions): Promise<Deployment> {
    const { runPath, network, probe, cli, over } = options
    const folder = join(runPath, 'hosts')
    const surprises: string[] = []
    const onSurprise = (sentence: string): void => void surprises.push(sentence)
    const host = (name: HostName): Host => new Host({ name, network, folder: join(folder, name), over, onSurprise })
    const hosts = { a: host('a'), b: host('b'), c: host('c'), w1: host('w1'), w2: host('w2') }
    const copies = await Copies.init({ cli, folder, hosts: [hosts.a, hosts.b, hosts.c], network, probe })
    const deployment = new Deployment(options, hosts, copies, await makeTally(runPath), surprises)
    copies.start()
    await deployment.#begin(async () => await copies.faults(), 'the copies of Redis')
    for (const node of deployment.nodes) deployment.#startNode(node)
    const nodeFaults = async (): Promise<string[]> => await deployment.#faultsOfNodes(0)
    await deployment.#begin(nodeFaults, 'the nodes')
    await deployment.#makeKey()
    for (const worker of deployment.workers) deployment.#startWorker(worker)
    await deployment.#begin(async () => await deployment.faults(), 'the deployment')
    return deployment
  }

  get nodes(): readonly Host[] {
    return [this.hosts.a, this.hosts.b]
  }

  get workers(): readonly Host[] {
    return [this.hosts.w1, this.hosts.w2]
  }

  get nodeUrls(): string[] {
    return this.nodes.map(nodeUrl)
  }

  /** What clients send with every call. */
  get headers(): Record<string, string> {
    return { authorization: `Bearer ${this.#key}` }
  }

  /**
   * Takes every fault away: links, stopped processes, hosts without power, roles that ended.
   * @returns what was last to be whole
   * @throws Error that says what is not whole, after 90 s
   */
  async heal(): Promise<string[]> {
    await this.network.rejoin()
    for (const host of Object.values(this.hosts)) {
      if (!host.isOff) await this.network.mend(host.name)
      host.continueAll()
      await host.powerOn()
    }
    return await this.untilWhole()
  }

  /** When nothing else helps: ends everything and starts it again. @throws Error when that does not help either */
  async startOver(): Promise<void> {
    await Promise.all(Object.values(this.hosts).map(host => host.killAll()))
    await this.heal()
  }

  /**
   * Moves the primary away from the witness, should it be there, by planned failovers: so that a scenario hits what its name
   * says. Priorities would do that too, but Sentinel puts them before what a replica has, and so loses acknowledged jobs.
   */
  async settlePrimary(): Promise<void> {
    for (let tries = 0; (await this.copies.primary()) === this.hosts.c; tries++) {
      if (tries === 3) throw new Error('the primary does not leave the witness')
      await this.copies.handOver()
      await waitFor(async () => ((await this.copies.primary()) === this.hosts.c ? undefined : true), 10_000)
      await this.untilWhole()
    }
  }

  /** @returns what was last to be whole @throws Error that says what is not whole, after 90 s */
  async untilWhole(): Promise<string[]> {
    return await this.#until(async () => await this.faults(), 'the deployment')
  }

  /** What is not as it should be; empty when all is whole. */
  async faults(): Promise<string[]> {
    const [copies, nodes] = await Promise.all([this.copies.faults(), this.#faultsOfNodes(this.workers.length)])
    return [...Object.values(this.hosts).flatMap(host => host.missing), ...copies, ...nodes]
  }

  /** A call to some node that answers. @throws Error when none does */
  async ask(path: string): Promise<{ status: number; text: string }> {
    let failure: unknown
    for (const url of this.nodeUrls) {
      try {
        const reply = await this.#probe.http({ method: 'GET', url: url + path, headers: this.headers })
        if (reply.status < 500) return reply
      } catch (error) {
        failure = error
      }
    }
    throw new Error(`no node answers GET ${path}`, { cause: failure })
  }

  async #faultsOfNodes(workerCount: number): Promise<string[]> {
    return (await Promise.all(this.nodes.map(node => this.#faultsOfNode(node, workerCount)))).flat()
  }

  async #faultsOfNode(node: Host, workerCount: number): Promise<string[]> {
    const headers = { authorization: `Bearer ${this.#operatorKey}` }
    const get = async (path: string): Promise<{ status: number; text: string }> =>
      await this.#probe.http({ method: 'GET', url: nodeUrl(node) + path, headers })
    try {
      const ready = await get('/health/ready')
      if (ready.status !== 200) return [`node ${node.name} is not ready: ${ready.text.slice(0, 200)}`]
      const status = await get('/status')
      const workers = (JSON.parse(status.text) as { Workers?: number }).Workers ?? -1
      return workers >= workerCount ? [] : [`node ${node.name} sees ${workers} workers`]
    } catch (error) {
      return [`node ${node.name}: ${(error as Error).message}`]
    }
  }

  /** One key for clients and workers. */
  async #makeKey(): Promise<void> {
    const url = `${this.nodeUrls[0]}/keys`
    const headers = { authorization: `Bearer ${this.#operatorKey}` }
    const json = { name: 'faults', roles: ['submit', 'collect', 'work', 'read'] }
    const { status, text } = await this.#probe.http({ method: 'POST', url, headers, json })
    if (status !== 200) throw new Error(`no key could be made: ${text.slice(0, 200)}`)
    this.#key = (JSON.parse(text) as { key: string }).key
  }

  #startNode(host: Host): void {
    host.start('node', [process.execPath, this.#cli, 'node'], {
      ...this.copies.nodeEnvironment,
      MUSTER_HOST: host.address,
      MUSTER_PORT: String(nodePort),
      MUSTER_DATA_DIR: join(host.folder, 'node'),
      MUSTER_CONFIG_FILE: '/nonexistent',
      MUSTER_FLEET: 'none',
      MUSTER_OPERATOR_KEY: this.#operatorKey,
      MUSTER_HANDLERS: this.tally.handlersFile,
      MUSTER_LEASE_MS: leaseMs,
    })
  }

  #startWorker(host: Host): void {
    host.start('worker', [process.execPath, this.#cli, 'worker'], {
      MUSTER_NODE_URLS: this.nodeUrls.join(','),
      MUSTER_WORKER_TOKEN: this.#key,
      MUSTER_CONFIG_FILE: '/nonexistent',
      MUSTER_HANDLERS: this.tally.handlersFile,
      MUSTER_WORKER_SLOTS: '2',
      FAULTS_TALLY_FOLDER: this.tally.folder,
      MUSTER_PASS_ENV: 'FAULTS_TALLY_FOLDER',
    })
  }

  /** Like #until; what ends by itself now will not do better the next time. */
  async #begin(look: () => Promise<string[]>, what: string): Promise<void> {
    const soundly = async (): Promise<string[]> => {
      if (this.surprises.length > 0) throw new Error(this.surprises[0])
      return await look()
    }
    await this.#until(soundly, what)
  }

  async #until(look: () => Promise<string[]>, what: string): Promise<string[]> {
    const deadlineMs = nowMs() + wholeWithinMs
    for (let last: string[] = []; ; ) {
      const faults = await look()
      if (faults.length === 0) return last
      if (nowMs() > deadlineMs) throw new Error(`${what}: not whole after ${wholeWithinMs} ms: ${faults.join('; ')}`)
      last = faults
      await delay(lookEveryMs, undefined, { signal: this.#signal })
    }
  }
}

const nodeUrl = ({ address }: Host): string => `http://${address}:${nodePort}`
