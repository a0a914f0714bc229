/**
 * Carries out one decision to launch. Nothing is launched twice, even when a reply is lost:
 *
 *   look for instances that carry the decision's tag ── some ──▶ these are it, when all of them show
 *        │ none
 *        ▼
 *   plan ─▶ call 1 ─▶ … ─▶ last call: On-Demand what Spot had no room for
 *
 * The token of a call is derived from the decision and the number of the call. So when a reply is lost, the same call under the
 * same token is answered by EC2 with what it launched the first time; when another node took the same decision and asked
 * for something else (it knows other unavailable offerings), EC2 refuses (IdempotentParameterMismatch), and the tag
 * shows what was launched.
 */
import type { FastifyBaseLogger } from 'fastify'
import { type Instance, LaunchError, type LaunchFailure, type LaunchRequest, type Market } from '../provider.ts'
import { classify, toFailure } from './aws-errors.ts'
import type { Ec2Api } from './ec2-api.ts'
import {
  type Ask,
  failureAt,
  fallback,
  fromCreateFleet,
  fromRunInstances,
  type LaunchReply,
  needsNoFleet,
  planLaunch,
  toCreateFleet,
  toRunInstances,
} from './launch-request.ts'
import type { LaunchTemplate, ResolvedTemplate } from './launch-template.ts'
import { clientToken, tagsFor } from './tags.ts'
import { backoffMs, Deadline, TokenBucket } from './throttling.ts'
import type { Offering, UnavailableOfferings } from './unavailable-offerings.ts'

/** What one queue's instances are. */
export interface Placement {
  /** None: the type of the launch template. */
  readonly instanceTypes: readonly string[]
  /** 0 to 100. */
  readonly spotPercent: number
  /** Whether handlers have the role of their instance. */
  readonly handlerMetadata?: 'no' | 'yes'
}

export interface LauncherOptions {
  readonly api: Ec2Api
  readonly deployment: string
  readonly template: LaunchTemplate
  readonly unavailable: UnavailableOfferings
  /** None: the subnet of the launch template, or the default one. */
  readonly subnets: readonly string[]
  placementOf(pool: string): Placement
  /** The instances that carry the decision's tag, also those that have ended, with those of an earlier call left out. */
  findByDecision(decisionId: string, limits: { totalMs: number; maxTries: number }): Promise<Instance[]>
  readonly log: FastifyBaseLogger
  readonly clock: () => number
}

/** With less time left than this no call is begun: its reply would come too late. */
const leastCallMs = 3000
const leastLookMs = 1500
/** Looking for what a decision launched before is a second safety beside the token: it may fail. */
const lookLimits = { totalMs: 5000, maxTries: 3 }
/** Tries to find what was launched under a token that EC2 knows already: its tags may take a while to show. */
const maxLooks = 6

export class Launcher {
  readonly #options: LauncherOptions
  /**
   * EC2's own limits for RunInstances: 5 requests, 2 more a second; and 1000 instances, 2 more a second. CreateFleet is
   * counted as if it were one, as EC2 launches its instances for it the same way.
   * https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html
   */
  readonly #requestTokens = new TokenBucket(5, 2)
  readonly #instanceTokens = new TokenBucket(1000, 2)

  constructor(options: LauncherOptions) {
    this.#options = options
  }

