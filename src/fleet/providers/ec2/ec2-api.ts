/**
 * Calls to EC2: each with a time limit and without retries of the SDK's own, since it would repeat launches, and
 * InsufficientInstanceCapacity, which is a 500. Who may repeat a call says so by using `retried`.
 */
import type { EC2 } from '@aws-sdk/client-ec2'
import type { FastifyBaseLogger } from 'fastify'
import { within } from '../../../within.ts'
import { classify, codeOf } from './aws-errors.ts'
import { type BackoffOptions, backoffMs, Deadline } from './throttling.ts'

export interface AwsAccess {
  readonly region: string
  /** Another address than AWS's own, for an emulator; '' for AWS. */
  readonly endpoint: string
}

/** One call through the SDK. */
export type Call<T> = (client: EC2, options: { readonly abortSignal: AbortSignal }) => Promise<T>

/** How long things may take. */
export interface Pace extends BackoffOptions {
  /** The longest that one try of a call waits for its reply. */
  readonly callTimeoutMs: number
  /** All calls of one launch, and the waits between them. */
  readonly launchMs: number
}

export interface RetryLimits {
  /** All tries and the waits between them. */
  readonly totalMs: number
  readonly maxTries: number
}

const connectTimeoutMs = 3000
const usualLimits: RetryLimits = { totalMs: 20_000, maxTries: 8 }

export class Ec2Api {
  readonly pace: Pace
  readonly #client: EC2
  readonly #log: FastifyBaseLogger

  constructor(client: EC2, pace: Pace, log: FastifyBaseLogger) {
    this.#client = client
    this.pace = pace
    this.#log = log
  }

  /**
   * Calls once.
   * @param timeoutMs the longest to wait, for credentials too
   * @throws the error of AWS, or one that says that there was no answer in time
   */
  async once<T>(call: Call<T>, timeoutMs: number = this.pace.callTimeoutMs): Promise<T> {
    const limitMs = Math.max(1, Math.ceil(timeoutMs))
    // The signal ends a request, also one whose reply trickles; it does not end the search for credentials.
    return await within(limitMs, 'EC2', call(this.#client, { abortSignal: AbortSignal.timeout(limitMs) }))
  }

  /**
   * Calls, and repeats what was throttled or got no sound reply. Only for calls that may happen twice.
   * @throws the last error
   */
  async retried<T>(call: Call<T>, { totalMs, maxTries }: RetryLimits = usualLimits): Promise<T> {
    const deadline = new Deadline(totalMs)
    for (let tries = 1; ; tries += 1) {
      try {
        return await this.once(call, Math.min(this.pace.callTimeoutMs, deadline.remainingMs))
      } catch (error) {
        const kind = classify(error)
        if ((kind !== 'throttled' && kind !== 'unknown') || tries >= maxTries) throw error
        this.#log.debug({ code: codeOf(error), tries }, 'a call to EC2 is repeated')
        if (!(await deadline.wait(backoffMs(this.pace, tries, Math.random())))) throw error
      }
    }
  }

  /** Lets go of its connections. */
  close(): void {
    this.#client.destroy()
  }
}

/** Loads the SDK, which takes some 0.3 s and 28 MB: only a node with such a fleet pays for it. */
export async function openEc2Api(access: AwsAccess, pace: Pace, log: FastifyBaseLogger): Promise<Ec2Api> {
  // It would tell on each start that it wants a newer Node.js some day.
  process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= 'true'
  const { EC2 } = await import('@aws-sdk/client-ec2')
  return new Ec2Api(new EC2(clientConfig(access)), pace, log)
}

/** What every client of AWS is opened with. The endpoint is given even though the SDK would look for it itself: see that it does. */
export function clientConfig({ region, endpoint }: AwsAccess) {
  return {
    region,
    maxAttempts: 1,
    requestHandler: { connectionTimeout: connectTimeoutMs },
    ...(endpoint !== '' && { endpoint }),
  }
}
