/** Puts data points into CloudWatch: one call a minute, with limits on everything. */
import type { CloudWatchClient, MetricDatum } from '@aws-sdk/client-cloudwatch'
import { within } from '../within.ts'
import { type DataPoint, metricTable } from './metric-table.ts'

export interface CloudWatchAccess {
  readonly region: string
  /** Another address than AWS's own, for an emulator; '' for AWS. */
  readonly endpoint: string
  readonly namespace: string
  readonly deployment: string
}

const connectTimeoutMs = 3000
const tryMs = 5000
const maxTries = 3
const callMs = 20_000
/** CloudWatch takes 1,000 a call. */
const pointsAtOnce = 500

export class CloudWatch {
  readonly #client: CloudWatchClient
  readonly #access: CloudWatchAccess

  constructor(client: CloudWatchClient, access: CloudWatchAccess) {
    this.#client = client
    this.#access = access
  }

  /**
   * @param at the minute that they belong to, in ms since the epoch
   * @throws the error of AWS, or one that says that there was no answer in time
   */
  async put(points: readonly DataPoint[], at: number): Promise<void> {
    const { PutMetricDataCommand } = await import('@aws-sdk/client-cloudwatch')
    const { namespace: Namespace } = this.#access
    for (let from = 0; from < points.length; from += pointsAtOnce) {
      const MetricData = points.slice(from, from + pointsAtOnce).map(point => this.#toDatum(point, at))
      const ending = new AbortController()
      const command = new PutMetricDataCommand({ Namespace, MetricData })
      try {
        // The signal ends a request; it does not end the search for credentials.
        await within(callMs, 'CloudWatch', this.#client.send(command, { abortSignal: ending.signal }))
      } finally {
        ending.abort()
      }
    }
  }

  /** Lets go of its connections. */
  close(): void {
    this.#client.destroy()
  }

  #toDatum({ name, value, dimension }: DataPoint, at: number): MetricDatum {
    const own = dimension === undefined ? [] : [{ Name: dimension.name, Value: dimension.value }]
    return {
      MetricName: name,
      Value: value,
      Unit: metricTable[name].unit,
      Timestamp: new Date(at),
      Dimensions: [{ Name: 'Deployment', Value: this.#access.deployment }, ...own],
    }
  }
}

/** Loads the SDK, which takes time and memory: only a node that publishes pays for it. */
export async function openCloudWatch(access: CloudWatchAccess): Promise<CloudWatch> {
  // It would tell on each start that it wants a newer Node.js some day.
  process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= 'true'
  const { CloudWatchClient } = await import('@aws-sdk/client-cloudwatch')
  const client = new CloudWatchClient({
    region: access.region,
    maxAttempts: maxTries,
    requestHandler: { connectionTimeout: connectTimeoutMs, requestTimeout: tryMs, throwOnRequestTimeout: true },
    ...(access.endpoint !== '' && { endpoint: access.endpoint }),
  })
  return new CloudWatch(client, access)
}
