/** The stand-in for AWS that the tests of the EC2 fleet rely on, each rule and fault of it, called by the real SDK. */
import {
  type CreateFleetCommandInput,
  EC2,
  paginateDescribeInstances,
  type RunInstancesCommandInput,
} from '@aws-sdk/client-ec2'
import { Pricing } from '@aws-sdk/client-pricing'
import t from 'tap'
import { startMoto } from '../support/aws/moto.ts'
import { startAws } from '../support/aws/start-aws.ts'
import { until } from '../support/until.ts'

const { moto, front, access, ec2, allInstances: all, subnetOf, createTemplate, iam } = await startAws(t)
const pricing = new Pricing(access)
t.teardown(() => pricing.destroy())
t.beforeEach(async () => await front.reset())

const one: RunInstancesCommandInput = { ImageId: 'ami-1', InstanceType: 'c5.large', MinCount: 1, MaxCount: 1 }
const run = async (input: Partial<RunInstancesCommandInput> = {}) => {
  const { Instances = [] } = await ec2.runInstances({ ...one, ...input })
  return Instances.map(({ InstanceId = '' }) => InstanceId)
}
const named = (name: string, status?: number) => ({
  name,
  ...(status !== undefined && { $metadata: { httpStatusCode: status } }),
})

t.test('RunInstances fills MaxCount as far as the pool has room, and at least MinCount', async t => {
  t.equal((await run({ MaxCount: 5 })).length, 5)
  t.equal((await all()).length, 5, 'in moto too')

  front.capacity.set({ market: 'on-demand' }, 3)
  t.equal((await run({ MaxCount: 10, MinCount: 2 })).length, 3)
  await t.rejects(run(), named('InsufficientInstanceCapacity', 500))
  t.equal((await run({ InstanceMarketOptions: { MarketType: 'spot' } })).length, 1, 'another pool')
  t.equal((await all()).find(({ InstanceLifecycle }) => InstanceLifecycle === 'spot')?.InstanceType, 'c5.large')

  front.capacity.set({}, 0, { code: 'VcpuLimitExceeded' })
  front.capacity.set({ type: 'm5.large', zone: 'us-east-1b' }, Number.POSITIVE_INFINITY)
  await t.rejects(run(), named('InsufficientInstanceCapacity'), 'the limit with more fields counts')
  await t.rejects(run({ InstanceMarketOptions: { MarketType: 'spot' } }), named('VcpuLimitExceeded', 400))
  t.equal((await run({ InstanceType: 'm5.large', SubnetId: await subnetOf('us-east-1b') })).length, 1)
  await t.rejects(run({ SubnetId: 'subnet-1' }), named('InvalidSubnetID.NotFound'))
  front.capacity.clear()
  front.capacity.set({ type: 'c5.large' }, 1)
  await t.rejects(run({ SecurityGroupIds: ['sg-1'] }), 'moto refuses')
  t.equal((await run()).length, 1, 'what moto refused was given back to the pool')
})

t.test('a client token makes a call count once', async t => {
  const token = { ClientToken: 'once' }
  const [first, second] = await Promise.all([run({ ...token, MaxCount: 2 }), run({ ...token, MaxCount: 2 })])
  t.same(first, second)
  t.same(await run({ ...token, MaxCount: 2 }), first)
  t.equal((await all()).length, 2)
  await t.rejects(run({ ...token, MaxCount: 3 }), named('IdempotentParameterMismatch', 400))
  await ec2.terminateInstances({ InstanceIds: first })
  await t.rejects(run({ ...token, MaxCount: 2 }), named('IdempotentInstanceTerminated', 400))

  front.capacity.set({}, 0)
  await t.rejects(run({ ClientToken: 'again' }), named('InsufficientInstanceCapacity'))
  front.capacity.clear()
  t.equal((await run({ ClientToken: 'again' })).length, 1, 'a call that failed leaves its token free')
})

