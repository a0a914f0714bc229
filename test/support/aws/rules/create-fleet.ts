/**
 * CreateFleet of type `instant`, turned into RunInstances by capacity pool; what a pool does not give stands in Errors.
 * Why: moto's never fails, takes the first override only, and drops security groups and profile.
 */
import { randomUUID } from 'node:crypto'
import type { Caller } from '../ec2-calls.ts'
import { type Params, structures, sub, tagParams, tagsOf, without } from '../query.ts'
import { Refusal, type Reply, xmlReply } from '../reply.ts'
import { ec2Reply, type XmlValue } from '../xml.ts'
import { type Candidate, type Failure, type FleetTargets, planFleet } from './fleet-plan.ts'
import { readTemplate, type TemplateVersion, writeOut } from './launch-template.ts'
import type { Prices } from './prices.ts'
import { instanceIdsOf, type LaunchRules, launchTaken, poolOf } from './run-instances.ts'

type FleetRules = LaunchRules & { readonly prices: Prices }

/** What the front carries out; anything else is refused, so that no test relies on what is not there. */
const covered = new RegExp(
  `^(${[
    'Action|Version|ClientToken|DryRun|Type|Context',
    'TagSpecification\\..*',
    'TargetCapacitySpecification\\.(Total|OnDemand|Spot)TargetCapacity',
    'TargetCapacitySpecification\\.DefaultTargetCapacityType',
    '(Spot|OnDemand)Options\\.(AllocationStrategy|MinTargetCapacity|SingleInstanceType|SingleAvailabilityZone)',
    'SpotOptions\\.InstanceInterruptionBehavior',
    'LaunchTemplateConfigs\\.\\d+\\.LaunchTemplateSpecification\\..*',
    'LaunchTemplateConfigs\\.\\d+\\.Overrides\\.\\d+\\.(InstanceType|SubnetId|AvailabilityZone|MaxPrice|Priority|WeightedCapacity|ImageId)',
  ].join('|')})$`,
)

interface Offer extends Candidate {
  /** RunInstances without a template, for one instance of this pool. */
  readonly request: Params
  /** As it is named in the reply. */
  readonly overrides: XmlValue
}

export async function createFleet(params: Params, caller: Caller, rules: FleetRules): Promise<Reply> {
  const foreign = Object.keys(params).find(name => !covered.test(name))
  if (foreign !== undefined) throw new Refusal('NotCovered', `The front does not know ${foreign} of CreateFleet.`)
  if (params.Type !== 'instant') throw new Refusal('NotCovered', 'The front knows only fleets of type instant.')
  // Also asks moto's IAM whether the caller may create fleets at all.
  const permission = await rules.ec2.asCaller(caller, { ...params, DryRun: 'true' })
  if (params.DryRun === 'true' || permission.outcome !== 'DryRunOperation') return permission

  const targets = readTargets(params)
  const { offers, failures } = await readOffers(params, caller, rules)
  const plan = planFleet(offers, targets, rules.capacity, rules.prices)
  failures.push(...plan.failures)
  const fleetId = `fleet-${randomUUID()}`
  const instances: XmlValue[] = []
  for (const { offer, count } of plan.launches) {
    const { market } = offer.pool
    try {
      const request = {
        ...without(offer.request, 'TagSpecification', 'InstanceMarketOptions'),
        ...fleetTags(params, offer.request, fleetId),
        ...(market === 'spot' && { 'InstanceMarketOptions.MarketType': 'spot' }),
      }
      const instanceIds = instanceIdsOf(await launchTaken(request, offer.pool, count, caller, rules))
      const { type: instanceType } = offer.pool
      instances.push({ launchTemplateAndOverrides: offer.overrides, lifecycle: market, instanceIds, instanceType })
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
      failures.push({ offer, market, code: error.code, message: error.message })
    }
  }
  const errorSet = failures.map(({ offer, market, code, message }) => ({
    launchTemplateAndOverrides: offer.overrides,
    lifecycle: market,
    errorCode: code,
    errorMessage: message,
  }))
  return xmlReply(ec2Reply('CreateFleet', { fleetId, errorSet, fleetInstanceSet: instances }))
}

