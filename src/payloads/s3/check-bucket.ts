/**
 * Looks at the start whether the bucket is there and lets us do all that a store does: better now than with the first
 * payload.
 */
import { randomUUID } from 'node:crypto'
import type { Logger } from 'pino'
import { StartupError } from '../../errors.ts'
import { codeOf, type S3Call, type S3Calls, statusOf } from './s3-calls.ts'
import { keyPrefixOf, type S3Place } from './s3-store.ts'

interface Step {
  /** What a policy must allow for it. */
  readonly right: string
  readonly run: S3Call<unknown>
}

/**
 * Lists, writes, reads and deletes one small object.
 * @throws StartupError when S3 refuses. When it cannot be reached the node starts all the same: payloads are refused
 * with 503 until it can.
 */
export async function checkBucket(calls: S3Calls, place: S3Place, log: Pick<Logger, 'warn'>): Promise<void> {
  for (const { right, run } of await stepsFor(place)) {
    try {
      await calls.plain(run)
    } catch (error) {
      const refusal = explain(error, right, place)
      if (refusal !== undefined) throw new StartupError(refusal, { cause: error })
      log.warn({ err: error, bucket: place.bucket }, 'S3 cannot be reached: large payloads are refused until it can')
      return
    }
  }
}

/** In this order, so that nothing is left behind by a policy that allows only the first of them. */
async function stepsFor({ bucket: Bucket, prefix }: S3Place): Promise<Step[]> {
  const sdk = await import('@aws-sdk/client-s3')
  const Prefix = keyPrefixOf(prefix)
  const object = { Bucket, Key: `${Prefix}start-check/${randomUUID()}` }
  const remove: S3Call<unknown> = (client, options) => client.send(new sdk.DeleteObjectCommand(object), options)
  return [
    {
      right: 's3:ListBucket',
      run: (client, options) => client.send(new sdk.ListObjectsV2Command({ Bucket, Prefix, MaxKeys: 1 }), options),
    },
    // A key that is absent: deleting it asks for the right and does nothing.
    { right: 's3:DeleteObject', run: remove },
    {
      right: 's3:PutObject',
      run: (client, options) => client.send(new sdk.PutObjectCommand({ ...object, Body: 'muster' }), options),
    },
    { right: 's3:GetObject', run: (client, options) => client.send(new sdk.HeadObjectCommand(object), options) },
    { right: 's3:DeleteObject', run: remove },
  ]
}

const elsewhere = new Set(['PermanentRedirect', 'AuthorizationHeaderMalformed', 'IllegalLocationConstraintException'])

/** undefined: it was not refused, there was no sound answer. */
function explain(error: unknown, right: string, { bucket, prefix }: S3Place): string | undefined {
  const code = codeOf(error)
  const status = statusOf(error)
  const name = `MUSTER_PAYLOAD_STORE is s3://${bucket}/${prefix}`
  if (code === 'NoSuchBucket') return `${name}, but there is no such bucket. Make it, or correct its name.`
  if (elsewhere.has(code) || status === 301)
    return `${name}, but that bucket is in another region. Set AWS_REGION to the region of the bucket.`
  if (code === 'CredentialsProviderError')
    return `${name}, but there are no AWS credentials. Give the machine a role (an instance profile), or set AWS_PROFILE.`
  if (status !== undefined && status >= 400 && status < 500 && status !== 429)
    return (
      `${name}, but S3 refuses what is needed there (${right}): ${code}: ${(error as Error).message}. ` +
      `Allow s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload on ` +
      `${keyPrefixOf(prefix)}* in it, and the use of its key if it has one in KMS.`
    )
  return undefined
}
