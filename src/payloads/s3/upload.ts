/**
 * Uploads a stream of unknown length by the SDK's own helper: one request when it is small, else in parts, one at a
 * time, so that a slow S3 holds the sender back. Each request carries the SHA-256 of its bytes, and S3 refuses what
 * arrives otherwise.
 */
import type { Readable } from 'node:stream'
import type { S3Calls } from './s3-calls.ts'

export interface UploadTarget {
  readonly Bucket: string
  readonly Key: string
}

/** S3 takes no smaller part, but for the last. */
const leastPartBytes = 5 * 1024 * 1024
const mostParts = 10_000

/** How large each part is: no upload of `maxBytes` needs more parts than there may be. */
export const partBytesOf = (maxBytes: number): number => Math.max(leastPartBytes, Math.ceil(maxBytes / mostParts))

/**
 * The key is readable with all bytes once this resolves. A stream that fails fails this, and nothing is kept.
 * @param maxBytes the most that `content` can bring
 * @throws what `content` throws; Problem payload_store_unavailable
 */
export async function upload(
  calls: S3Calls,
  target: UploadTarget,
  content: Readable | Uint8Array,
  maxBytes: number,
): Promise<void> {
  const { Upload } = await import('@aws-sdk/lib-storage')
  const uploading = new Upload({
    client: calls.client,
    params: { ...target, Body: content, ChecksumAlgorithm: 'SHA256' },
    partSize: partBytesOf(maxBytes),
    queueSize: 1,
    // Removed below: a failure of the removal must not hide why the upload failed.
    leavePartsOnError: true,
  })
  try {
    await uploading.done()
  } catch (error) {
    if (uploading.uploadId !== undefined) await abandon(calls, target, uploading.uploadId)
    throw error
  }
}

/** Removes the parts. What even this cannot remove goes by the lifecycle rule of the bucket. */
async function abandon(calls: S3Calls, target: UploadTarget, UploadId: string): Promise<void> {
  const { AbortMultipartUploadCommand } = await import('@aws-sdk/client-s3')
  const command = new AbortMultipartUploadCommand({ ...target, UploadId })
  await calls.plain((client, options) => client.send(command, options)).catch(() => undefined)
}