t.test('a launch template is written out', async t => {
  const group = await createTemplate({
    UserData: Buffer.from('#!/bin/bash\necho <hello> & "you"\n').toString('base64'),
    TagSpecifications: [
      {
        ResourceType: 'instance',
        Tags: [
          { Key: 'a', Value: '1' },
          { Key: 'b', Value: '<&>' },
        ],
      },
    ],
  })
  const LaunchTemplateName = 'worker'
  const derive = async (token: string, InstanceType: 'm5.large' | 'm6i.large') =>
    await ec2.createLaunchTemplateVersion({
      LaunchTemplateName,
      SourceVersion: '1',
      ClientToken: token,
      LaunchTemplateData: { InstanceType, TagSpecifications: [] },
    })
  const { LaunchTemplateVersion: second } = await derive('v2', 'm5.large')
  t.match(second, { VersionNumber: 2, LaunchTemplateData: { InstanceType: 'm5.large', ImageId: 'ami-2' } })
  t.equal((await derive('v2', 'm5.large')).LaunchTemplateVersion?.VersionNumber, 2, 'the token counts')
  await t.rejects(derive('v2', 'm6i.large'), named('IdempotentParameterMismatch'))

  const TagSpecifications = [{ ResourceType: 'instance' as const, Tags: [{ Key: 'a', Value: '2' }] }]
  const launch = async (Version?: string) => {
    const LaunchTemplate = { LaunchTemplateName, ...(Version !== undefined && { Version }) }
    await ec2.runInstances({ LaunchTemplate, MinCount: 1, MaxCount: 2, TagSpecifications })
    return (await all()).slice(-2)
  }
  for (const instance of await launch()) {
    t.match(instance, {
      ImageId: 'ami-2',
      InstanceType: 'c5.large',
      IamInstanceProfile: { Arn: /instance-profile\/worker$/ },
      SecurityGroups: [{ GroupId: group }],
      MetadataOptions: { HttpTokens: 'required', InstanceMetadataTags: 'enabled' },
    })
    const tags = Object.fromEntries((instance.Tags ?? []).map(({ Key, Value }) => [Key, Value]))
    t.match(tags, { a: '2', b: '<&>', 'aws:ec2launchtemplate:id': /^lt-/, 'aws:ec2launchtemplate:version': '1' })
    t.equal(instance.BlockDeviceMappings?.length, 1)
    const id = { InstanceId: instance.InstanceId }
    const { UserData } = await ec2.describeInstanceAttribute({ ...id, Attribute: 'userData' })
    t.match(Buffer.from(UserData?.Value ?? '', 'base64').toString(), '<hello> & "you"')
    const shutdown = await ec2.describeInstanceAttribute({ ...id, Attribute: 'instanceInitiatedShutdownBehavior' })
    t.equal(shutdown.InstanceInitiatedShutdownBehavior?.Value, 'terminate')
  }
  t.match(await launch('$Latest'), [{ InstanceType: 'm5.large' }, { InstanceType: 'm5.large' }])
  t.match(await launch('1'), [{ InstanceType: 'c5.large' }, { InstanceType: 'c5.large' }])
  await t.rejects(launch('7'), named('InvalidLaunchTemplateId.VersionNotFound'))
})

t.test('an image runs on processors of its own kind only', async t => {
  const image = { ImageId: 'ami-12c6146b' }
  await t.rejects(run({ ...image, InstanceType: 'c7g.large' }), named('InvalidParameterValue', 400))
  t.same(await all(), [])
  t.equal((await run({ ...image, InstanceType: 'c6i.large' })).length, 1)
})

t.test('new instances stay hidden for a while', async t => {
  front.newInstances.hiddenMs = 60_000
  const [id = ''] = await run()
  t.same(await all(), [])
  const InstanceIds = [id]
  await t.rejects(ec2.describeInstances({ InstanceIds }), named('InvalidInstanceID.NotFound', 400))
  await t.rejects(ec2.terminateInstances({ InstanceIds }), named('InvalidInstanceID.NotFound', 400))
  front.newInstances.hiddenMs = 200
  const [sooner = ''] = await run()
  await until(async () => (await all()).length === 1)
  t.match(await all(), [{ InstanceId: sooner }])
  t.equal((await ec2.terminateInstances({ InstanceIds: [sooner] })).TerminatingInstances?.length, 1)
})

t.test('instances come in pages', async t => {
  for (let count = 0; count < 6; count += 1) await run()
  const ids = new Set<string>()
  let pages = 0
  for await (const { Reservations = [] } of paginateDescribeInstances({ client: ec2, pageSize: 5 }, {})) {
    pages += 1
    for (const { Instances = [] } of Reservations) for (const { InstanceId = '' } of Instances) ids.add(InstanceId)
  }
  t.same([ids.size, pages], [6, 2])
})

t.test('the bucket for launches holds so many, and refills', async t => {
  front.launchBucket.turnOn({ size: 2, perSecond: 0 })
  await run()
  await run()
  await t.rejects(run(), named('RequestLimitExceeded', 503))
  await ec2.describeInstances({})
  front.launchBucket.turnOn({ size: 1, perSecond: 10 })
  await run()
  const mayRun = async (): Promise<boolean> =>
    await run().then(
      () => true,
      () => false,
    )
  await until(mayRun)
  front.launchBucket.turnOff()
  await Promise.all([run(), run(), run()])
})

