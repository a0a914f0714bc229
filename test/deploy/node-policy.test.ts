/** deploy/iam/node-policy.json, evaluated: what a node that somebody has taken over may launch, end and hand over. */
import { readFileSync } from 'node:fs'
import t from 'tap'
import { isAllowed, type PolicyStatement } from '../support/cloudformation/evaluate-policy.ts'

const file = new URL('../../deploy/iam/node-policy.json', import.meta.url)
const { Statement: statements } = JSON.parse(readFileSync(file, 'utf8')) as { Statement: PolicyStatement[] }
const arn = (kind: string, id: string, account = 'ACCOUNT'): string => `arn:aws:ec2:REGION:${account}:${kind}/${id}`
const template = arn('launch-template', 'LAUNCH_TEMPLATE_ID')

interface Launch {
  readonly template?: string
  readonly subnet?: string
  readonly group?: string
  readonly tag?: string
  readonly type?: string
}

/** Every resource that EC2 asks about when it launches one instance. */
function mayLaunch(action: string, launch: Launch): boolean {
  const { template: named, subnet = 'SUBNET_ID', group = 'SECURITY_GROUP_ID', tag = 'DEPLOYMENT' } = launch
  const { type = 'INSTANCE_TYPE' } = launch
  const context = {
    'ec2:InstanceType': type,
    ...(named !== undefined && { 'ec2:LaunchTemplate': named }),
    ...(tag !== '' && { 'aws:RequestTag/muster:deployment': tag }),
  }
  const resources = [
    ...[arn('instance', 'i-1'), arn('volume', 'vol-1'), arn('network-interface', 'eni-1'), arn('subnet', subnet)],
    ...[arn('security-group', group), arn('image', 'ami-1', ''), ...(named === undefined ? [] : [named])],
    ...(action === 'ec2:CreateFleet' ? [arn('fleet', 'fleet-1')] : []),
  ]
  return resources.every(resource => isAllowed(statements, { action, resource, context }))
}

t.test('launches come from the template of the fleet, into its network, with its tag', async t => {
  t.ok(mayLaunch('ec2:RunInstances', { template }))
  t.ok(mayLaunch('ec2:CreateFleet', { template }))
  const refused: Record<string, Launch> = {
    'without a template': {},
    'from another one': { template: arn('launch-template', 'lt-other') },
    'into another subnet': { template, subnet: 'subnet-other' },
    'into another group': { template, group: 'sg-other' },
    'of another type': { template, type: 'p5.48xlarge' },
    'without the tag': { template, tag: '' },
    'with the tag of another deployment': { template, tag: 'other' },
  }
  for (const [what, launch] of Object.entries(refused)) t.notOk(mayLaunch('ec2:RunInstances', launch), what)
  // What a fleet launches is asked for as RunInstances as well; without a template there is no fleet.
  for (const what of ['from another one', 'without the tag'])
    t.notOk(mayLaunch('ec2:CreateFleet', refused[what] ?? {}), `a fleet ${what}`)
})

t.test('only own workers are ended, and nothing that exists is tagged', async t => {
  const context = { 'aws:ResourceTag/muster:deployment': 'DEPLOYMENT', 'aws:ResourceTag/muster:pool': 'default' }
  const may = (action: string, tags: Record<string, string>): boolean =>
    isAllowed(statements, { action, resource: arn('instance', 'i-1'), context: tags })
  t.ok(may('ec2:TerminateInstances', context))
  t.notOk(may('ec2:TerminateInstances', { 'aws:ResourceTag/muster:deployment': 'DEPLOYMENT' }), 'a node has no pool')
  t.notOk(may('ec2:TerminateInstances', { ...context, 'aws:ResourceTag/muster:deployment': 'other' }))
  t.ok(may('ec2:CreateTags', { 'ec2:CreateAction': 'RunInstances' }))
  t.notOk(may('ec2:CreateTags', {}))
})

t.test('the role of the workers goes to instances, and to nothing else', async t => {
  const pass = (service: string, role = 'WORKER_ROLE'): boolean =>
    isAllowed(statements, {
      action: 'iam:PassRole',
      resource: `arn:aws:iam::ACCOUNT:role/${role}`,
      context: { 'iam:PassedToService': service },
    })
  t.ok(pass('ec2.amazonaws.com'))
  t.notOk(pass('lambda.amazonaws.com'))
  t.notOk(pass('ec2.amazonaws.com', 'administrator'))
})
