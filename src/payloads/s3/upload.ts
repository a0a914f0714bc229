/**
 * Uploads a stream of unknown length: one request when it is small, else in parts, one at a time, so that a slow S3 holds
 * the sender back. Each request carries the SHA-256 of its bytes, and S3 refuses what arrives otherwise.
 *
 *   collecting ──the end──▶ PutObject
 *       └──a part is full──▶ CreateMultipartUpload ─▶ UploadPart … ─▶ CompleteMultipartUpload
 *                                                        └── an error ──▶ AbortMultipartUpload
 */
import { createHash } from 'node:crypto'
import type { CompletedPart } from '@aws-sdk/client-s3'
import type { S3Calls } from './s3-calls.ts'

export interface UploadTarget {
  readonly Bucket: string
  readonly Key: string
}

const mebibyte = 1024 * 1024
/** S3 takes no smaller part, but for the last. */
const smallPartBytes = 5 * mebibyte
const mostParts = 10_000
/** Parts of the least size up to here; then as large as `maxBytes` needs. */
const smallParts = 1000

/** How large the part of this number (from 1) is: no upload of `maxBytes` needs more parts than there may be. */
export const partBytesOf = (number: number, maxBytes: number): number =>
  number <= smallParts ? smallPartBytes : Math.max(smallPartBytes, Math.ceil(maxBytes / (mostParts - smallParts - 1)))

/**
 * The key is readable with all bytes once this resolves. A stream that fails fails this, and nothing is kept.
 * @param maxBytes the most that `chunks` can bring
 * @throws what `chunks` throws; Problem payload_store_unavailable
 */
export async function upload(
  calls: S3Calls,
  target: UploadTarget,
  chunks: AsyncIterable<Uint8Array>,
  maxBytes: number,
): Promise<void> {
  const sdk = await import('@aws-sdk/client-s3')
  const parts: CompletedPart[] = []
  let uploadId: string | undefined
  let collected: Uint8Array[] = []
  let bytes = 0

  const begin = async (): Promise<string> => {
    const command = new sdk.CreateMultipartUploadCommand({ ...target, ChecksumAlgorithm: 'SHA256' })
    const { UploadId } = await calls.once((client, options) => client.send(command, options))
    if (UploadId === undefined) throw new Error('S3 began an upload without an id')
    return UploadId
  }
  const sendPart = async (UploadId: string): Promise<void> => {
    const Body = Buffer.concat(collected, bytes)
    collected = []
    bytes = 0
    const PartNumber = parts.length + 1
    const ChecksumSHA256 = sha256(Body)
    const command = new sdk.UploadPartCommand({ ...target, UploadId, PartNumber, Body, ChecksumSHA256 })
    const { ETag } = await calls.once((client, options) => client.send(command, options))
    parts.push({ PartNumber, ChecksumSHA256, ...(ETag !== undefined && { ETag }) })
  }

  try {
    for await (const chunk of chunks) {
      if (bytes >= partBytesOf(parts.length + 1, maxBytes)) {
        uploadId ??= await begin()
        await sendPart(uploadId)
      }
      collected.push(chunk)
      bytes += chunk.byteLength
    }
    if (uploadId === undefined) {
      const Body = Buffer.concat(collected, bytes)
      const command = new sdk.PutObjectCommand({ ...target, Body, ChecksumSHA256: sha256(Body) })
      await calls.once((client, options) => client.send(command, options))
      return
    }
    await sendPart(uploadId)
    const MultipartUpload = { Parts: parts }
    const complete = { ...target, UploadId: uploadId, MultipartUpload }
    await calls.once((client, options) => client.send(new sdk.CompleteMultipartUploadCommand(complete), options))
  } catch (error) {
    // What even this cannot remove goes by the lifecycle rule of the bucket.
    if (uploadId !== undefined) {
      const command = new sdk.AbortMultipartUploadCommand({ ...target, UploadId: uploadId })
      await calls.plain((client, options) => client.send(command, options)).catch(() => undefined)
    }
    throw error
  }
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('base64')
