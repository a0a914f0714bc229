/** The tags that say whose an instance is, and how an instance of EC2 becomes one of ours. */
import { createHash } from 'node:crypto'
import type { Instance as Ec2Instance, Tag } from '@aws-sdk/client-ec2'
import type { Instance, LaunchRequest } from '../provider.ts'

export const tagNames = {
  deployment: 'muster:deployment',
  pool: 'muster:pool',
  decision: 'muster:decision',
  slots: 'muster:slots',
} as const

/** For an instance and its volumes. */
export function tagsFor(deployment: string, { pool, decisionId, slots }: LaunchRequest): Tag[] {
  return [
    { Key: 'Name', Value: `${deployment}-worker-${pool}` },
    { Key: tagNames.deployment, Value: deployment },
    { Key: tagNames.pool, Value: pool },
    { Key: tagNames.decision, Value: decisionId },
    { Key: tagNames.slots, Value: String(slots) },
  ]
}

/**
 * A client token: the same words give the same token, in every node; at most 64 characters, as EC2 wants it.
 * @param words what makes the request the one it is
 */
export const clientToken = (...words: readonly string[]): string =>
  createHash('sha256').update(JSON.stringify(words)).digest('hex')

/** @returns undefined when it is not a worker's: nodes may carry the tag of the deployment, too */
export function toInstance(instance: Ec2Instance): Instance | undefined {
  const tags = new Map(instance.Tags?.map(({ Key, Value }) => [Key, Value]))
  const pool = tags.get(tagNames.pool)
  const { InstanceId: id, InstanceType: instanceType, Placement, LaunchTime, State } = instance
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
    ...(instanceType !== undefined && { instanceType }),
    ...(zone !== undefined && { zone }),
  }
}
