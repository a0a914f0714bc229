/**
 * A planned call (an Ask) as a request to EC2, and its reply as instances and failures. RunInstances where one market
 * and one offering suffice, CreateFleet `instant` otherwise. Pure.
 */
import type {
  CreateFleetError,
  CreateFleetInstance,
  CreateFleetRequest,
  CreateFleetResult,
  Reservation,
  RunInstancesRequest,
  Tag,
} from '@aws-sdk/client-ec2'
import type { Instance, LaunchFailure, LaunchRequest, Market } from '../provider.ts'
import { capacityScope, isThrottledCode } from './aws-errors.ts'
import type { ResolvedTemplate } from './launch-template.ts'
import { toInstance } from './tags.ts'
import type { Offering } from './unavailable-offerings.ts'

export interface LaunchReply {
  readonly instances: readonly Instance[]
  readonly failures: readonly LaunchFailure[]
}

/** EC2's own limit for one fleet. */
const maxOverrides = 300

/** Whether one RunInstances does it. */
export function needsNoFleet({ spot, onDemand, offerings }: Ask, { hasNetworkInterfaces }: ResolvedTemplate): boolean {
  const [offering, ...others] = offerings
  return (spot === 0 || onDemand === 0) && others.length === 0 && !(hasNetworkInterfaces && offering?.subnetId)
}

export function toRunInstances(
  { spot, onDemand, offerings: [offering] }: Ask,
  template: ResolvedTemplate,
  tags: readonly Tag[],
  token: string,
): RunInstancesRequest {
  return {
    LaunchTemplate: { LaunchTemplateId: template.templateId, Version: template.version },
    MinCount: 1,
    MaxCount: spot + onDemand,
    ClientToken: token,
    InstanceInitiatedShutdownBehavior: 'terminate',
    MetadataOptions: template.metadata,
    TagSpecifications: tagSpecifications(tags),
    ...(offering?.instanceType !== undefined && { InstanceType: offering.instanceType as never }),
    ...(offering?.subnetId !== undefined && { SubnetId: offering.subnetId }),
    ...(spot > 0 && {
      InstanceMarketOptions: {
        MarketType: 'spot',
        SpotOptions: { SpotInstanceType: 'one-time', InstanceInterruptionBehavior: 'terminate' },
      },
    }),
  }
}

export function toCreateFleet(
  { spot, onDemand, offerings }: Ask,
  template: ResolvedTemplate,
  tags: readonly Tag[],
  token: string,
): CreateFleetRequest {
  return {
    Type: 'instant',
    ClientToken: token,
    LaunchTemplateConfigs: [
      {
        LaunchTemplateSpecification: { LaunchTemplateId: template.templateId, Version: template.version },
        Overrides: offerings
          .filter(({ instanceType, subnetId }) => instanceType !== undefined || subnetId !== undefined)
          .slice(0, maxOverrides)
          .map(({ instanceType, subnetId }) => ({
            ...(instanceType !== undefined && { InstanceType: instanceType as never }),
            ...(subnetId !== undefined && { SubnetId: subnetId }),
          })),
      },
    ],
    TargetCapacitySpecification: {
      TotalTargetCapacity: spot + onDemand,
      SpotTargetCapacity: spot,
      OnDemandTargetCapacity: onDemand,
      DefaultTargetCapacityType: spot > 0 ? 'spot' : 'on-demand',
    },
    SpotOptions: { AllocationStrategy: 'price-capacity-optimized', InstanceInterruptionBehavior: 'terminate' },
    OnDemandOptions: { AllocationStrategy: 'lowest-price' },
    TagSpecifications: tagSpecifications(tags),
  }
}

const tagSpecifications = (tags: readonly Tag[]) => [
  { ResourceType: 'instance' as const, Tags: [...tags] },
  { ResourceType: 'volume' as const, Tags: [...tags] },
]

/** @param now the time that instances without one of their own get, in ms since the epoch */
export function fromRunInstances(reply: Reservation, now: number): LaunchReply {
  const instances = (reply.Instances ?? []).flatMap(instance => toInstance(instance) ?? [])
  return { instances: instances.map(instance => ({ ...instance, launchedAt: now })), failures: [] }
}

