/** The quota of vCPUs against what the fleet may grow to: a new account has as few as 5. */
import type { Ec2Api } from '../fleet/providers/ec2/ec2-api.ts'
import type { Settings } from '../settings/settings.ts'
import { type Finding, ok, skipped, warn } from './finding.ts'

export type ReadQuota = (quotaCode: string) => Promise<number>

/** Running instances of the standard families (A, C, D, H, I, M, R, T, Z), in vCPUs. */
export const onDemandQuota = 'L-1216C47A'
export const spotQuota = 'L-34B43A08'
const standardFamily = /^(?:[acdhimrtz]|im|is)\d/

/** @param ownType the type that the launch template names */
export async function checkQuota(
  { settings, api, readQuota }: { settings: Settings; api: Ec2Api; readQuota: ReadQuota },
  ownType: string | undefined,
): Promise<Finding> {
  const name = 'aws-quota'
  const needs = Object.entries(settings.pools).map(([queue, { maxWorkers }]) => {
    const placement = settings.placements[queue]
    const types = placement?.instanceTypes ?? []
    return {
      maxWorkers,
      spotShare: (placement?.spotPercent ?? 0) / 100,
      types: types.length > 0 ? types : ownType === undefined ? [] : [ownType],
    }
  })
  const types = [...new Set(needs.flatMap(need => need.types))]
  const special = types.find(type => !standardFamily.test(type))
  if (types.length === 0) return skipped(name, 'no instance type is named')
  if (special !== undefined) return skipped(name, `${special} has a quota of its own family: look it up in the console`)
  try {
    const vCpus = await countVCpus(api, types)
    const most = (names: readonly string[]): number => Math.max(...names.map(type => vCpus.get(type) ?? 0))
    const spot = Math.ceil(total(needs.map(need => need.maxWorkers * most(need.types) * need.spotShare)))
    // What Spot has no room for is bought On-Demand, but the share that is meant to be so must fit in any case.
    const onDemand = Math.ceil(total(needs.map(need => need.maxWorkers * most(need.types) * (1 - need.spotShare))))
    const limits = { onDemand: await readQuota(onDemandQuota), spot: spot > 0 ? await readQuota(spotQuota) : undefined }
    const text = [
      `On-Demand ${onDemand} of ${limits.onDemand} vCPUs`,
      ...(limits.spot === undefined ? [] : [`Spot ${spot} of ${limits.spot}`]),
    ].join(', ')
    return onDemand > limits.onDemand || spot > (limits.spot ?? Number.POSITIVE_INFINITY)
      ? warn(
          name,
          `the fleet at its largest needs more than the quota: ${text}`,
          `Ask for more in Service Quotas (EC2, ${onDemandQuota} On-Demand, ${spotQuota} Spot), or lower MUSTER_MAX_WORKERS.`,
        )
      : ok(name, `${text}, with all workers`)
  } catch (error) {
    const { name: code, message } = error as Error
    return skipped(name, `it cannot be read (${code}: ${message}); look at ${onDemandQuota} in Service Quotas`)
  }
}

async function countVCpus(api: Ec2Api, types: readonly string[]): Promise<Map<string, number>> {
  const reply = await api.retried((client, call) =>
    client.describeInstanceTypes({ InstanceTypes: [...types] as never[] }, call),
  )
  return new Map(
    (reply.InstanceTypes ?? []).map(({ InstanceType = '', VCpuInfo }) => [InstanceType, VCpuInfo?.DefaultVCpus ?? 0]),
  )
}

const total = (numbers: readonly number[]): number => numbers.reduce((sum, number) => sum + number, 0)
