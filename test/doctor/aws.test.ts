/** The part of `muster doctor` that looks at AWS, against the emulator: all in order, then one thing after the other missing. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { EC2 } from '@aws-sdk/client-ec2'
import t, { type Test } from 'tap'
import { examineAws } from '../../src/doctor/check-aws.ts'
import type { Finding } from '../../src/doctor/finding.ts'
import { readSettings } from '../../src/settings/settings.ts'
import { httpCall } from '../support/aws/http-call.ts'
import { startMoto } from '../support/aws/moto.ts'
import { printQuery } from '../support/aws/query.ts'
import { type Credentials, signedHeaders } from '../support/aws/signature.ts'

process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED = 'true'
const region = 'us-east-1'
const moto = await startMoto(t)
const quotas: Record<string, number> = {}

/** Before moto, which knows no quota of EC2: answers for those, hands on the rest. */
const server = createServer(async (request, response) => {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  const body = Buffer.concat(chunks)
  if (String(request.headers['x-amz-target']).endsWith('.GetServiceQuota')) {
    const { QuotaCode } = JSON.parse(body.toString()) as { QuotaCode: string }
    const value = quotas[QuotaCode]
    response.writeHead(value === undefined ? 400 : 200, { 'content-type': 'application/x-amz-json-1.1' })
    response.end(
      JSON.stringify(
        value === undefined ? { __type: 'AccessDeniedException', message: 'no' } : { Quota: { Value: value } },
      ),
    )
    return
  }
  const headers = Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, String(value)]))
  const reply = await httpCall(moto.url, { method: request.method ?? 'POST', path: request.url ?? '/', headers, body })
  response.writeHead(reply.status, { 'content-type': String(reply.headers['content-type'] ?? 'text/xml') })
  response.end(reply.body)
}).listen(0, '127.0.0.1')
await once(server, 'listening')
t.teardown(() => {
  server.closeAllConnections()
  server.close()
})
const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`

const use = ({ accessKeyId, secretAccessKey }: Credentials): void => {
  process.env.AWS_ACCESS_KEY_ID = accessKeyId
  process.env.AWS_SECRET_ACCESS_KEY = secretAccessKey
}

async function setUp(t: Test) {
  await moto.reset()
  Object.assign(quotas, { 'L-1216C47A': 64, 'L-34B43A08': 64 })
  use({ accessKeyId: 'test', secretAccessKey: 'test' })
  const ec2 = new EC2({ region, endpoint, maxAttempts: 1 })
  t.teardown(() => ec2.destroy())
  await ec2.createLaunchTemplate({
    LaunchTemplateName: 'workers',
    LaunchTemplateData: { ImageId: 'ami-12c6146b', InstanceType: 'c5.large', IamInstanceProfile: { Name: 'worker' } },
  })
  const { Subnets = [] } = await ec2.describeSubnets({})
  const subnets = Subnets.slice(0, 2).map(({ SubnetId = '' }) => SubnetId)
  const examine = async (more: Record<string, string> = {}): Promise<Record<string, Finding>> => {
    const settings = readSettings({
      MUSTER_CONFIG_FILE: '/nonexistent',
      MUSTER_FLEET: 'ec2',
      MUSTER_EC2_LAUNCH_TEMPLATE: 'workers',
      MUSTER_EC2_SUBNETS: subnets.join(','),
      MUSTER_MAX_WORKERS: '10',
      MUSTER_EC2_SPOT_PERCENT: '50',
      AWS_REGION: region,
      AWS_ENDPOINT_URL: endpoint,
      ...more,
    })
    return Object.fromEntries((await examineAws(settings)).map(finding => [finding.name, finding]))
  }
  return { ec2, examine }
}

const outcomes = (findings: Record<string, Finding>): Record<string, string> =>
  Object.fromEntries(Object.entries(findings).map(([name, { outcome }]) => [name, outcome]))
const well = {
  'aws-credentials': 'ok',
  'aws-launch-template': 'ok',
  'aws-subnets': 'ok',
  'aws-rights': 'ok',
  'aws-quota': 'ok',
}

t.test('all in order', async t => {
  const { ec2, examine } = await setUp(t)
  const findings = await examine()
  t.strictSame(outcomes(findings), well)
  t.match(findings['aws-rights']?.detail, /RunInstances, ec2:CreateFleet; TerminateInstances not tried/)
  t.match(findings['aws-quota']?.detail, /On-Demand 10 of 64 vCPUs, Spot 10 of 64/, 'c5.large has two')
  const { Reservations = [] } = await ec2.describeInstances({})
  t.equal(Reservations.length, 0, 'a dry run launches nothing')

  await ec2.runInstances({
    ImageId: 'ami-12c6146b',
    InstanceType: 'c5.large',
    MinCount: 1,
    MaxCount: 1,
    TagSpecifications: [{ ResourceType: 'instance', Tags: [{ Key: 'muster:deployment', Value: 'muster' }] }],
  })
  t.match((await examine())['aws-rights']?.detail, /ec2:TerminateInstances$/)
  const after = await ec2.describeInstances({})
  t.equal(after.Reservations?.[0]?.Instances?.[0]?.State?.Name, 'running', 'and ends nothing')
})

t.test('what is wrong is named', async t => {
  const { ec2, examine } = await setUp(t)
  const nothing = await examine({ MUSTER_EC2_LAUNCH_TEMPLATE: 'lt-00000000000000000' })
  t.match(nothing['aws-launch-template'], { outcome: 'fail', action: /MUSTER_EC2_LAUNCH_TEMPLATE/ })
  t.match(nothing['aws-rights'], { outcome: 'skipped' })

  const noSubnet = await examine({ MUSTER_EC2_SUBNETS: 'subnet-00000000000000000' })
  t.match(noSubnet['aws-subnets'], { outcome: 'fail', action: /MUSTER_EC2_SUBNETS/ })

  quotas['L-1216C47A'] = 5
  t.match((await examine())['aws-quota'], {
    outcome: 'warn',
    detail: /On-Demand 10 of 5 vCPUs/,
    action: /Service Quotas/,
  })
  delete quotas['L-1216C47A']
  t.match((await examine())['aws-quota'], { outcome: 'skipped', detail: /AccessDenied/ })
  t.match((await examine({ MUSTER_EC2_INSTANCE_TYPES: 'g5.xlarge' }))['aws-quota'], { outcome: 'skipped' })

  await ec2.createLaunchTemplate({
    LaunchTemplateName: 'spot',
    LaunchTemplateData: { ImageId: 'ami-12c6146b', InstanceMarketOptions: { MarketType: 'spot' } },
  })
  t.match((await examine({ MUSTER_EC2_LAUNCH_TEMPLATE: 'spot' }))['aws-launch-template'], {
    outcome: 'fail',
    action: /MUSTER_EC2_SPOT_PERCENT/,
  })
  const away = await examine({ AWS_ENDPOINT_URL: 'http://127.0.0.1:1' })
  t.match(away['aws-credentials'], { outcome: 'fail', detail: /does not answer/, action: /AWS_REGION/ })
})

t.test('rights that are missing', async t => {
  const { examine } = await setUp(t)
  const admin = await moto.turnOnIam()
  const iam = async (params: Record<string, string>): Promise<string> => {
    const body = printQuery({ Version: '2010-05-08', ...params })
    const headers = signedHeaders(body, new URL(moto.url).host, { region, service: 'iam' }, admin)
    const reply = await httpCall(moto.url, { method: 'POST', headers, body })
    if (reply.status !== 200) throw new Error(reply.body.toString())
    return reply.body.toString()
  }
  const allow = async (...actions: string[]): Promise<void> => {
    const Statement = [{ Effect: 'Allow', Action: actions, Resource: '*' }]
    await iam({
      Action: 'PutUserPolicy',
      UserName: 'node',
      PolicyName: 'node',
      PolicyDocument: JSON.stringify({ Version: '2012-10-17', Statement }),
    })
  }
  await iam({ Action: 'CreateUser', UserName: 'node' })
  const keys = await iam({ Action: 'CreateAccessKey', UserName: 'node' })
  const read = (name: string): string => new RegExp(`<${name}>([^<]+)`).exec(keys)?.[1] ?? ''
  use({ accessKeyId: read('AccessKeyId'), secretAccessKey: read('SecretAccessKey') })

  await allow('ec2:DescribeInstances')
  t.match((await examine())['aws-launch-template'], { outcome: 'fail', action: /node-policy\.json/ })
  await allow('ec2:Describe*', 'ec2:RunInstances')
  const part = await examine()
  t.match(part['aws-rights'], { outcome: 'fail', detail: 'missing: ec2:CreateFleet', action: /node-policy\.json/ })
  t.match(part['aws-launch-template'], { outcome: 'ok' })
  await allow('ec2:DescribeInstances', 'ec2:DescribeLaunchTemplateVersions', 'ec2:RunInstances', 'ec2:CreateFleet')
  const least = await examine()
  t.match(least['aws-rights'], { outcome: 'ok' })
  t.match(least['aws-subnets'], { outcome: 'skipped' }, 'a node needs no right to look at subnets')
  use({ accessKeyId: 'nobody', secretAccessKey: 'nothing' })
  t.match((await examine())['aws-credentials'], { outcome: 'fail', action: /instance profile/ })
})
