/**
 * The stack, made in the emulator with the AWS CLI. The emulator skips what it does not know (secrets, alarms, bucket policies,
 * ElastiCache), checks little of what it takes, and does not know the short form of Condition: cfn-lint is the check of the
 * template, this one shows that its parts fit together.
 */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { EC2 } from '@aws-sdk/client-ec2'
import { pino } from 'pino'
import t from 'tap'
import { openEc2Api } from '../../src/fleet/providers/ec2/ec2-api.ts'
import { readBaseVersion } from '../../src/fleet/providers/ec2/launch-template.ts'
import { startMoto } from '../support/aws/moto.ts'
import { templateForMoto } from '../support/aws/rules/templates.ts'
import { haveTool } from '../support/have-tool.ts'
import { patienceMs } from '../support/until.ts'

process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED = 'true'
process.env.AWS_ACCESS_KEY_ID = 'test'
process.env.AWS_SECRET_ACCESS_KEY = 'test'
const moto = await startMoto(t)
const credentials = { accessKeyId: 'test', secretAccessKey: 'test' }
const ec2 = new EC2({ region: 'us-east-1', endpoint: moto.url, credentials, maxAttempts: 1 })
t.teardown(() => ec2.destroy())
const run = promisify(execFile)

const template = readFileSync(new URL('../../deploy/cloudformation/muster.yaml', import.meta.url), 'utf8')
const file = join(t.testdir(), 'muster.yaml')
await writeFile(file, templateForMoto(template))

