/**
 * The node's IAM policy, deploy/iam/node-policy.json, with the emulator's IAM turned on: it suffices for all that the provider
 * does, and each of its actions is needed. The emulator checks actions only, so resources become `*` and conditions are
 * left out; what it never asks for is listed below.
 */
import { readFile } from 'node:fs/promises'
import t, { type Test } from 'tap'
import type { Ec2Provider } from '../../src/fleet/providers/ec2/ec2-provider.ts'
import { startFront } from '../support/aws/front.ts'
import { httpCall } from '../support/aws/http-call.ts'
import { startMoto } from '../support/aws/moto.ts'
import { printQuery } from '../support/aws/query.ts'
import { type Credentials, signedHeaders } from '../support/aws/signature.ts'
import { deployment, openEc2Parts, region } from '../support/ec2-parts.ts'
import { patienceMs, until } from '../support/until.ts'

const moto = await startMoto(t)
const front = await startFront(t, moto)

interface Statement {
  readonly Action: string | readonly string[]
}
const file = new URL('../../deploy/iam/node-policy.json', import.meta.url)
const policy = JSON.parse(await readFile(file, 'utf8')) as { Statement: Statement[] }
const actions = [...new Set(policy.Statement.flatMap(({ Action }) => Action))].sort()

/**
 * Asked for by EC2 on behalf of the caller while it launches: the emulator launches without. The price list is no part of the
 * emulator; the front answers for it, to anyone.
 */
const neverAsked = ['ec2:CreateTags', 'iam:CreateServiceLinkedRole', 'iam:PassRole', 'pricing:GetProducts']

const outcome = async (call: Promise<unknown>): Promise<boolean> =>
  await call.then(
    () => true,
    () => false,
  )

/** All that a provider does; which of it works. */
async function tryAll(
  open: (options: object) => Promise<Ec2Provider>,
  decision: string,
  left: readonly string[],
  arePricesDue: boolean,
) {
  const single = await open({})
  const mixed = await open({ placement: { instanceTypes: ['c5.large', 'c6i.large'], spotPercent: 50 } })
  const request = { pool: 'default', count: 2, slots: 1 }
  const works: Record<string, boolean> = {}
  works.launchOneWay = await outcome(single.launch({ ...request, decisionId: `${decision} one` }))
  works.launchMixed = await outcome(mixed.launch({ ...request, decisionId: `${decision} two` }))
  // A provider that has launched nothing knows only what EC2 shows it.
  const fresh = await open({})
  works.list = await outcome(fresh.list())
  const known = works.list ? await fresh.list() : []
  const priced = async (market: string): Promise<boolean> =>
    (await fresh.list()).some(instance => instance.market === market && instance.hourlyUsd !== undefined)
  if (known.length > 0) await until(() => front.calls.some(({ action }) => action === 'GetProducts'))
  const arePriced = async (): Promise<boolean> => (await priced('spot')) && (await priced('on-demand'))
  // pause: prices that may not be asked for never come
  works.prices = known.length > 0 && (await outcome(until(arePriced, arePricesDue ? patienceMs : 5000)))
  const id = known[0]?.id ?? left[0] ?? ''
  works.console = await outcome(single.explainBoot(id))
  works.terminate = await outcome(single.terminate([id]))
  works.sweep = await outcome(single.sweepLeftovers(Date.now() + 601_000).then(ids => ids.length === 1 || fail()))
  return works
}
const fail = () => {
  throw new Error('nothing was swept')
}

