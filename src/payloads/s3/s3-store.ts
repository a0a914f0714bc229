/**
 * Payloads in S3, under `<prefix>muster-payloads/<key>`. All nodes share them. S3 replaces a key at once and reads what
 * it has written; a read that has begun goes on after a delete. How it is encrypted is up to the bucket.
 */
import { Readable } from 'node:stream'
import { Meter } from '../checked-stream.ts'
import { assertPayloadKey, type PayloadStore, type StoredPayload } from '../payload-store.ts'
import { resumableStream } from './resumable-stream.ts'
import { codeOf, type S3Calls, statusOf, unavailable } from './s3-calls.ts'
import { upload } from './upload.ts'

export interface S3Place {
  readonly bucket: string
  /**
   * Empty, or with a slash at its end. Nobody else may put anything below `<prefix>muster-payloads/`: the sweep deletes
   * it.
   */
  readonly prefix: string
}

const deletesAtOnce = 1000

export class S3Store implements PayloadStore {
  readonly #calls: S3Calls
  readonly #bucket: string
  readonly #prefix: string

  constructor(calls: S3Calls, { bucket, prefix }: S3Place) {
    this.#calls = calls
    this.#bucket = bucket
    this.#prefix = keyPrefixOf(prefix)
  }

  async put(
    key: string,
    content: Readable | Buffer,
    { maxBytes }: { readonly maxBytes: number },
  ): Promise<StoredPayload> {
    const source = Buffer.isBuffer(content) ? Readable.from([content], { objectMode: false }) : content
    try {
      assertPayloadKey(key)
      const meter = new Meter()
      await upload(this.#calls, this.#target(key), Readable.from(meter.through(source, maxBytes)), maxBytes)
      return meter.total()
    } finally {
      source.destroy()
    }
  }

  async get(key: string): Promise<{ stream: Readable; bytes: number } | undefined> {
    assertPayloadKey(key)
    const found = await this.#open(key, {})
    if (found === undefined) return undefined
    const { body, bytes, etag } = found
    const stream = resumableStream(body, {
      bytes,
      stalledMs: this.#calls.pace.stalledMs,
      reopen: async from => {
        const rest = await this.#open(key, { Range: `bytes=${from}-`, ...(etag !== undefined && { IfMatch: etag }) })
        if (rest === undefined) throw new Error(`The payload ${key} was deleted while it was read`)
        return rest.body
      },
    })
    return { stream, bytes }
  }

  async delete(keys: readonly string[]): Promise<void> {
    for (const key of keys) assertPayloadKey(key)
    if (keys.length === 0) return
    const { DeleteObjectsCommand } = await import('@aws-sdk/client-s3')
    for (let from = 0; from < keys.length; from += deletesAtOnce) {
      const Objects = keys.slice(from, from + deletesAtOnce).map(key => ({ Key: this.#target(key).Key }))
      const command = new DeleteObjectsCommand({ Bucket: this.#bucket, Delete: { Objects, Quiet: true } })
      const { Errors = [] } = await this.#calls.once((client, options) => client.send(command, options))
      const [refused] = Errors
      if (refused !== undefined) throw unavailable({ Code: refused.Code })
    }
  }

  async *list(olderThanMs: number, now: number): AsyncGenerator<string> {
    for await (const { Key = '', LastModified } of this.#calls.objects(this.#bucket, this.#prefix)) {
      const isOld = LastModified !== undefined && LastModified.getTime() <= now - olderThanMs
      if (isOld) yield Key.slice(this.#prefix.length)
    }
  }

  /** Lets go of its connections. */
  close(): void {
    this.#calls.close()
  }

  #target(key: string): { Bucket: string; Key: string } {
    return { Bucket: this.#bucket, Key: this.#prefix + key }
  }

  async #open(
    key: string,
    part: { Range?: string; IfMatch?: string },
  ): Promise<{ body: Readable; bytes: number; etag: string | undefined } | undefined> {
    const { GetObjectCommand } = await import('@aws-sdk/client-s3')
    const command = new GetObjectCommand({ ...this.#target(key), ...part })
    try {
      const {
        Body,
        ContentLength = 0,
        ETag,
      } = await this.#calls.plain((client, options) => client.send(command, options))
      return { body: Body as Readable, bytes: ContentLength, etag: ETag }
    } catch (error) {
      if (codeOf(error) === 'NoSuchKey' || (codeOf(error) === 'NotFound' && statusOf(error) === 404)) return undefined
      throw unavailable(error)
    }
  }
}

export const keyPrefixOf = (prefix: string): string => `${prefix}muster-payloads/`
