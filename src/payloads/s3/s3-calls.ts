/**
 * Calls to S3: each with a time limit of its own and one over all of its tries; the SDK repeats what was throttled or
 * got no sound answer, with jitter. The signal ends a request; it does not end the search for credentials, so time is
 * kept outside of the SDK as well.
 */
import type { _Object, S3Client } from '@aws-sdk/client-s3'
import { Problem } from '../../errors.ts'
import { within } from '../../within.ts'

export interface S3Access {
  readonly region: string
  /** Another address than AWS's own, for an emulator; '' for AWS. */
  readonly endpoint: string
}

/** One call through the SDK. */
export type S3Call<T> = (client: S3Client, options: { readonly abortSignal: AbortSignal }) => Promise<T>

type AnyCommand = Parameters<S3Client['send']>[0]

export interface S3Pace {
  /** Until the reply to one try begins; a part is sent in that time. */
  readonly tryMs: number
  readonly maxTries: number
  /** All tries of a call, and the waits between them. */
  readonly callMs: number
  /** The longest pause in the middle of a reply. */
  readonly stalledMs: number
}

const usualPace: S3Pace = { tryMs: 30_000, maxTries: 4, callMs: 60_000, stalledMs: 20_000 }
const connectTimeoutMs = 3000

export class S3Calls {
  readonly pace: S3Pace
  /** For helpers of the SDK, which send by themselves: each call goes through `once`. */
  readonly client: S3Client
  readonly #client: S3Client

  constructor(client: S3Client, pace: S3Pace) {
    this.#client = client
    this.pace = pace
    const send = (command: AnyCommand) => this.once((inner, options) => inner.send(command, options))
    this.client = Object.assign(Object.create(client) as S3Client, { send })
  }

  /**
   * Calls, with the tries of the SDK.
   * @throws the error of S3, or one that says that there was no answer in time
   */
  async plain<T>(call: S3Call<T>): Promise<T> {
    const ending = new AbortController()
    try {
      return await within(this.pace.callMs, 'S3', call(this.#client, { abortSignal: ending.signal }))
    } catch (error) {
      ending.abort()
      throw error
    }
  }

  /** The same for calls behind a request. @throws Problem payload_store_unavailable */
  async once<T>(call: S3Call<T>): Promise<T> {
    try {
      return await this.plain(call)
    } catch (error) {
      throw unavailable(error)
    }
  }

  /**
   * All objects below a prefix. Each page is a call with a time limit of its own.
   * @throws Problem payload_store_unavailable
   */
  async *objects(Bucket: string, Prefix: string): AsyncGenerator<_Object> {
    const { paginateListObjectsV2 } = await import('@aws-sdk/client-s3')
    for await (const { Contents = [] } of paginateListObjectsV2({ client: this.client }, { Bucket, Prefix }))
      yield* Contents
  }

  /** Lets go of its connections. */
  close(): void {
    this.#client.destroy()
  }
}

export const unavailable = (error: unknown): Problem =>
  error instanceof Problem
    ? error
    : new Problem('payload_store_unavailable', `S3 did not do as asked: ${codeOf(error)}.`, {
        cause: error,
        retryAfterMs: 5000,
      })

/** The code of an error of S3, or the name of any other error. */
export const codeOf = (error: unknown): string => {
  const { Code, code, name } = error as { Code?: string; code?: string; name?: string }
  return Code ?? (name === undefined || name === 'Error' ? (code ?? 'no answer') : name)
}

export const statusOf = (error: unknown): number | undefined =>
  (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode

/** Loads the SDK, which takes time and memory: only a node with payloads in S3 pays for it. */
export async function openS3Calls({ region, endpoint }: S3Access, pace: Partial<S3Pace> = {}): Promise<S3Calls> {
  const all = { ...usualPace, ...pace }
  // It would tell on each start that it wants a newer Node.js some day.
  process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= 'true'
  const { S3Client } = await import('@aws-sdk/client-s3')
  const client = new S3Client({
    region,
    maxAttempts: all.maxTries,
    requestHandler: { connectionTimeout: connectTimeoutMs, requestTimeout: all.tryMs, throwOnRequestTimeout: true },
    // SHA-256 is given with each upload, and held against what is read by whoever reads it.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    // An emulator has no name for each bucket.
    ...(endpoint !== '' && { endpoint, forcePathStyle: true }),
  })
  return new S3Calls(client, all)
}