/** An account with a template, instances and a leftover volume; IAM on, and a node with some actions allowed. */
async function setUp(t: Test, allowed: readonly string[]) {
  await front.reset()
  const parts = await openEc2Parts(t, front)
  await parts.createTemplate()
  const tagged = (ResourceType: 'instance' | 'volume') => [
    { ResourceType, Tags: [tag('muster:deployment', deployment), tag('muster:pool', 'default')] },
  ]
  await parts.admin.createVolume({
    AvailabilityZone: `${region}a`,
    Size: 1,
    TagSpecifications: tagged('volume'),
  })
  const run = { ImageId: 'ami-12c6146b', InstanceType: 'c5.large', MinCount: 1, MaxCount: 1 } as const
  const onDemand = await parts.admin.runInstances({ ...run, TagSpecifications: tagged('instance') })
  const spot = await parts.admin.runInstances({
    ...run,
    InstanceMarketOptions: { MarketType: 'spot' },
    TagSpecifications: tagged('instance'),
  })
  const left = [onDemand, spot].flatMap(({ Instances = [] }) => Instances.map(({ InstanceId = '' }) => InstanceId))
  const admin = await moto.turnOnIam()
  const node = await createUser(admin, allowed)
  front.know(node)
  front.calls.length = 0
  process.env.AWS_ACCESS_KEY_ID = node.accessKeyId
  process.env.AWS_SECRET_ACCESS_KEY = node.secretAccessKey
  t.teardown(() => {
    process.env.AWS_ACCESS_KEY_ID = 'test'
    process.env.AWS_SECRET_ACCESS_KEY = 'test'
  })
  return { ...parts, left }
}

const tag = (Key: string, Value: string) => ({ Key, Value })

async function createUser(admin: Credentials, allowed: readonly string[]): Promise<Credentials> {
  const iam = async (params: Record<string, string>): Promise<string> => {
    const body = printQuery({ Version: '2010-05-08', ...params })
    const headers = signedHeaders(body, new URL(moto.url).host, { region, service: 'iam' }, admin)
    const reply = await httpCall(moto.url, { method: 'POST', headers, body })
    if (reply.status !== 200) throw new Error(reply.body.toString())
    return reply.body.toString()
  }
  const UserName = 'node'
  const Statement = [{ Effect: 'Allow', Action: allowed, Resource: '*' }]
  const PolicyDocument = JSON.stringify({ Version: '2012-10-17', Statement })
  await iam({ Action: 'CreateUser', UserName })
  await iam({ Action: 'PutUserPolicy', UserName, PolicyName: 'node', PolicyDocument })
  const keys = await iam({ Action: 'CreateAccessKey', UserName })
  const read = (name: string): string => new RegExp(`<${name}>([^<]+)`).exec(keys)?.[1] ?? ''
  return { accessKeyId: read('AccessKeyId'), secretAccessKey: read('SecretAccessKey') }
}

t.test('the policy allows all that the provider does', async t => {
  const { open, left } = await setUp(t, actions)
  const works = await tryAll(open, 'all', left, true)
  for (const [what, does] of Object.entries(works)) t.ok(does, what)
  t.ok(Object.keys(works).length >= 7)
})

t.test('each action is needed: without it something fails', async t => {
  const table: Record<string, readonly string[]> = {
    'ec2:CreateFleet': ['launchMixed'],
    'ec2:CreateLaunchTemplateVersion': ['launchOneWay', 'launchMixed'],
    'ec2:DeleteVolume': ['sweep'],
    'ec2:DescribeInstances': ['list', 'prices'],
    'ec2:DescribeLaunchTemplateVersions': ['launchOneWay', 'launchMixed'],
    'ec2:DescribeSpotPriceHistory': ['prices'],
    'ec2:DescribeVolumes': ['sweep'],
    'ec2:GetConsoleOutput': ['console'],
    'ec2:RunInstances': ['launchOneWay', 'launchMixed'],
    'ec2:TerminateInstances': ['terminate'],
  }
  t.same(Object.keys(table).concat(neverAsked).sort(), actions, 'the table has every action of the policy')
  for (const [action, expected] of Object.entries(table)) {
    await t.test(action, async t => {
      const others = actions.filter(other => other !== action)
      const { open, left } = await setUp(t, others)
      const works = await tryAll(open, action, left, !expected.includes('prices'))
      const failed = Object.keys(works).filter(what => !works[what])
      t.same(failed, expected)
    })
  }
})
