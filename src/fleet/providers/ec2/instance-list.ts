/**
 * The instances of a deployment, as EC2 shows them, mended by what we know better. EC2 is eventually consistent:
 *
 *   launched here ── shown ──▶ listed ── shown as terminated ──▶ gone, at once
 *        │                       └── not shown any more: listed all the same, for a grace ──▶ gone
 *        └── not shown yet: listed all the same, for a grace ──▶ gone
 *
 * EC2 shows an instance that has ended for about an hour. So a list without one comes from a copy of its data that lags
 * behind; and one that was asked for before the launch may come after one that has it.
 * One that was told to end is `terminating` from then on, whatever EC2 shows meanwhile.
 */
import type { Filter } from '@aws-sdk/client-ec2'
import type { Instance } from '../provider.ts'
import type { Ec2Api, RetryLimits } from './ec2-api.ts'
import { type ShownInstance, tagNames, toInstance } from './tags.ts'

export interface InstanceListOptions {
  readonly api: Ec2Api
  readonly deployment: string
  /** How long a list is good enough for the next one who asks; less than a tick. */
  readonly cacheMs: number
  /** How long EC2 may leave out an instance that is there. */
  readonly hiddenGraceMs: number
  readonly clock: () => number
}

interface Known {
  readonly instance: Instance
  /** When EC2 showed it last; absent: not yet. */
  readonly shownAt?: number
  /** Since when no list has it; absent: the latest one has. */
  readonly missingSince?: number
}

const liveStates = ['pending', 'running', 'stopping', 'stopped', 'shutting-down']
/** How long our own word that an instance ends or is gone goes before that of EC2. */
const ownWordMs = 5 * 60_000
/** One that was not looked for since then, and is not shown, may have ended that long ago that EC2 does not tell. */
const endsShownMs = 30 * 60_000
const idsPerCall = 200

export class InstanceList {
  readonly #options: InstanceListOptions
  readonly #known = new Map<string, Known>()
  /** When they were told to end, or seen to have ended. */
  readonly #terminating = new Map<string, number>()
  readonly #gone = new Map<string, number>()
  #reading: { readonly at: number; readonly instances: Promise<Instance[]> } | undefined

  constructor(options: InstanceListOptions) {
    this.#options = options
  }

  /** All that are not gone. @throws the error of AWS when it does not answer */
  async list(): Promise<Instance[]> {
    const now = this.#options.clock()
    if (this.#reading === undefined || now - this.#reading.at > this.#options.cacheMs) {
      const instances = this.#read()
      this.#reading = { at: now, instances }
      instances.catch(() => this.expire())
    }
    return await this.#reading.instances
  }

  /** As the latest list has them, without asking EC2. */
  get latest(): Instance[] {
    return [...this.#known.values()].map(({ instance }) => instance)
  }

  /** These were launched here: they are listed from now on. */
  add(instances: readonly Instance[]): void {
    const missingSince = this.#options.clock()
    for (const instance of instances) {
      if (!this.#known.has(instance.id) && !this.#gone.has(instance.id))
        this.#known.set(instance.id, { instance, missingSince })
    }
    this.expire()
  }

  /** EC2 has accepted that these end. */
  markTerminating(ids: readonly string[]): void {
    for (const id of ids) this.#terminating.set(id, this.#options.clock())
    this.expire()
  }

  /** The next list is a fresh one. */
  expire(): void {
    this.#reading = undefined
  }

  /** The instances that carry a decision's tag, also those that have ended. */
  async findByDecision(decisionId: string, limits: RetryLimits): Promise<Instance[]> {
    const shown = await this.#describe([this.#ours, { Name: `tag:${tagNames.decision}`, Values: [decisionId] }], limits)
    return shown.flatMap(instance => toInstance(instance) ?? [])
  }

  get #ours(): Filter {
    return { Name: `tag:${tagNames.deployment}`, Values: [this.#options.deployment] }
  }

  async #read(): Promise<Instance[]> {
    const shown = await this.#describe([this.#ours, { Name: 'instance-state-name', Values: liveStates }])
    const now = this.#options.clock()
    forgetOld(this.#terminating, now)
    forgetOld(this.#gone, now)
    const live = new Map(shown.map(instance => [instance.InstanceId ?? '', instance]))
    const missing = [...this.#known.keys()].filter(id => !live.has(id))
    const states = await this.#lookAt(missing)
    for (const id of missing) {
      const seen = states.get(id)
      if (seen === undefined) this.#miss(id, now)
      else if (!liveStates.includes(seen.State?.Name ?? '')) this.#hasEnded(id, now)
      else if (isTagged(seen, this.#options.deployment)) live.set(id, seen)
      else if (seen.Tags?.length) this.#known.delete(id)
      else this.#miss(id, now)
    }
    for (const instance of live.values()) this.#see(instance, now)
    return this.latest.map(instance =>
      this.#terminating.has(instance.id) ? { ...instance, state: 'terminating' } : instance,
    )
  }

  #see(shown: ShownInstance, now: number): void {
    const instance = toInstance(shown)
    if (instance === undefined || this.#gone.has(instance.id)) return
    // The time of the launch stays what it was said to be first: EC2's has whole seconds.
    const launchedAt = this.#known.get(instance.id)?.instance.launchedAt ?? instance.launchedAt
    this.#known.set(instance.id, { instance: { ...instance, launchedAt }, shownAt: now })
  }

  #miss(id: string, now: number): void {
    const known = this.#known.get(id)
    if (known === undefined) return
    const { missingSince = now, shownAt = now } = known
    if (now - missingSince < this.#options.hiddenGraceMs && now - shownAt < endsShownMs)
      this.#known.set(id, { ...known, missingSince })
    else this.#known.delete(id)
  }

  #hasEnded(id: string, now: number): void {
    this.#known.delete(id)
    // A copy of EC2's data that lags behind could show it as running once more.
    this.#gone.set(id, now)
  }

  /**
   * Those that were asked for by id, in any state; ids that EC2 does not know are left out (a filter is no claim). Not by
   * their tags: EC2 takes them off those that have ended.
   */
  async #lookAt(ids: readonly string[]): Promise<Map<string, ShownInstance>> {
    const found = new Map<string, ShownInstance>()
    for (let from = 0; from < ids.length; from += idsPerCall) {
      const filter = { Name: 'instance-id', Values: ids.slice(from, from + idsPerCall) }
      for (const instance of await this.#describe([filter])) found.set(instance.InstanceId ?? '', instance)
    }
    return found
  }

  async #describe(Filters: Filter[], limits?: RetryLimits): Promise<ShownInstance[]> {
    const { api } = this.#options
    const instances: ShownInstance[] = []
    let page: string | undefined
    do {
      const input = { Filters, MaxResults: 1000, ...(page !== undefined && { NextToken: page }) }
      const reply = await api.retried((client, options) => client.describeInstances(input, options), limits)
      for (const { Instances = [], OwnerId } of reply.Reservations ?? [])
        instances.push(...Instances.map(instance => ({ ...instance, OwnerId })))
      page = reply.NextToken
    } while (page !== undefined && page !== '')
    return instances
  }
}

/** Somebody may take the tag off one that runs: then it is not ours any more. */
const isTagged = ({ Tags = [] }: ShownInstance, deployment: string): boolean =>
  Tags.some(({ Key, Value }) => Key === tagNames.deployment && Value === deployment)

function forgetOld(times: Map<string, number>, now: number): void {
  for (const [id, at] of times) if (now - at > ownWordMs) times.delete(id)
}
