/**
 * What an account may: quotas of EC2 and the plan, answered from what the test says.
 * Why: moto knows the quotas of VPC only, and no plans.
 */
import type { IncomingCall } from '../incoming-call.ts'
import { jsonReply, Refusal, type Reply } from '../reply.ts'

export class Quotas {
  readonly #values = new Map<string, number>()
  plan: 'FREE' | 'PAID' = 'PAID'

  clear(): void {
    this.plan = 'PAID'
    this.#values.clear()
  }

  set(quotaCode: string, value: number): void {
    this.#values.set(quotaCode, value)
  }

  /** @returns undefined for those that moto may know */
  answer({ request }: IncomingCall): Reply | undefined {
    const { ServiceCode, QuotaCode = '' } = JSON.parse(request.body.toString()) as Record<string, string>
    if (ServiceCode !== 'ec2') return undefined
    const Value = this.#values.get(QuotaCode)
    if (Value === undefined) throw new Refusal('NoSuchResourceException', 'There is no such quota.')
    return jsonReply({ Quota: { ServiceCode, QuotaCode, Value, Unit: 'None', Adjustable: true } })
  }
}
