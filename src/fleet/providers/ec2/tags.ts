/** The tags that say whose an instance is, and how an instance of EC2 becomes one of ours. */
import { createHash } from 'node:crypto'
import type { Instance as Ec2Instance, Tag } from '@aws-sdk/client-ec2'
import type { Instance, LaunchRequest } from '../provider.ts'

export const tagNames = {
  deployment: 'muster:deployment',
  pool: 'muster:pool',
  decision: 'muster:decision',
  slots: 'muster:slots',
  metadata: 'muster:metadata',
} as const

/**
 * For an instance and its volumes.
 * @param handlersReachMetadata whether its handlers may ask the metadata service, and so have the role of the instance
 */
export function tagsFor(
  deployment: string,
  { pool, decisionId, slots }: LaunchRequest,
  handlersReachMetadata = false,
): Tag[] {
  return [
    { Key: 'Name', Value: `${deployment}-worker-${pool}` },
    { Key: tagNames.deployment, Value: deployment },
    { Key: tagNames.pool, Value: pool },
    { Key: tagNames.decision, Value: decisionId },
    { Key: tagNames.slots, Value: String(slots) },
    ...(handlersReachMetadata ? [{ Key: tagNames.metadata, Value: 'yes' }] : []),
  ]
}

/**
 * A client token: the same words give the same token, in every node; at most 64 characters, as EC2 wants it.
 * @param words what makes the request the one it is
 */
export const clientToken = (...words: readonly string[]): string =>
  createHash('sha256').update(JSON.stringify(words)).digest('hex')

/** With the account that its reservation tells. */
export type ShownInstance = Ec2Instance & { readonly OwnerId?: string | undefined }

/** @returns undefined when it is not a worker's: nodes may carry the tag of the deployment, too */
export function toInstance(instance: ShownInstance): Instance | undefined {
  const tags = new Map(instance.Tags?.map(({ Key, Value }) => [Key, Value]))
  const pool = tags.get(tagNames.pool)
  const { InstanceId: id, InstanceType: instanceType, Placement, LaunchTime, State, OwnerId: accountId } = instance
  if (id === undefined || pool === undefined) return undefined
  const zone = Placement?.AvailabilityZone
  return {
    id,
    pool,
    slots: Number(tags.get(tagNames.slots)) || 1,
    decisionId: tags.get(tagNames.decision) ?? '',
    launchedAt: LaunchTime?.getTime() ?? 0,
    // One that was stopped still costs its volumes, and its worker is gone: it is ended like any lost one.
    state: State?.Name === 'shutting-down' ? 'terminating' : 'running',
    market: instance.InstanceLifecycle === 'spot' ? 'spot' : 'on-demand',
    addresses: addressesOf(instance),
    ...(accountId !== undefined && { accountId }),
    ...(instanceType !== undefined && { instanceType }),
    ...(zone !== undefined && { zone }),
  }
}

/** All that its calls may come from: of each interface, and what they are known by outside of their network. */
function addressesOf({
  PrivateIpAddress,
  PublicIpAddress,
  Ipv6Address,
  NetworkInterfaces = [],
}: Ec2Instance): string[] {
  const ofInterfaces = NetworkInterfaces.flatMap(({ PrivateIpAddresses = [], Ipv6Addresses = [] }) => [
    ...PrivateIpAddresses.flatMap(one => [one.PrivateIpAddress, one.Association?.PublicIp]),
    ...Ipv6Addresses.map(one => one.Ipv6Address),
  ])
  const all = [PrivateIpAddress, PublicIpAddress, Ipv6Address, ...ofInterfaces]
  return [...new Set(all.filter(address => address !== undefined && address !== ''))] as string[]
}