  /**
   * @param present what the pool has already, by market
   * @throws LaunchError when nothing could be launched
   */
  async launch(request: LaunchRequest, present: Readonly<Record<Market, number>>): Promise<Instance[]> {
    const { template, log } = this.#options
    const deadline = new Deadline(this.#options.api.pace.launchMs)
    const before = await this.#look(request.decisionId, deadline)
    if (before.length > 0) return await this.#lookOn(before, { request, launched: [], deadline }, request.count)
    const resolved = await this.#resolveTemplate(request)
    const asks = this.#plan(request, present, resolved)
    const launched: Instance[] = []
    const failures: LaunchFailure[] = []
    for (let number = 1; asks.length > 0; number += 1) {
      const ask = asks.shift() as Ask
      const reply = await this.#carryOut({ ask, number, request, resolved, launched, deadline })
      launched.push(...reply.instances)
      failures.push(...reply.failures)
      if (reply.failures.some(({ code }) => code.startsWith('InvalidLaunchTemplate'))) template.forget()
      if (reply.isLast) break
      const missing = ask.spot - reply.instances.filter(({ market }) => market === 'spot').length
      // After a call for Spot only one for On-Demand can be left: they become one.
      if (missing > 0) asks.push(this.#fallbackFor(missing + (asks.pop()?.onDemand ?? 0), request, resolved))
    }
    const { pool, count, decisionId } = request
    if (launched.length === 0) throw new LaunchError(`No instance could be launched for queue ${pool}`, failures)
    if (launched.length < count)
      log.warn({ queue: pool, decisionId, count, launched: launched.length, failures }, 'launched fewer than desired')
    return launched
  }

  #plan({ pool, count }: LaunchRequest, present: Readonly<Record<Market, number>>, template: ResolvedTemplate): Ask[] {
    const { unavailable, clock } = this.#options
    const offerings = this.#offerings(pool, template)
    const usable = (market: Market) => unavailable.usable(offerings, market, clock())
    const { spotPercent } = this.#options.placementOf(pool)
    return planLaunch({
      count,
      spotPercent,
      present,
      offerings,
      usable: { spot: usable('spot'), 'on-demand': usable('on-demand') },
    })
  }

  #fallbackFor(missing: number, { pool }: LaunchRequest, template: ResolvedTemplate): Ask {
    const { unavailable, clock, log } = this.#options
    log.info({ queue: pool, missing }, 'Spot has no room: the rest is asked for On-Demand')
    const offerings = this.#offerings(pool, template)
    return fallback(missing, offerings, unavailable.usable(offerings, 'on-demand', clock()))
  }

