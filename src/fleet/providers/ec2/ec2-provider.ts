/**
 * The EC2 provider: an instance is a machine that runs one worker. It outlives the node that launched it, and ends itself
 * when no node can be reached. Whose it is stands in its tags, so every node sees the same fleet.
 *
 * Its parts: launcher (a decision becomes calls), instance-list (what is there), terminator, prices, volume-sweep.
 */
import type { FastifyBaseLogger } from 'fastify'
import type { Instance, LaunchRequest, Market, Provider } from '../provider.ts'
import { codeOf } from './aws-errors.ts'
import type { AwsAccess, Ec2Api } from './ec2-api.ts'
import { InstanceList } from './instance-list.ts'
import type { LaunchTemplate } from './launch-template.ts'
import { Launcher, type Placement } from './launcher.ts'
import { Prices } from './prices.ts'
import { UnavailableOfferings } from './unavailable-offerings.ts'
import { sweepVolumes } from './volume-sweep.ts'

export interface Ec2ProviderOptions {
  readonly api: Ec2Api
  readonly access: AwsAccess
  readonly template: LaunchTemplate
  /** The name in the tags: only instances that carry it are ours. */
  readonly deployment: string
  readonly subnets: readonly string[]
  placementOf(pool: string): Placement
  readonly listCacheMs: number
  readonly hiddenGraceMs: number
  readonly unavailableForMs: number
  readonly volumeGraceMs: number
  readonly log: FastifyBaseLogger
  readonly clock?: () => number
}

/** Decisions whose outcome is remembered, so that a repeated one needs no call. */
const rememberedDecisions = 500

export class Ec2Provider implements Provider {
  readonly endsWithNode = false
  readonly #options: Ec2ProviderOptions
  readonly #list: InstanceList
  readonly #launcher: Launcher
  readonly #prices: Prices
  readonly #decisions = new Map<string, Promise<Instance[]>>()
  #closing: Promise<void> | undefined

  constructor(options: Ec2ProviderOptions) {
    this.#options = options
    const { clock = Date.now, unavailableForMs } = options
    const shared = { ...options, clock }
    this.#list = new InstanceList({ ...shared, cacheMs: options.listCacheMs })
    this.#launcher = new Launcher({
      ...shared,
      unavailable: new UnavailableOfferings(unavailableForMs),
      findByDecision: (decisionId, limits) => this.#list.findByDecision(decisionId, limits),
    })
    this.#prices = new Prices(shared)
  }

  async launch(request: LaunchRequest): Promise<Instance[]> {
    if (this.#closing !== undefined) throw new Error('The EC2 provider is closed')
    const { decisionId } = request
    const known = this.#decisions.get(decisionId)
    if (known !== undefined) return await known
    const launching = this.#launch(request)
    this.#decisions.set(decisionId, launching)
    const [oldest] = this.#decisions.keys()
    if (this.#decisions.size > rememberedDecisions && oldest !== undefined) this.#decisions.delete(oldest)
    try {
      return await launching
    } catch (error) {
      this.#decisions.delete(decisionId)
      throw error
    }
  }

  async list(): Promise<Instance[]> {
    const instances = await this.#list.list()
    this.#prices.refreshFor(instances)
    return instances.map(instance => this.#priced(instance))
  }

  async terminate(ids: readonly string[], { force = false } = {}): Promise<void> {
    const ours = [...new Set(ids)].filter(id => this.manages(id))
    if (ours.length === 0) return
    this.#list.markTerminating(await terminateInstances(this.#options.api, ours, { skipShutdown: force }))
  }

  manages(instanceId: string): boolean {
    return /^i-[0-9a-f]{8,17}$/.test(instanceId)
  }

  explainBoot(instanceId: string): Promise<string | undefined> {
    return readConsole(this.#options.api, instanceId)
  }

  sweepLeftovers(now: number): Promise<string[]> {
    return sweepVolumes({ ...this.#options, graceMs: this.#options.volumeGraceMs }, now)
  }

  /** EC2 tells nobody: the next list does. */
  onChange(): () => void {
    return () => undefined
  }

  /** The instances stay: another node may need them, and they end themselves when there is none. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    await Promise.allSettled([...this.#decisions.values(), this.#prices.close()])
    this.#options.api.close()
  }

  async #launch(request: LaunchRequest): Promise<Instance[]> {
    const there = this.#list.latest.filter(({ pool, state }) => pool === request.pool && state === 'running')
    const countOf = (market: Market) => there.filter(instance => instance.market === market).length
    const launched = await this.#launcher.launch(request, {
      spot: countOf('spot'),
      'on-demand': countOf('on-demand'),
    })
    this.#list.add(launched)
    return launched
  }

  #priced(instance: Instance): Instance {
    const hourlyUsd = this.#prices.of(instance)
    return hourlyUsd === undefined ? instance : { ...instance, hourlyUsd }
  }
}

/** Ends instances, in batches. EC2 refuses a whole batch for one id that it does not know: then the halves are tried. */
const batchSize = 100
const unknownIdCodes = new Set(['InvalidInstanceID.NotFound', 'InvalidInstanceID.Malformed'])

/**
 * @param options.skipShutdown does not wait for the operating system to shut down
 * @returns the ids that EC2 ends now; the others are unknown to it
 * @throws the last error, after all batches were tried
 */
export async function terminateInstances(
  api: Ec2Api,
  ids: readonly string[],
  { skipShutdown }: { readonly skipShutdown: boolean },
): Promise<string[]> {
  const ended: string[] = []
  let failure: { readonly error: unknown } | undefined
  for (let from = 0; from < ids.length; from += batchSize) {
    try {
      ended.push(...(await terminateBatch(api, ids.slice(from, from + batchSize), skipShutdown)))
    } catch (error) {
      failure = { error }
    }
  }
  if (failure !== undefined) throw failure.error
  return ended
}

async function terminateBatch(api: Ec2Api, ids: readonly string[], skipShutdown: boolean): Promise<string[]> {
  const input = { InstanceIds: [...ids], ...(skipShutdown && { SkipOsShutdown: true }) }
  try {
    await api.retried((client, options) => client.terminateInstances(input, options))
    return [...ids]
  } catch (error) {
    if (!unknownIdCodes.has(codeOf(error))) throw error
    if (ids.length === 1) return []
    const middle = Math.ceil(ids.length / 2)
    return [
      ...(await terminateBatch(api, ids.slice(0, middle), skipShutdown)),
      ...(await terminateBatch(api, ids.slice(middle), skipShutdown)),
    ]
  }
}

/** What an instance wrote to its console. */
const tailBytes = 4096

/** @returns the end of it, at most 4 kB; undefined when there is none, or EC2 has forgotten the instance */
export async function readConsole(api: Ec2Api, instanceId: string): Promise<string | undefined> {
  try {
    // Only some types can show what was written just now; of the others EC2 keeps what they wrote while they booted.
    return (await read(api, instanceId, true)) ?? (await read(api, instanceId, false))
  } catch (error) {
    if (codeOf(error).startsWith('InvalidInstanceID.')) return undefined
    throw error
  }
}

async function read(api: Ec2Api, instanceId: string, latest: boolean): Promise<string | undefined> {
  const input = { InstanceId: instanceId, ...(latest && { Latest: true }) }
  try {
    const { Output } = await api.retried((client, options) => client.getConsoleOutput(input, options))
    const bytes = Buffer.from(Output ?? '', 'base64')
    return bytes.length === 0 ? undefined : bytes.subarray(-tailBytes).toString('utf8')
  } catch (error) {
    if (latest && codeOf(error) === 'UnsupportedOperation') return undefined
    throw error
  }
}