async function aws(...args: string[]): Promise<Record<string, unknown>> {
  const { stdout } = await run('aws', ['--output', 'json', ...args], {
    env: {
      ...{
        PATH: process.env.PATH,
        HOME: '/nonexistent',
        AWS_PAGER: '',
        AWS_ENDPOINT_URL: moto.url,
        AWS_DEFAULT_REGION: 'us-east-1',
      },
      ...{ AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test' },
    },
    timeout: patienceMs,
  })
  return stdout.trim() === '' ? {} : JSON.parse(stdout)
}

const always = {
  pBundleBucket: 'bundles',
  pBundleKey: 'muster.tgz',
  pBundleSha256: createHash('sha256').digest('hex'),
  pRedisSecretArn: 'arn:aws:secretsmanager:us-east-1:123456789012:secret:redis-AbCdEf',
  pZoneA: 'us-east-1a',
  pZoneB: 'us-east-1b',
}

/** @returns the outputs, and the user data by machine */
async function makeStack(parameters: Readonly<Record<string, string>> = {}) {
  const given = Object.entries({ ...always, ...parameters }).map(([ParameterKey, ParameterValue]) => ({
    ParameterKey,
    ParameterValue,
  }))
  const body = ['--template-body', `file://${file}`, '--parameters', JSON.stringify(given)]
  await aws('cloudformation', 'create-stack', '--stack-name', 'm', '--capabilities', 'CAPABILITY_IAM', ...body)
  return await read()
}

/** The stack as it is. */
async function read() {
  const { Stacks } = (await aws('cloudformation', 'describe-stacks', '--stack-name', 'm')) as {
    Stacks: { StackStatus: string; Outputs: { OutputKey: string; OutputValue: string }[] }[]
  }
  const { LaunchTemplates = [] } = await ec2.describeLaunchTemplates({})
  const settings = new Map<string, Record<string, string>>()
  for (const { LaunchTemplateId } of LaunchTemplates) {
    const { LaunchTemplateVersions = [] } = await ec2.describeLaunchTemplateVersions({
      LaunchTemplateId,
      Versions: ['$Latest'],
    })
    const text = Buffer.from(LaunchTemplateVersions[0]?.LaunchTemplateData?.UserData ?? '', 'base64').toString()
    const lines = /<<'SETTINGS'\n([\s\S]*?)\nSETTINGS\n/.exec(text)?.[1]?.split('\n') ?? []
    const values = Object.fromEntries(
      lines.map(line => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
    )
    if (values.MACHINE !== undefined) settings.set(values.MACHINE, values)
  }
  const { NetworkInterfaces = [] } = await ec2.describeNetworkInterfaces({})
  const interfaces = new Map(NetworkInterfaces.map(one => [one.Description, one] as const))
  return {
    status: Stacks[0]?.StackStatus,
    outputs: Object.fromEntries(
      (Stacks[0]?.Outputs ?? []).map(({ OutputKey, OutputValue }) => [OutputKey, OutputValue]),
    ),
    settings,
    interfaces,
  }
}

if (haveTool(t, 'aws', 'pip install awscli')) {
  t.beforeEach(async () => await moto.reset())

  t.test('two nodes and a witness, each with an address of its own, in a network of their own', async t => {
    const { status, outputs, settings, interfaces } = await makeStack({
      pZoneC: 'us-east-1c',
      pVpcCidr: '10.20.0.0/16',
    })
    t.equal(status, 'CREATE_COMPLETE')
    t.match(Object.keys(outputs).sort(), [
      ...['apiUrl', 'backupBucket', 'bootLogGroup', 'nodeLogGroup', 'nodeUrls', 'pageUrl', 'payloadBucket'],
      ...['redisLogGroup', 'templateVersion', 'workerRole'],
    ])
    t.match(outputs.nodeUrls, /^https:\/\/[\d.]+:5000,https:\/\/[\d.]+:5000$/)
    t.equal(outputs.apiUrl, outputs.nodeUrls?.split(',')[0])

    const machines = { a: 'Node A of Muster', b: 'Node B of Muster', c: 'Witness of Muster' }
    const addresses = Object.entries(machines).map(
      ([machine, name]) => [machine, interfaces.get(name)?.PrivateIpAddress ?? '?'] as const,
    )
    t.same(
      addresses.map(([, address]) => address.replace(/\.\d+$/, '')).map(net => Number(net.split('.')[2]) >> 4),
      [0, 1, 2],
      'a subnet for each, of the addresses that were asked for',
    )
    for (const [, address] of addresses) t.match(address, /^10\.20\./)
    const hosts = addresses.map(([machine, address]) => `${machine}=${address}`).join(',')
    const zones = Object.values(machines).map(name => interfaces.get(name)?.AvailabilityZone)
    t.same(zones, ['us-east-1a', 'us-east-1b', 'us-east-1c'])
    for (const [machine, address] of addresses) {
      const own = settings.get(machine) ?? {}
      t.match(own, { HOSTS: hosts, ROLE: machine === 'c' ? 'witness' : 'node', BUNDLE: 's3://bundles/muster.tgz' })
      if (machine === 'c') continue
      t.ok(own.ADDRESSES?.startsWith(`'${address} `), own.ADDRESSES ?? '')
      t.match(own, {
        REDIS: 'nodes',
        MUSTER_FLEET: 'ec2',
        MUSTER_DEPLOYMENT: 'm',
        MUSTER_PAYLOAD_STORE: `s3://${outputs.payloadBucket}`,
        MUSTER_NODE_URLS: addresses
          .slice(0, 2)
          .map(([, node]) => `https://${node}:5000`)
          .join(','),
        MUSTER_TRUSTED_PROXIES: '',
        NODE_LOGS: outputs.nodeLogGroup,
      })
      t.equal(own.MUSTER_EC2_SUBNETS?.split(',').length, 3, 'workers are in all zones')
      t.match(own.MUSTER_EC2_LAUNCH_TEMPLATE, /^lt-/)
    }
    const { Addresses = [] } = await ec2.describeAddresses({})
    t.equal(Addresses.length, 3)
    const { AutoScalingGroups } = (await aws('autoscaling', 'describe-auto-scaling-groups')) as {
      AutoScalingGroups: { MinSize: number; MaxSize: number; AvailabilityZones: string[]; Tags: { Value: string }[] }[]
    }
    t.match(AutoScalingGroups, Array(3).fill({ MinSize: 1, MaxSize: 1 }))
    t.same(AutoScalingGroups.map(group => group.AvailabilityZones[0]).sort(), zones)
    const after = AutoScalingGroups.map(({ Tags }) => Tags[0]?.Value.split(' ')[0]?.replace(/-\w+$/, ''))
    t.ok(after.includes('m-witnessGroup') && after.includes('m-nodeAGroup'), `one after the other: ${after}`)
  })

  t.test('where the region has two zones, the witness is beside node A', async t => {
    const { settings, interfaces } = await makeStack()
    t.equal(interfaces.get('Witness of Muster')?.AvailabilityZone, 'us-east-1a')
    t.equal(settings.get('a')?.MUSTER_EC2_SUBNETS?.split(',').length, 2)
  })

  t.test('in a network that exists, without public addresses, behind an internal load balancer', async t => {
    const { Vpc } = await ec2.createVpc({ CidrBlock: '10.9.0.0/16' })
    const VpcId = Vpc?.VpcId ?? ''
    const subnets: string[] = []
    for (const [index, zone] of ['a', 'b', 'c'].entries()) {
      const { Subnet } = await ec2.createSubnet({
        VpcId,
        CidrBlock: `10.9.${index}.0/24`,
        AvailabilityZone: `us-east-1${zone}`,
      })
      subnets.push(Subnet?.SubnetId ?? '')
    }
    const before = (await ec2.describeVpcs({})).Vpcs?.length
    const { status, outputs, settings, interfaces } = await makeStack({
      ...{ pVpcId: VpcId, pSubnetIds: subnets.join(','), pVpcCidr: '10.9.0.0/16', pZoneC: 'us-east-1c' },
      ...{ pPublicAddresses: 'no', pLoadBalancer: 'internal', pClientCidr: '10.9.0.0/16' },
      ...{ pBalancerCidrs: '10.9.0.0/24,10.9.1.0/24' },
    })
    t.equal(status, 'CREATE_COMPLETE')
    t.equal((await ec2.describeVpcs({})).Vpcs?.length, before, 'no network is made')
    t.same((await ec2.describeAddresses({})).Addresses, [])
    t.same(
      ['Node A of Muster', 'Node B of Muster', 'Witness of Muster'].map(name => interfaces.get(name)?.SubnetId),
      subnets,
    )
    t.match(outputs.apiUrl, /^http:\/\/m-loadBalancer/)
    t.match(outputs.nodeUrls, /^https:\/\/10\.9\.0\.\d+:5000,https:\/\/10\.9\.1\.\d+:5000$/)
    t.match(settings.get('b'), {
      MUSTER_TRUSTED_PROXIES: '10.9.0.0/24,10.9.1.0/24',
      MUSTER_EC2_SUBNETS: subnets.join(','),
    })
    const rules = await ruleList()
    t.ok(
      rules.includes('80 from 10.9.0.0/16') && !rules.includes('5000 from 10.9.0.0/16'),
      'clients reach the balancer only',
    )
  })

  t.test('in a network of its own the load balancer has subnets to itself, and only they are trusted', async t => {
    const boundary = 'arn:aws:iam::123456789012:policy/bound'
    const { settings } = await makeStack({ pLoadBalancer: 'internal', pPermissionsBoundaryArn: boundary })
    for (const machine of ['a', 'b']) t.match(settings.get(machine), { MUSTER_TRUSTED_PROXIES: '10.77.48.0/20' })
    const { Subnets = [] } = await ec2.describeSubnets({ Filters: [{ Name: 'cidr-block', Values: ['10.77.*'] }] })
    const ofWorkers = settings.get('a')?.MUSTER_EC2_SUBNETS?.split(',') ?? []
    t.same(
      Subnets.filter(({ SubnetId = '' }) => !ofWorkers.includes(SubnetId))
        .map(({ CidrBlock, AvailabilityZone }) => `${AvailabilityZone} ${CidrBlock}`)
        .sort(),
      ['us-east-1a 10.77.48.0/21', 'us-east-1b 10.77.56.0/21'],
    )
    const { Roles } = (await aws('iam', 'list-roles')) as { Roles: { RoleName: string }[] }
    t.equal(Roles.length, 3)
    for (const { RoleName } of Roles)
      t.match(await aws('iam', 'get-role', '--role-name', RoleName), {
        Role: { PermissionsBoundary: { PermissionsBoundaryArn: boundary } },
      })
  })

  t.test('without an address of clients nobody from outside gets in; with one, they do', async t => {
    await makeStack()
    t.notMatch(await ruleList(), / from \d/)
    await moto.reset()
    await makeStack({ pClientCidr: '203.0.113.7/32' })
    t.match((await ruleList()).match(/\d+ from \d\S+/g), ['5000 from 203.0.113.7/32'])
  })

  t.test('an update of the image reaches the next worker, although it does not become the default version', async t => {
    await makeStack()
    const image = 'ami-12c6146b'
    const given = Object.entries({ ...always, pWorkerImageId: image, pWorkerInstanceTypes: 'c6i.large' }).map(
      ([ParameterKey, ParameterValue]) => ({ ParameterKey, ParameterValue }),
    )
    const body = ['--template-body', `file://${file}`, '--parameters', JSON.stringify(given)]
    await aws('cloudformation', 'update-stack', '--stack-name', 'm', '--capabilities', 'CAPABILITY_IAM', ...body)
    const { StackResources } = (await aws('cloudformation', 'describe-stack-resources', '--stack-name', 'm')) as {
      StackResources: { LogicalResourceId: string; PhysicalResourceId: string }[]
    }
    const id = StackResources.find(({ LogicalResourceId }) => LogicalResourceId === 'workerLaunchTemplate')
    const pace = { firstMs: 20, maxMs: 400, callTimeoutMs: 8000, launchMs: 20_000 }
    const api = await openEc2Api({ region: 'us-east-1', endpoint: moto.url }, pace, pino({ level: 'silent' }))
    t.teardown(() => api.close())
    const base = await readBaseVersion(api, id?.PhysicalResourceId ?? '', 'latest')
    t.match(base, { DefaultVersion: false, LaunchTemplateData: { ImageId: image, InstanceType: 'c6i.large' } })
    const { settings } = await read()
    t.equal(settings.get('a')?.MUSTER_EC2_TEMPLATE_VERSION, 'latest', 'and the nodes know')
  })

  /** Who is let in by addresses. */
  async function ruleList(): Promise<string> {
    const { SecurityGroups = [] } = await ec2.describeSecurityGroups({})
    const inward = SecurityGroups.flatMap(({ IpPermissions = [] }) => IpPermissions)
    return inward
      .flatMap(({ FromPort, IpRanges = [] }) => IpRanges.map(({ CidrIp }) => `${FromPort} from ${CidrIp}`))
      .join('; ')
  }
}
