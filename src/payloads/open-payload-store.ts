/** Opens the store that MUSTER_PAYLOAD_STORE names, and looks whether it can be used. */
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Logger } from 'pino'
import { StartupError } from '../errors.ts'
import type { RedisClient } from '../redis/connect/connection.ts'
import type { DurableWrites } from '../redis/writes/durable-writes.ts'
import { parsePayloadPlace } from '../settings/payload-place.ts'
import type { Settings } from '../settings/settings.ts'
import { FolderStore } from './folder-store.ts'
import type { PayloadStore } from './payload-store.ts'
import { RedisStore } from './redis/redis-store.ts'

export interface PayloadStoreOptions {
  readonly settings: Pick<Settings, 'payloadStore' | 'dataDir' | 'awsRegion' | 'awsEndpointUrl'>
  /** A connection for the bytes; asked for only when they are kept in Redis. */
  readonly connect: () => Promise<RedisClient>
  readonly writes: DurableWrites
  readonly log: Pick<Logger, 'warn'>
}

export interface OpenedPayloadStore {
  readonly store: PayloadStore
  /** Lets go of its connections; `connect`'s are closed by whoever made them. */
  close(): Promise<void>
}

/** @throws StartupError when the folder, the bucket or a right is missing */
export async function openPayloadStore(options: PayloadStoreOptions): Promise<OpenedPayloadStore> {
  const { settings, log } = options
  const place = parsePayloadPlace(settings.payloadStore)
  if (place.kind === 'redis') {
    const store = new RedisStore({ redis: await options.connect(), writes: options.writes })
    return { store, close: async () => undefined }
  }
  if (place.kind === 'folder') {
    const store = new FolderStore(place.path ?? join(settings.dataDir, 'payloads'))
    await startFolder(store, place.path)
    return { store, close: async () => undefined }
  }
  const { openS3Calls } = await import('./s3/s3-calls.ts')
  const calls = await openS3Calls({ region: settings.awsRegion, endpoint: settings.awsEndpointUrl })
  try {
    const { checkBucket } = await import('./s3/check-bucket.ts')
    await checkBucket(calls, place, log)
  } catch (error) {
    calls.close()
    throw error
  }
  const { S3Store } = await import('./s3/s3-store.ts')
  const store = new S3Store(calls, place)
  return { store, close: async () => store.close() }
}

async function startFolder(store: FolderStore, path: string | undefined): Promise<void> {
  try {
    // One that is to be shared is never made here: it would be the node's own.
    if (path !== undefined) await stat(path)
    await store.start()
  } catch (error) {
    if (path === undefined) throw error
    const { code } = error as NodeJS.ErrnoException
    throw new StartupError(
      `MUSTER_PAYLOAD_STORE is folder:${path}, which cannot be used (${code}). Mount it, and let the user of this node write there.`,
      { cause: error },
    )
  }
}