t.test('prices come from fixtures', async t => {
  const asked = { InstanceTypes: ['c5.large' as const, 'm5.large' as const], ProductDescriptions: ['Linux/UNIX'] }
  const { SpotPriceHistory = [] } = await ec2.describeSpotPriceHistory(asked)
  t.equal(SpotPriceHistory.length, 6)
  t.match(SpotPriceHistory[1], { InstanceType: 'c5.large', AvailabilityZone: 'us-east-1b', SpotPrice: '0.028050' })
  front.prices.set({ type: 'c5.large', zone: 'us-east-1b', market: 'spot' }, 0.5)
  const zone = { ...asked, AvailabilityZone: 'us-east-1b', MaxResults: 1 }
  const first = await ec2.describeSpotPriceHistory(zone)
  t.match(first.SpotPriceHistory, [{ SpotPrice: '0.500000' }])
  const second = await ec2.describeSpotPriceHistory({ ...zone, NextToken: first.NextToken })
  t.match([second.SpotPriceHistory, second.NextToken], [[{ InstanceType: 'm5.large' }], ''])

  const filter = (Field: string, Value: string) => ({ Type: 'TERM_MATCH' as const, Field, Value })
  const Filters = [filter('instanceType', 'c7g.large'), filter('regionCode', 'eu-west-1'), filter('tenancy', 'Shared')]
  const { PriceList = [] } = await pricing.getProducts({ ServiceCode: 'AmazonEC2', Filters })
  t.equal(PriceList.length, 1)
  const { product, terms } = JSON.parse(String(PriceList[0]))
  t.match(product.attributes, { instanceType: 'c7g.large', vcpu: '2', regionCode: 'eu-west-1' })
  const [term] = Object.values<{ priceDimensions: object }>(terms.OnDemand)
  t.match(Object.values(term?.priceDimensions ?? {}), [{ unit: 'Hrs', pricePerUnit: { USD: '0.0725000000' } }])
  const other = { ServiceCode: 'AmazonEC2', Filters: [filter('operatingSystem', 'Windows')] }
  t.same((await pricing.getProducts(other)).PriceList, [])
})

t.test('faults befall the calls that they are ordered for', async t => {
  const describe = () => ec2.describeInstances({})
  const twice = front.fail({ action: 'DescribeInstances', times: 2, error: { status: 503, code: 'Unavailable' } })
  await t.rejects(describe(), named('Unavailable', 503))
  await ec2.describeSubnets({})
  await t.rejects(describe(), named('Unavailable', 503))
  await describe()
  t.equal(twice.hits, 2)

  front.fail({ action: '*', times: 1, error: 'reset' })
  await t.rejects(describe(), { code: 'ECONNRESET' })

  const hang = front.fail({ action: 'DescribeInstances', times: 1, error: 'hang' })
  const giveUp = new AbortController()
  const hung = t.rejects(ec2.describeInstances({}, { abortSignal: giveUp.signal }), { name: 'AbortError' })
  await until(() => hang.hits === 1)
  giveUp.abort()
  await hung

  const late = front.fail({ action: 'DescribeInstances', times: 1, error: { delayMs: 3000 } })
  const answered: string[] = []
  const described = describe().then(() => answered.push('late'))
  await until(() => late.hits === 1)
  await ec2.describeSubnets({}).then(() => answered.push('meanwhile'))
  await described
  t.same(answered, ['meanwhile', 'late'])

  front.fail({ action: 'RunInstances', times: 1, error: 'lose-reply' })
  await t.rejects(run({ ClientToken: 'lost' }), { code: 'ECONNRESET' })
  const [launchedMeanwhile] = await all()
  t.same(await run({ ClientToken: 'lost' }), [launchedMeanwhile?.InstanceId], 'the launch happened, once')

  front.fail({ action: 'RunInstances', when: ({ InstanceType }) => InstanceType === 'm5.large', error: 'reset' })
  await t.rejects(run({ InstanceType: 'm5.large' }))
  await run()
  front.clearFaults()
  await run({ InstanceType: 'm5.large' })

  const often = front.fail({
    action: 'DescribeSubnets',
    rate: 0.9,
    error: { status: 503, code: 'RequestLimitExceeded' },
  })
  const outcomes = await Promise.allSettled(Array.from({ length: 60 }, () => ec2.describeSubnets({})))
  t.ok(often.hits > 45 && often.hits < 60, `${often.hits} of 60`)
  t.equal(outcomes.filter(({ status }) => status === 'rejected').length, often.hits)

  front.fail({ action: 'GetProducts', error: { status: 400, code: 'ThrottlingException' } })
  await t.rejects(pricing.getProducts({ ServiceCode: 'AmazonEC2' }), named('ThrottlingException', 400))
})

