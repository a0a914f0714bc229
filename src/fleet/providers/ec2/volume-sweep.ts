/** Deletes the volumes that instances left behind: they carry our tags, belong to nothing, and cost money. */
import type { Volume } from '@aws-sdk/client-ec2'
import type { FastifyBaseLogger } from 'fastify'
import { codeOf } from './aws-errors.ts'
import type { Ec2Api } from './ec2-api.ts'
import { tagNames } from './tags.ts'

export interface VolumeSweepOptions {
  readonly api: Ec2Api
  readonly deployment: string
  /** A volume younger than this may be on its way to its instance. */
  readonly graceMs: number
  readonly log: FastifyBaseLogger
}

/** In use again, or gone already: nothing to do. */
const harmlessCodes = new Set(['InvalidVolume.NotFound', 'VolumeInUse', 'IncorrectState'])

/**
 * @param now in ms since the epoch
 * @returns the ids of the volumes that were deleted
 */
export async function sweepVolumes(options: VolumeSweepOptions, now: number): Promise<string[]> {
  const { api, graceMs, log } = options
  const swept: string[] = []
  for (const { VolumeId, CreateTime } of await leftVolumes(options)) {
    if (VolumeId === undefined || CreateTime === undefined || now - CreateTime.getTime() < graceMs) continue
    try {
      await api.retried((client, options) => client.deleteVolume({ VolumeId }, options))
      swept.push(VolumeId)
    } catch (error) {
      if (!harmlessCodes.has(codeOf(error))) log.warn({ volumeId: VolumeId, err: error }, 'a volume cannot be deleted')
    }
  }
  return swept
}

async function leftVolumes({ api, deployment }: VolumeSweepOptions): Promise<Volume[]> {
  const Filters = [
    { Name: `tag:${tagNames.deployment}`, Values: [deployment] },
    // Without it a volume is not a worker's.
    { Name: 'tag-key', Values: [tagNames.pool] },
    { Name: 'status', Values: ['available'] },
  ]
  const volumes: Volume[] = []
  let page: string | undefined
  do {
    const input = { Filters, MaxResults: 500, ...(page !== undefined && { NextToken: page }) }
    const reply = await api.retried((client, options) => client.describeVolumes(input, options))
    volumes.push(...(reply.Volumes ?? []))
    page = reply.NextToken
  } while (page !== undefined && page !== '')
  return volumes
}
