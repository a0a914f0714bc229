/** Which rule answers which call. What is not named here goes to moto as it came. */
import type { Rules } from '../front.ts'
import { httpCall } from '../http-call.ts'
import type { IncomingCall } from '../incoming-call.ts'
import { jsonReply, passOn, type Reply, xmlReply } from '../reply.ts'
import { itemsOf, parseXml, textOf } from '../xml.ts'
import { createFleet } from './create-fleet.ts'
import { expandSourceVersion } from './launch-template.ts'
import { consoleOutput, describedInstances } from './machines.ts'
import { getProducts, spotPriceHistory } from './price-answers.ts'
import { instanceIdsOf, runInstances } from './run-instances.ts'
import { ofCloudFormation } from './stacks.ts'
import { forMoto } from './templates.ts'

type Answer = (call: IncomingCall, rules: Rules) => Promise<Reply>

const ofEc2: Readonly<Record<string, Answer>> = {
  RunInstances: async (call, rules) =>
    await rules.tokens.once(
      `${call.accessKeyId} ${call.region}`,
      call.params,
      async () => await runInstances(call.params, call, rules),
      async reply => await isTerminated(reply, call, rules),
    ),
  CreateFleet: async (call, rules) =>
    await rules.tokens.once(
      `${call.accessKeyId} ${call.region}`,
      call.params,
      async () => await createFleet(call.params, call, rules),
    ),
  CreateLaunchTemplateVersion: async (call, rules) =>
    await rules.tokens.once(
      `${call.accessKeyId} ${call.region}`,
      call.params,
      async () => await rules.ec2.asCaller(call, await expandSourceVersion(call.params, call, rules.ec2)),
    ),
  DescribeInstances: async (call, rules) =>
    describedInstances(await forward(call, rules), rules.machines, rules.newInstances),
  GetConsoleOutput: async (call, rules) => {
    const reply = await forward(call, rules)
    return reply.outcome === 'ok' ? consoleOutput(call.params.InstanceId ?? '', rules.machines) : reply
  },
  DescribeSpotPriceHistory: async (call, rules) => {
    const reply = await forward(call, rules)
    return reply.outcome === 'ok' ? spotPriceHistory(call.params, call.region, rules.prices) : reply
  },
}

/** @throws Refusal what a rule refuses */
export async function answer(call: IncomingCall, rules: Rules): Promise<Reply> {
  if (call.service === 'ec2') {
    rules.newInstances.refuseHidden(call.params)
    return await (ofEc2[call.action] ?? forward)(call, rules)
  }
  if (call.target === 'AWSPriceListService.GetProducts') {
    return getProducts(JSON.parse(call.request.body.toString()), 'us-east-1', rules.prices)
  }
  if (call.service === 'cloudformation') {
    const rule = ofCloudFormation[call.action] ?? forward
    return await rule(call, rules, async one => await forward(one, rules))
  }
  if (call.target === 'ServiceQuotasV20190624.GetServiceQuota') {
    const reply = rules.quotas.answer(call)
    if (reply !== undefined) return reply
  }
  if (call.target === 'AWSFreeTierService.GetAccountPlanState') {
    return jsonReply({ accountId: '123456789012', accountPlanType: rules.quotas.plan, accountPlanStatus: 'ACTIVE' })
  }
  // moto does not look at conditions: a policy that forbids what comes without TLS would forbid everything.
  if (call.service === 's3' && call.request.method === 'PUT' && call.request.path.endsWith('?policy')) {
    return { ...xmlReply(''), status: 204 }
  }
  return await forward(forMoto(call), rules)
}

/**
 * To moto and back, byte for byte. Where moto checks signatures, it checks that of its own way to write the parameters,
 * which is not the SDK's: so forms are signed again, if the front knows the caller.
 */
async function forward(call: IncomingCall, { moto, ec2 }: Rules): Promise<Reply> {
  const mustSign = moto.admin !== undefined && Object.keys(call.params).length > 0 && ec2.canSignFor(call)
  if (mustSign) return await ec2.asCaller(call, call.params, call.service)
  return passOn(await httpCall(moto.url, call.request))
}

async function isTerminated(launched: Reply, call: IncomingCall, { ec2 }: Rules): Promise<boolean> {
  const ids = instanceIdsOf(parseXml(launched.body.toString()))
  const named = Object.fromEntries(ids.map((id, index) => [`InstanceId.${index + 1}`, id]))
  const reply = await ec2.asAdmin(call, { Action: 'DescribeInstances', ...named })
  const instances = itemsOf(reply, 'reservationSet').flatMap(reservation => itemsOf(reservation, 'instancesSet'))
  return instances.every(instance => textOf(instance, 'instanceState', 'name') === 'terminated')
}
