/** Where the bytes of jobs lie on this machine, as the settings say, and how many of one job lie where. */
import { resolve } from 'node:path'
import { parsePayloadPlace } from '../settings/payload-place.ts'
import type { Settings } from '../settings.ts'
import type { Arrival, RoomOptions } from './room.ts'

type Places = Pick<RoomOptions, 'dataDir' | 'folders' | 'reserveBytes'>

/** The data directory is looked at in any case: beside a node there may be a Redis of its own replication group. */
export function placesOf(settings: Pick<Settings, 'dataDir' | 'redisUrl' | 'payloadStore' | 'diskReserveMb'>): Places {
  const { redisUrl, diskReserveMb } = settings
  const place = parsePayloadPlace(settings.payloadStore)
  const dataDir = resolve(settings.dataDir)
  const isWritten = redisUrl === '' || (place.kind === 'folder' && place.path === undefined)
  return {
    folders: place.kind === 'folder' && place.path !== undefined ? [dataDir, place.path] : [dataDir],
    reserveBytes: diskReserveMb === 'auto' ? undefined : diskReserveMb * 1024 * 1024,
    ...(isWritten && { dataDir }),
  }
}

/** @param bytes how large the body is that brings the payload, as far as that is known */
export function arrivalOf(settings: Pick<Settings, 'inlineBytes' | 'payloadStore'>, bytes: number): Arrival {
  const isInline = bytes <= 2 * settings.inlineBytes
  const { kind } = parsePayloadPlace(settings.payloadStore)
  return {
    memoryBytes: isInline || kind === 'redis' ? bytes : 0,
    // In Redis it is written to the append-only file.
    diskBytes: isInline || kind !== 's3' ? bytes : 0,
  }
}
