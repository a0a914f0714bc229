/** Opens the clients of AWS for the checks, and closes them again. */
import { pino } from 'pino'
import { clientConfig, openEc2Api } from '../fleet/providers/ec2/ec2-api.ts'
import { within } from '../fleet/within.ts'
import type { Settings } from '../settings.ts'
import { checkAws } from './check-aws.ts'
import type { Finding } from './finding.ts'

const callWithinMs = 8000
const pace = { firstMs: 250, maxMs: 2000, callTimeoutMs: callWithinMs, launchMs: callWithinMs }

export async function examineAws(settings: Settings): Promise<Finding[]> {
  const access = { region: settings.awsRegion, endpoint: settings.awsEndpointUrl }
  const api = await openEc2Api(access, pace, pino({ level: 'silent' }))
  const { ServiceQuotas } = await import('@aws-sdk/client-service-quotas')
  const quotas = new ServiceQuotas(clientConfig(access))
  const readQuota = async (QuotaCode: string): Promise<number> => {
    const options = { abortSignal: AbortSignal.timeout(callWithinMs) }
    const call = quotas.getServiceQuota({ ServiceCode: 'ec2', QuotaCode }, options)
    const { Quota } = await within(callWithinMs, 'Service Quotas', call)
    if (Quota?.Value === undefined) throw new Error('it has no value')
    return Quota.Value
  }
  try {
    return await checkAws({ settings, api, readQuota })
  } finally {
    api.close()
    quotas.destroy()
  }
}
