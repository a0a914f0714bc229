/**
 * What instances cost an hour: Spot by type and zone from EC2's price history, On-Demand by type from the price list. Fetched
 * in the background and kept for a while; a price that is not known is undefined, and nothing waits for one.
 */
import type { _InstanceType } from '@aws-sdk/client-ec2'
import type { Pricing } from '@aws-sdk/client-pricing'
import type { FastifyBaseLogger } from 'fastify'
import { within } from '../../../within.ts'
import type { Instance } from '../provider.ts'
import { type AwsAccess, clientConfig, type Ec2Api } from './ec2-api.ts'

export interface PricesOptions {
  readonly api: Ec2Api
  readonly access: AwsAccess
  readonly log: FastifyBaseLogger
  readonly clock: () => number
}

interface Price {
  readonly usd: number | undefined
  readonly until: number
}

const spotValidMs = 5 * 60_000
const onDemandValidMs = 24 * 3_600_000
/** A price that could not be had is asked for again after this long. */
const failedValidMs = 5 * 60_000
const priceListTimeoutMs = 15_000
/** The price list is served from few regions; this one has all. */
const priceListRegion = 'us-east-1'

export class Prices {
  readonly #options: PricesOptions
  readonly #spot = new Map<string, Price>()
  readonly #onDemand = new Map<string, Price>()
  #fetching: Promise<void> | undefined
  #closed = false

  constructor(options: PricesOptions) {
    this.#options = options
  }

  /** In USD an hour, as far as it is known. */
  of({ market, instanceType = '', zone = '' }: Instance): number | undefined {
    return (market === 'spot' ? this.#spot.get(`${instanceType} ${zone}`) : this.#onDemand.get(instanceType))?.usd
  }

  /** Begins to fetch what is missing or old for these instances, unless that is under way. */
  refreshFor(instances: readonly Instance[]): void {
    if (this.#closed || this.#fetching !== undefined) return
    const now = this.#options.clock()
    const spot = instances.filter(({ market }) => market === 'spot')
    const spotTypes = typesToFetch(spot, ({ instanceType, zone }) => this.#spot.get(`${instanceType} ${zone}`), now)
    const onDemand = instances.filter(({ market }) => market === 'on-demand')
    const onDemandTypes = typesToFetch(onDemand, ({ instanceType = '' }) => this.#onDemand.get(instanceType), now)
    if (spotTypes.length === 0 && onDemandTypes.length === 0) return
    this.#fetching = Promise.all([this.#fetchSpot(spotTypes, spot), this.#fetchOnDemand(onDemandTypes)])
      .then(() => undefined)
      .finally(() => {
        this.#fetching = undefined
      })
  }

  /** Returns when nothing is being fetched any more. Calling twice is safe. */
  async close(): Promise<void> {
    this.#closed = true
    await this.#fetching
  }

  async #fetchSpot(types: readonly string[], instances: readonly Instance[]): Promise<void> {
    if (types.length === 0) return
    const { api, log, clock } = this.#options
    const found = new Map<string, number>()
    try {
      const reply = await api.retried((client, options) =>
        client.describeSpotPriceHistory(
          {
            InstanceTypes: types as _InstanceType[],
            ProductDescriptions: ['Linux/UNIX'],
            StartTime: new Date(clock()),
          },
          options,
        ),
      )
      for (const { InstanceType, AvailabilityZone, SpotPrice } of reply.SpotPriceHistory ?? []) {
        const key = `${InstanceType} ${AvailabilityZone}`
        // The newest comes first.
        if (!found.has(key)) found.set(key, Number(SpotPrice))
      }
    } catch (error) {
      log.warn({ err: error, types }, 'Spot prices are not known')
    }
    const until = clock() + spotValidMs
    for (const { instanceType = '', zone = '' } of instances.filter(({ instanceType = '' }) =>
      types.includes(instanceType),
    ))
      this.#spot.set(`${instanceType} ${zone}`, { usd: found.get(`${instanceType} ${zone}`), until })
  }

  async #fetchOnDemand(types: readonly string[]): Promise<void> {
    if (types.length === 0) return
    const { access, log, clock } = this.#options
    let client: Pricing | undefined
    try {
      const { Pricing } = await import('@aws-sdk/client-pricing')
      client = new Pricing({ ...clientConfig(access), region: priceListRegion })
      for (const type of types) {
        const abortSignal = AbortSignal.timeout(priceListTimeoutMs)
        const asked = client.getProducts(
          { ServiceCode: 'AmazonEC2', Filters: filtersFor(type, access.region) },
          { abortSignal },
        )
        const { PriceList = [] } = await within(priceListTimeoutMs, 'The price list', asked)
        const usd = hourlyPriceIn(PriceList.map(String))
        this.#onDemand.set(type, { usd, until: clock() + (usd === undefined ? failedValidMs : onDemandValidMs) })
      }
    } catch (error) {
      log.warn({ err: error, types }, 'On-Demand prices are not known')
      for (const type of types)
        this.#onDemand.set(type, { usd: this.#onDemand.get(type)?.usd, until: clock() + failedValidMs })
    } finally {
      client?.destroy()
    }
  }
}

function typesToFetch(instances: readonly Instance[], priceOf: (instance: Instance) => Price | undefined, now: number) {
  const old = instances.filter(instance => (priceOf(instance)?.until ?? 0) <= now)
  return [...new Set(old.flatMap(({ instanceType }) => instanceType ?? []))]
}

/** A Linux machine of its type, shared and without licences, in use. */
const filtersFor = (instanceType: string, region: string) =>
  Object.entries({
    instanceType,
    regionCode: region,
    operatingSystem: 'Linux',
    tenancy: 'Shared',
    preInstalledSw: 'NA',
    capacitystatus: 'Used',
  }).map(([Field, Value]) => ({ Type: 'TERM_MATCH' as const, Field, Value }))

interface PriceListItem {
  readonly terms?: {
    readonly OnDemand?: Record<string, { readonly priceDimensions?: Record<string, PriceDimension> }>
  }
}

interface PriceDimension {
  readonly unit?: string
  readonly pricePerUnit?: { readonly USD?: string }
}

/** @param items entries of the price list, JSON each */
function hourlyPriceIn(items: readonly string[]): number | undefined {
  const dimensions = items
    .map(item => JSON.parse(item) as PriceListItem)
    .flatMap(({ terms }) => Object.values(terms?.OnDemand ?? {}))
    .flatMap(({ priceDimensions }) => Object.values(priceDimensions ?? {}))
  const usd = dimensions.filter(({ unit }) => unit === 'Hrs').map(({ pricePerUnit }) => Number(pricePerUnit?.USD))
  return usd.find(price => price > 0)
}