  #offerings(pool: string, { instanceType }: ResolvedTemplate): Offering[] {
    const { instanceTypes } = this.#options.placementOf(pool)
    const types = instanceTypes.length > 0 ? instanceTypes : [instanceType]
    const subnets = this.#options.subnets.length > 0 ? this.#options.subnets : [undefined]
    return types.flatMap(instanceType => subnets.map(subnetId => ({ instanceType, subnetId })))
  }

  async #resolveTemplate({ pool }: LaunchRequest): Promise<ResolvedTemplate> {
    try {
      return await this.#options.template.resolve()
    } catch (error) {
      throw new LaunchError(`The launch template for queue ${pool} cannot be used`, [toFailure(error)], {
        cause: error,
      })
    }
  }

  /** One call, until it is certain what came of it, or the time is up. */
  async #carryOut(step: Step): Promise<LaunchReply & { readonly isLast: boolean }> {
    const { ask, number, request, deadline } = step
    const { api, log, unavailable, clock } = this.#options
    let failure: LaunchFailure = ownThrottle
    let found: Instance[] = []
    for (let tries = 1; ; tries += 1) {
      if (!(await this.#waitForTokens(ask, deadline))) break
      try {
        const reply = await this.#send(step)
        for (const failure of reply.failures) unavailable.remember(failure, clock())
        return { ...reply, isLast: false }
      } catch (error) {
        failure = { ...toFailure(error), ...whereOf(ask) }
        const kind = classify(error)
        log.warn({ queue: request.pool, decisionId: request.decisionId, call: number, tries, kind, failure }, 'launch')
        if (kind === 'capacity') unavailable.remember(failure, clock())
        if (kind === 'capacity' || kind === 'refused') return { instances: [], failures: [failure], isLast: false }
        // Another node carries out this decision, in a way of its own: what it does is all that is done.
        if (kind === 'mismatch') {
          const instances = await this.#lookOn(await this.#lookNew(step), step, ask.spot + ask.onDemand)
          return { instances, failures: [failure], isLast: true }
        }
        if (kind === 'throttled') this.#requestTokens.empty()
        const waited = await deadline.wait(backoffMs(api.pace, tries, Math.random()))
        if (kind === 'unknown') {
          const shown = await this.#lookNew(step)
          if (shown.length > found.length) found = shown
        }
        if (found.length >= ask.spot + ask.onDemand) return { instances: found, failures: [], isLast: false }
        // Fewer may be all that it launched, or all that shows yet: the same call again tells.
        if (!waited) break
      }
    }
    return { instances: found, failures: [failure], isLast: true }
  }

  async #waitForTokens({ spot, onDemand }: Ask, deadline: Deadline): Promise<boolean> {
    const longestMs = deadline.remainingMs - leastCallMs
    const forRequest = this.#requestTokens.take(1, longestMs)
    if (forRequest === undefined) return false
    const forInstances = this.#instanceTokens.take(spot + onDemand, longestMs)
    return forInstances !== undefined && (await deadline.wait(Math.max(forRequest, forInstances)))
  }

  async #send({ ask, number, request, resolved, deadline }: Step): Promise<LaunchReply> {
    const { api, deployment, clock } = this.#options
    const tags = tagsFor(deployment, request, this.#options.placementOf(request.pool).handlerMetadata === 'yes')
    const token = clientToken('launch', deployment, request.decisionId, String(number))
    // With time left to look for what it launched, should the reply be lost.
    const timeoutMs = Math.min(api.pace.callTimeoutMs, deadline.remainingMs - leastLookMs)
    if (needsNoFleet(ask, resolved)) {
      const input = toRunInstances(ask, resolved, tags, token)
      return fromRunInstances(
        await api.once((client, options) => client.runInstances(input, options), timeoutMs),
        clock(),
      )
    }
    const input = toCreateFleet(ask, resolved, tags, token)
    const reply = await api.once((client, options) => client.createFleet(input, options), timeoutMs)
    return fromCreateFleet(reply, request, clock())
  }

  /** What this call launched, as far as it shows: what the decision has, without the earlier calls of it. */
  async #lookNew({ request, launched, deadline }: Search): Promise<Instance[]> {
    const before = new Set(launched.map(({ id }) => id))
    return (await this.#look(request.decisionId, deadline)).filter(({ id }) => !before.has(id))
  }

  /** Looks on until all have shown, or three looks have brought nothing new: each instance shows at a time of its own. */
  async #lookOn(first: readonly Instance[], search: Search, all: number): Promise<Instance[]> {
    const found = new Map(first.map(instance => [instance.id, instance]))
    for (let looks = 1, vain = 0; found.size < all && vain < 3 && looks < maxLooks; looks += 1) {
      if (!(await search.deadline.wait(backoffMs(this.#options.api.pace, looks, 1)))) break
      const before = found.size
      for (const instance of await this.#lookNew(search)) found.set(instance.id, instance)
      vain = found.size > 0 && found.size === before ? vain + 1 : 0
    }
    return [...found.values()]
  }

  async #look(decisionId: string, deadline: Deadline): Promise<Instance[]> {
    const { findByDecision, log } = this.#options
    try {
      return await findByDecision(decisionId, {
        ...lookLimits,
        totalMs: Math.min(lookLimits.totalMs, deadline.remainingMs),
      })
    } catch (error) {
      log.warn({ decisionId, err: error }, 'cannot look for what a decision launched before: its token protects it')
      return []
    }
  }
}

/** For what a decision launched. */
interface Search {
  readonly request: LaunchRequest
  /** By the earlier calls of the decision. */
  readonly launched: readonly Instance[]
  readonly deadline: Deadline
}

interface Step extends Search {
  readonly ask: Ask
  /** 1 for the first call of the decision. */
  readonly number: number
  readonly resolved: ResolvedTemplate
}

const ownThrottle: LaunchFailure = {
  code: 'OwnLaunchRate',
  message: 'As many launches as EC2 allows are under way already',
  throttled: true,
  capacity: false,
}

/** Where a call failed as a whole: known only when it asked for one offering, in one market. */
function whereOf({ spot, onDemand, offerings }: Ask): Pick<LaunchFailure, 'market' | 'instanceType' | 'subnetId'> {
  const market = onDemand === 0 ? 'spot' : spot === 0 ? 'on-demand' : undefined
  return failureAt(market, offerings.length === 1 && offerings[0] !== undefined ? offerings[0] : nowhere)
}

const nowhere: Offering = { instanceType: undefined, subnetId: undefined }