export function fromCreateFleet(
  { Instances = [], Errors = [] }: CreateFleetResult,
  { pool, slots, decisionId }: LaunchRequest,
  now: number,
): LaunchReply {
  const base = { pool, slots, decisionId, launchedAt: now, state: 'running' as const, addresses: [] }
  return {
    instances: Instances.flatMap(group =>
      (group.InstanceIds ?? []).map(id => ({ ...base, id, ...describeGroup(group) })),
    ),
    failures: Errors.map(fleetFailure),
  }
}

function describeGroup({ InstanceType, Lifecycle, LaunchTemplateAndOverrides }: CreateFleetInstance) {
  const zone = LaunchTemplateAndOverrides?.Overrides?.AvailabilityZone
  return {
    market: marketOf(Lifecycle),
    ...(InstanceType !== undefined && { instanceType: InstanceType }),
    ...(zone !== undefined && { zone }),
  }
}

function fleetFailure({ ErrorCode, ErrorMessage, Lifecycle, LaunchTemplateAndOverrides }: CreateFleetError) {
  const code = ErrorCode ?? 'Error'
  const { InstanceType, SubnetId } = LaunchTemplateAndOverrides?.Overrides ?? {}
  return {
    ...failureAt(Lifecycle === undefined ? undefined : marketOf(Lifecycle), {
      instanceType: InstanceType,
      subnetId: SubnetId,
    }),
    code,
    message: ErrorMessage ?? '',
    throttled: isThrottledCode(code),
    capacity: capacityScope(code) !== undefined,
  }
}

/** Where something failed, without what is not known. */
export const failureAt = (market: Market | undefined, { instanceType, subnetId }: Offering) => ({
  ...(market !== undefined && { market }),
  ...(instanceType !== undefined && { instanceType }),
  ...(subnetId !== undefined && { subnetId }),
})

const marketOf = (lifecycle: string | undefined): Market => (lifecycle === 'spot' ? 'spot' : 'on-demand')

/**
 * Plans a launch: which market gets how many, and where each may look. Pure.
 *
 *   1. the Spot share is that of the whole pool: what is there already counts
 *   2. unavailable offerings are left out, per market, unless none is left
 *   3. both markets go into one call when they may use the same offerings, else into one each, Spot first
 */

/** One call: how many of each market, out of these offerings. */
export interface Ask {
  readonly spot: number
  readonly onDemand: number
  readonly offerings: readonly Offering[]
}

export interface LaunchPlan {
  readonly count: number
  readonly spotPercent: number
  /** What the pool has already, by market. */
  readonly present: Readonly<Record<Market, number>>
  readonly offerings: readonly Offering[]
  /** Without the unavailable ones. */
  readonly usable: Readonly<Record<Market, readonly Offering[]>>
}

/** @returns the calls to make in this order; none when nothing is desired */
export function planLaunch({ count, spotPercent, present, offerings, usable }: LaunchPlan): Ask[] {
  const noSpotAnywhere = usable.spot.length === 0 && usable['on-demand'].length > 0
  const spot = noSpotAnywhere ? 0 : spotShare(count, spotPercent, present)
  const onDemand = count - spot
  const forSpot = orAll(usable.spot, offerings)
  const forOnDemand = orAll(usable['on-demand'], offerings)
  const together = spot > 0 && onDemand > 0 && sameOfferings(forSpot, forOnDemand)
  const asks: Ask[] = together
    ? [{ spot, onDemand, offerings: forSpot }]
    : [
        { spot, onDemand: 0, offerings: forSpot },
        { spot: 0, onDemand, offerings: forOnDemand },
      ]
  return asks.filter(ask => ask.spot + ask.onDemand > 0)
}

/** What Spot had no room for is bought On-Demand. */
export const fallback = (missing: number, offerings: readonly Offering[], usable: readonly Offering[]): Ask => ({
  spot: 0,
  onDemand: missing,
  offerings: orAll(usable, offerings),
})

/** How many of `count` new ones go to Spot so that the whole pool comes closest to its share. */
function spotShare(count: number, percent: number, present: Readonly<Record<Market, number>>): number {
  const desired = Math.round(((present.spot + present['on-demand'] + count) * percent) / 100)
  return Math.max(0, Math.min(count, desired - present.spot))
}

const orAll = (some: readonly Offering[], all: readonly Offering[]): readonly Offering[] =>
  some.length > 0 ? some : all

const sameOfferings = (a: readonly Offering[], b: readonly Offering[]): boolean =>
  a.length === b.length && a.every((offering, n) => offering === b[n])
