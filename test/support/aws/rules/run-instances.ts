/**
 * RunInstances as EC2 does it: the template written out, MaxCount filled as far as the pool has room, at least MinCount or
 * InsufficientInstanceCapacity.
 * Why: moto launches MinCount, and its pools never run out.
 */
import { type Caller, type Ec2Calls, parsed, refusalOf } from '../ec2-calls.ts'
import type { Params } from '../query.ts'
import { Refusal, type Reply, xmlReply } from '../reply.ts'
import { find, itemsOf, reprint, textOf, type XmlNode } from '../xml.ts'
import { checkArchitecture } from './architectures.ts'
import type { Capacity, Pool } from './capacity.ts'
import { expandLaunchTemplate } from './launch-template.ts'
import type { NewInstances } from './new-instances.ts'

export interface LaunchRules {
  readonly ec2: Ec2Calls
  readonly capacity: Capacity
  readonly newInstances: NewInstances
}

export async function runInstances(params: Params, caller: Caller, rules: LaunchRules): Promise<Reply> {
  const request = await expandLaunchTemplate(params, caller, rules.ec2)
  if (request.DryRun === 'true') return await rules.ec2.asCaller(caller, request)
  const min = Number(request.MinCount)
  const max = Number(request.MaxCount)
  if (!(min >= 1 && max >= min)) {
    throw new Refusal(
      'InvalidParameterValue',
      `MinCount ${request.MinCount} and MaxCount ${request.MaxCount} do not fit.`,
    )
  }
  const pool = await poolOf(request, caller, rules.ec2)
  if (rules.capacity.left(pool) < min) {
    const { code, message } = rules.capacity.refusal(pool)
    throw new Refusal(code, message)
  }
  const count = rules.capacity.take(pool, max)
  return xmlReply(reprint(await launchTaken(request, pool, count, caller, rules)))
}

/** The pool that a request without a template draws from; where it names no zone, the first of the region. */
export async function poolOf(request: Params, caller: Caller, ec2: Ec2Calls): Promise<Pool> {
  const subnetId = request.SubnetId ?? request['NetworkInterface.1.SubnetId']
  return {
    type: request.InstanceType ?? 'm1.small',
    zone:
      subnetId === undefined
        ? (request['Placement.AvailabilityZone'] ?? `${caller.region}a`)
        : await zoneOf(subnetId, caller, ec2),
    market: request['InstanceMarketOptions.MarketType'] === 'spot' ? 'spot' : 'on-demand',
  }
}

/** @throws Refusal when there is no such subnet */
export async function zoneOf(subnetId: string, caller: Caller, ec2: Ec2Calls): Promise<string> {
  const reply = await ec2.asAdmin(caller, { Action: 'DescribeSubnets', 'SubnetId.1': subnetId })
  return textOf(itemsOf(reply, 'subnetSet')[0], 'availabilityZone') ?? ''
}

/**
 * Launches as many as were taken from the pool; gives them back when moto refuses.
 * @returns moto's reply
 * @throws Refusal what moto refuses
 */
export async function launchTaken(
  request: Params,
  pool: Pool,
  count: number,
  caller: Caller,
  { ec2, capacity, newInstances }: LaunchRules,
): Promise<XmlNode> {
  await checkArchitecture(request, caller, ec2).catch(error => {
    capacity.requeue(pool, count)
    throw error
  })
  // moto's word for how many is MinCount.
  const reply = await ec2.asCaller(caller, { ...request, MinCount: String(count), MaxCount: String(count) })
  if (reply.outcome !== 'ok') {
    capacity.requeue(pool, count)
    throw refusalOf(reply)
  }
  const launched = parsed(reply)
  newInstances.launched(instanceIdsOf(launched))
  await giveProfile(request, launched, caller, ec2)
  return launched
}

export function instanceIdsOf(reply: XmlNode): string[] {
  return itemsOf(reply, 'instancesSet').map(instance => textOf(instance, 'instanceId') ?? '')
}

/** moto gives the instance profile to the first instance of a batch only. */
async function giveProfile(request: Params, launched: XmlNode, caller: Caller, ec2: Ec2Calls): Promise<void> {
  const [first, ...others] = itemsOf(launched, 'instancesSet')
  const profile = find(first, 'iamInstanceProfile')
  if (profile === undefined) return
  for (const instance of others) {
    if (find(instance, 'iamInstanceProfile') !== undefined) continue
    const { 'IamInstanceProfile.Name': name, 'IamInstanceProfile.Arn': arn } = request
    await ec2.asAdmin(caller, {
      Action: 'AssociateIamInstanceProfile',
      InstanceId: textOf(instance, 'instanceId') ?? '',
      ...(name !== undefined && { 'IamInstanceProfile.Name': name }),
      ...(arn !== undefined && { 'IamInstanceProfile.Arn': arn }),
    })
    instance.children.push(profile)
  }
}