t.test('every call is recorded with its outcome', async t => {
  await run({ ClientToken: 'seen' })
  front.capacity.set({}, 0)
  await t.rejects(run())
  front.fail({ action: 'RunInstances', error: 'lose-reply' })
  await t.rejects(run())
  front.fail({ action: 'DescribeSubnets', error: 'reset' })
  await t.rejects(ec2.describeSubnets({}))
  await pricing.getProducts({ ServiceCode: 'AmazonEC2' })
  const outcomes = front.calls.map(({ service, action, outcome }) => `${service} ${action} ${outcome}`)
  t.same(outcomes, [
    'ec2 RunInstances ok',
    'ec2 RunInstances InsufficientInstanceCapacity',
    'ec2 RunInstances lost-reply',
    'ec2 DescribeSubnets reset',
    'pricing GetProducts ok',
  ])
  t.match(front.calls[0]?.params, { ClientToken: 'seen', MaxCount: '1' })
  t.ok(Math.abs((front.calls[0]?.at ?? 0) - Date.now()) < 60_000)
})

t.test('with IAM on, a caller may do what its policies say, through the front too', async t => {
  await createTemplate()
  const UserName = 'node'
  await iam({ Action: 'CreateUser', UserName })
  const keys = await iam({ Action: 'CreateAccessKey', UserName })
  const read = (name: string): string => new RegExp(`<${name}>([^<]+)`).exec(keys)?.[1] ?? ''
  const credentials = { accessKeyId: read('AccessKeyId'), secretAccessKey: read('SecretAccessKey') }
  const admin = await moto.turnOnIam()
  front.know(credentials)
  const allow = async (...Action: string[]): Promise<string> => {
    const PolicyDocument = JSON.stringify({
      Version: '2012-10-17',
      Statement: { Effect: 'Allow', Action, Resource: '*' },
    })
    return await iam({ Action: 'PutUserPolicy', UserName, PolicyName: 'p', PolicyDocument }, admin)
  }
  const node = new EC2({ ...access, credentials })
  t.teardown(() => node.destroy())
  const fleet: CreateFleetCommandInput = {
    Type: 'instant',
    LaunchTemplateConfigs: [{ LaunchTemplateSpecification: { LaunchTemplateName: 'worker', Version: '1' } }],
    TargetCapacitySpecification: { TotalTargetCapacity: 2, DefaultTargetCapacityType: 'on-demand' },
  }
  await t.rejects(ec2.describeInstances({}), named('AuthFailure'), 'nobody knows these keys')
  await allow('ec2:CreateFleet', 'ec2:DescribeInstances')
  t.match((await node.createFleet(fleet)).Errors, [{ ErrorCode: 'UnauthorizedOperation' }], 'it may not launch')
  await allow('ec2:RunInstances', 'ec2:DescribeInstances')
  await t.rejects(node.createFleet(fleet), named('UnauthorizedOperation', 403))
  await allow('ec2:CreateFleet', 'ec2:RunInstances', 'ec2:DescribeInstances')
  t.equal((await node.createFleet(fleet)).Instances?.[0]?.InstanceIds?.length, 2)
  const spaced = { Filters: [{ Name: 'tag:a b', Values: ['c d'] }] }
  t.same((await node.describeInstances(spaced)).Reservations, [], 'moto writes spaces in another way')
  await node.runInstances({ ...one, LaunchTemplate: { LaunchTemplateName: 'worker' } })
  t.equal((await node.describeInstances({})).Reservations?.length, 2)
  await t.rejects(node.describeSubnets({}), named('UnauthorizedOperation'))
})

t.test('moto fails a test when it does not know a call, and where it is missing in CI', async t => {
  const ends: (() => unknown)[] = []
  const other = await startMoto({ teardown: (end: () => unknown) => ends.push(end) } as unknown as typeof t)
  const lost = new EC2({ ...access, endpoint: other.url })
  await t.rejects(lost.describeIdFormat({}))
  lost.destroy()
  const complaint = await Promise.all(ends.map(end => end())).catch(String)
  t.match(complaint, 'moto does not know what it was asked')
  t.match(complaint, 'Traceback')

  const { PATH = '', CI } = process.env
  Object.assign(process.env, { PATH: '/nowhere', CI: 'true' })
  t.teardown(() => {
    process.env.PATH = PATH
    if (CI === undefined) delete process.env.CI
    else process.env.CI = CI
  })
  await t.rejects(startMoto(t), /pip install 'moto\[server\]'/)
})