function readTargets(params: Params): FleetTargets {
  const { TotalTargetCapacity, ...specification } = sub(params, 'TargetCapacitySpecification')
  const total = Number(TotalTargetCapacity)
  const spot = Number(specification.SpotTargetCapacity ?? 0)
  const onDemand = Number(specification.OnDemandTargetCapacity ?? 0)
  if (!(total >= 1) || spot + onDemand > total) {
    throw new Refusal('InvalidParameterValue', `Target capacities do not fit a total of ${TotalTargetCapacity}.`)
  }
  const rest = total - spot - onDemand
  const isRestSpot = specification.DefaultTargetCapacityType === 'spot'
  return {
    spot: { units: spot + (isRestSpot ? rest : 0), options: readOptions(sub(params, 'SpotOptions')) },
    'on-demand': { units: onDemand + (isRestSpot ? 0 : rest), options: readOptions(sub(params, 'OnDemandOptions')) },
  }
}

function readOptions(options: Params): FleetTargets['spot']['options'] {
  const isSingleType = options.SingleInstanceType === 'true'
  const isSingleZone = options.SingleAvailabilityZone === 'true'
  const minUnits = Number(options.MinTargetCapacity ?? 0)
  if (minUnits > 0 && !isSingleType && !isSingleZone) {
    throw new Refusal(
      'InvalidParameterCombination',
      'MinTargetCapacity needs SingleInstanceType or SingleAvailabilityZone.',
    )
  }
  return { strategy: options.AllocationStrategy ?? 'lowest-price', minUnits, isSingleType, isSingleZone }
}

/** Every pool that the request offers. A template that is not there makes an error of its pools, not of the call. */
async function readOffers(params: Params, caller: Caller, { ec2 }: FleetRules) {
  const offers: Offer[] = []
  const failures: (Failure & { offer: Offer })[] = []
  const market = params['TargetCapacitySpecification.DefaultTargetCapacityType'] === 'spot' ? 'spot' : 'on-demand'
  for (const config of structures(params, 'LaunchTemplateConfigs')) {
    const specification = sub(config, 'LaunchTemplateSpecification')
    if (specification.Version === undefined) {
      throw new Refusal('MissingParameter', 'A fleet needs the version of its launch template.')
    }
    const overrides = structures(config, 'Overrides')
    for (const override of overrides.length > 0 ? overrides : [{}]) {
      const named = { overrides: describe(specification, override) }
      try {
        const template = await readTemplate(specification, caller, ec2)
        const request = overridden(template, override)
        const pool = await poolOf(request, caller, ec2)
        offers.push({ request, pool, ...named, ...weights(override) })
      } catch (error) {
        if (!(error instanceof Refusal)) throw error
        const pool = { type: override.InstanceType ?? '', zone: '', market } as const
        const offer = { request: {}, pool, ...named, ...weights(override) }
        failures.push({ offer, market, code: error.code, message: error.message })
      }
    }
  }
  return { offers, failures }
}

function overridden(template: TemplateVersion, override: Params): Params {
  const { InstanceType, ImageId, SubnetId, AvailabilityZone } = override
  if ('NetworkInterface.1.DeviceIndex' in template.data && SubnetId !== undefined) {
    // RunInstances would refuse a subnet beside network interfaces; a fleet moves it into the first of them.
    const { SubnetId: _moved, ...others } = override
    return { ...overridden(template, others), 'NetworkInterface.1.SubnetId': SubnetId }
  }
  return writeOut(template, {
    Action: 'RunInstances',
    ...(InstanceType !== undefined && { InstanceType }),
    ...(ImageId !== undefined && { ImageId }),
    ...(SubnetId !== undefined && { SubnetId }),
    ...(AvailabilityZone !== undefined && { 'Placement.AvailabilityZone': AvailabilityZone }),
  })
}

const weights = ({ WeightedCapacity, Priority, MaxPrice }: Params) => ({
  weight: Number(WeightedCapacity ?? 1),
  priority: Number(Priority ?? Number.POSITIVE_INFINITY),
  maxUsd: Number(MaxPrice ?? Number.POSITIVE_INFINITY),
})

const lowerFirst = (params: Params): Record<string, string> =>
  Object.fromEntries(
    Object.entries(params).map(([name, value]) => [name.charAt(0).toLowerCase() + name.slice(1), value]),
  )

const describe = (specification: Params, override: Params): XmlValue => ({
  launchTemplateSpecification: lowerFirst(specification),
  overrides: lowerFirst(override),
})

/** The tags of the template, those of the request on top, and the one that EC2 puts on instances of a fleet. */
function fleetTags(params: Params, request: Params, fleetId: string): Params {
  const tags = tagsOf(request)
  for (const [kind, given] of tagsOf(params)) {
    if (kind !== 'fleet') tags.set(kind, new Map([...(tags.get(kind) ?? []), ...given]))
  }
  tags.set('instance', new Map([...(tags.get('instance') ?? []), ['aws:ec2:fleet-id', fleetId]]))
  return tagParams(tags)
}
