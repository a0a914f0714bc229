/** A secret of the deployment, in Redis: made once by whichever node is first, and the same on all of them from then on. */
import { randomBytes } from 'node:crypto'
import type { RedisClient } from '../redis/connection.ts'
import type { DurableWrites } from '../redis/durable-writes.ts'
import { keys } from './keys.ts'

/** @throws what Redis says */
export async function readDeploymentSecret(redis: RedisClient, writes: DurableWrites): Promise<Buffer> {
  const known = await redis.get(keys.deployment)
  if (known !== null) return Buffer.from(known, 'hex')
  const fresh = randomBytes(32).toString('hex')
  // Without a second copy at hand it is in the primary, as all else then: nothing is acknowledged meanwhile.
  const refusal: unknown = await writes
    .confirm(keys.deployment, () => redis.set(keys.deployment, fresh, 'NX'))
    .then(() => undefined)
    .catch((error: unknown) => error)
  const kept = await redis.get(keys.deployment)
  if (kept === null) throw new Error(`Redis does not keep ${keys.deployment}`, { cause: refusal })
  return Buffer.from(kept, 'hex')
}
