/**
 * The EC2 provider against the emulator: the contract, and all that a launch meets at EC2 and not on this machine. What is
 * there afterwards: ec2-instances.test.ts.
 */
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { openEc2Provider } from '../../src/fleet/providers/ec2/open-ec2-provider.ts'
import { LaunchError, type LaunchFailure } from '../../src/fleet/providers/provider.ts'
import { readSettings } from '../../src/settings/settings.ts'
import { testProviderContract } from '../contracts/provider-contract.ts'
import { startFront } from '../support/aws/front.ts'
import { startMoto } from '../support/aws/moto.ts'
import { deployment, type Ec2Options, idsOf, openEc2Parts, region, request, setUpEc2 } from '../support/ec2-parts.ts'

const moto = await startMoto(t)
const front = await startFront(t, moto)

const setUp = (t: Test, options: Ec2Options = {}) => setUpEc2(t, front, options)
const callsOf = (...actions: string[]) => front.calls.filter(({ action }) => actions.includes(action))
const launchCalls = () => callsOf('RunInstances', 'CreateFleet')
const marketsOf = (instances: readonly { market?: string }[]) => ({
  spot: instances.filter(({ market }) => market === 'spot').length,
  onDemand: instances.filter(({ market }) => market === 'on-demand').length,
})
async function failuresOf(launch: Promise<unknown>): Promise<readonly LaunchFailure[]> {
  const error = await launch.then(
    () => undefined,
    error => error,
  )
  if (!(error instanceof LaunchError)) throw new Error(`no LaunchError, but ${error}`)
  return error.failures
}
/** What there is according to EC2, whoever asks. */
async function machines({ admin }: Awaited<ReturnType<typeof setUp>>) {
  const { Reservations = [] } = await admin.describeInstances({})
  return Reservations.flatMap(({ Instances = [] }) => Instances)
}

testProviderContract(
  t,
  'ec2',
  async t => {
    const { provider, admin } = await setUp(t)
    return { provider, crash: async id => void (await admin.terminateInstances({ InstanceIds: [id] })) }
  },
  { tellsOfEnds: false },
)

t.test('both markets, several types and zones: one CreateFleet; the share of Spot is that of the pool', async t => {
  const instanceTypes = ['c5.large', 'c6i.large']
  const parts = await setUp(t, { placement: { instanceTypes, spotPercent: 50 } })
  const provider = await parts.open({ subnets: parts.subnets, placement: { instanceTypes, spotPercent: 50 } })
  const launched = await provider.launch(request(5))
  t.same(marketsOf(launched), { spot: 3, onDemand: 2 })
  t.same(marketsOf(await provider.launch(request(1))), { spot: 0, onDemand: 1 }, 'half of six is three')
  t.equal(callsOf('CreateFleet').length, 2)
  t.equal(callsOf('RunInstances').length, 0)
  t.match(callsOf('CreateFleet')[0]?.params, {
    Type: 'instant',
    'SpotOptions.AllocationStrategy': 'price-capacity-optimized',
    'LaunchTemplateConfigs.1.Overrides.6.InstanceType': 'c6i.large',
    'LaunchTemplateConfigs.1.Overrides.6.SubnetId': parts.subnets[2],
  })
  const listed = await provider.list()
  t.same(idsOf(listed).length, 6)
  for (const instance of listed) {
    t.ok(instanceTypes.includes(instance.instanceType ?? ''))
    t.match(instance.zone, /^us-east-1[abc]$/)
  }
  t.same(marketsOf(listed), { spot: 3, onDemand: 3 })
})

t.test('what is launched ends with itself, speaks IMDSv2 only, runs the user data, and says whose it is', async t => {
  const parts = await setUp(t, { userData: '#!/bin/bash\necho hello\n' })
  const [viaRun] = await parts.provider.launch(request(1, 'one'))
  t.equal(callsOf('RunInstances').length, 1, 'one type, one place, one market')
  const mixed = await parts.open({ placement: { spotPercent: 50 }, userData: '#!/bin/bash\necho hello\n' })
  const [viaFleet] = await mixed.launch(request(2, 'two'))
  t.equal(callsOf('CreateFleet').length, 1)
  for (const id of [viaRun?.id ?? '', viaFleet?.id ?? '']) {
    const { Reservations } = await parts.admin.describeInstances({ InstanceIds: [id] })
    const instance = Reservations?.[0]?.Instances?.[0]
    t.match(instance?.MetadataOptions, { HttpTokens: 'required', InstanceMetadataTags: 'enabled' })
    const tags = Object.fromEntries(instance?.Tags?.map(({ Key, Value }) => [Key, Value]) ?? [])
    t.match(tags, {
      Name: 'test-worker-default',
      'muster:deployment': deployment,
      'muster:pool': 'default',
      'muster:decision': id === viaRun?.id ? 'one' : 'two',
      'muster:slots': '2',
    })
    const attribute = async (Attribute: 'userData' | 'instanceInitiatedShutdownBehavior') =>
      await parts.admin.describeInstanceAttribute({ InstanceId: id, Attribute })
    const { UserData } = await attribute('userData')
    t.equal(Buffer.from(UserData?.Value ?? '', 'base64').toString(), '#!/bin/bash\necho hello\n')
    const { InstanceInitiatedShutdownBehavior } = await attribute('instanceInitiatedShutdownBehavior')
    t.equal(InstanceInitiatedShutdownBehavior?.Value, 'terminate')
  }
  const volumes = callsOf('RunInstances')[0]?.params ?? {}
  t.equal(volumes['TagSpecification.2.ResourceType'], 'volume')
})

t.test(
  'of a template that CloudFormation owns, the next launch uses the latest version that no node derived',
  async t => {
    const parts = await setUp(t)
    const provider = await parts.open({ templateVersion: 'latest' })
    const imageOf = async (id = '') => (await machines(parts)).find(({ InstanceId }) => InstanceId === id)?.ImageId
    const [first] = await provider.launch(request(1))
    t.equal(await imageOf(first?.id), 'ami-12c6146b')
    // As an update of the stack does it: a whole new version, after the one that the node derived, and not the default.
    const types = { arm: 'c7g.large', intel: 'c6i.large' } as const
    const { Images = [] } = await parts.admin.describeImages({ Filters: [{ Name: 'architecture', Values: ['arm64'] }] })
    const ImageId = Images[0]?.ImageId ?? ''
    await parts.admin.createLaunchTemplateVersion({
      LaunchTemplateName: 'workers',
      LaunchTemplateData: { ImageId, InstanceType: types.arm },
    })
    const [second] = await (
      await parts.open({ templateVersion: 'latest', placement: { instanceTypes: [types.arm] } })
    ).launch(request(1))
    t.equal(await imageOf(second?.id), ImageId)
    t.equal(second?.instanceType, types.arm)
    const old = await parts.open({ placement: { instanceTypes: [types.arm] } })
    const failures = await failuresOf(old.launch(request(1)))
    t.match(failures, [{ code: 'InvalidParameterValue', message: /architecture/ }], 'the default one stays what it was')
  },
)

t.test('a version of the launch template is made once, for all nodes, and only when something is missing', async t => {
  const parts = await setUp(t)
  const other = await parts.open()
  await Promise.all([parts.provider.launch(request(1)), other.launch(request(1))])
  await parts.provider.launch(request(1))
  await (await parts.open()).launch(request(1))
  const versions = async (LaunchTemplateName: string) =>
    (await parts.admin.describeLaunchTemplateVersions({ LaunchTemplateName })).LaunchTemplateVersions ?? []
  t.equal((await versions('workers')).length, 2)
  t.match(
    (await versions('workers')).find(({ VersionNumber }) => VersionNumber === 2),
    { VersionDescription: /^muster [0-9a-f]{16}$/, DefaultVersion: false, LaunchTemplateData: { ImageId: /ami/ } },
  )
  await (await parts.open({ userData: '#!/bin/bash\nfalse\n' })).launch(request(1))
  t.equal((await versions('workers')).length, 3, 'other content, another version')

  const own = Buffer.from('#!/bin/bash\necho mine\n').toString('base64')
  await parts.createTemplate({ UserData: own }, 'mine')
  await (await parts.open({ templateName: 'mine' })).launch(request(1))
  t.equal((await versions('mine')).find(v => v.VersionNumber === 2)?.LaunchTemplateData?.UserData, own, 'kept')
  const MetadataOptions = { HttpTokens: 'required', InstanceMetadataTags: 'enabled' } as const
  const whole = { UserData: own, InstanceInitiatedShutdownBehavior: 'terminate', MetadataOptions } as const
  await parts.createTemplate(whole, 'whole')
  await (await parts.open({ templateName: 'whole' })).launch(request(1))
  t.equal((await versions('whole')).length, 1)

  await parts.createTemplate({ InstanceMarketOptions: { MarketType: 'spot' } }, 'spot')
  const [failure] = await failuresOf((await parts.open({ templateName: 'spot' })).launch(request(1)))
  t.match(failure?.message, /sets market options/)
  const [missing] = await failuresOf((await parts.open({ templateName: 'none' })).launch(request(1)))
  t.match(missing, { code: /NotFound/ })
})

t.test('what Spot has no room for is asked for On-Demand, by one more call of the decision', async t => {
  const placement = { instanceTypes: ['c5.large', 'c6i.large'], spotPercent: 75 }
  const { provider } = await setUp(t, { placement })
  front.capacity.set({ market: 'spot' }, 1)
  t.same(marketsOf(await provider.launch(request(4))), { spot: 1, onDemand: 3 })
  const [first, second, ...others] = launchCalls()
  t.equal(others.length, 0)
  t.not(first?.params.ClientToken, second?.params.ClientToken)
  t.match(second?.params, { 'TargetCapacitySpecification.OnDemandTargetCapacity': '2' })
  front.calls.length = 0
  t.same(marketsOf(await provider.launch(request(4))), { spot: 0, onDemand: 4 }, 'Spot is known to be empty')
  t.equal(launchCalls().length, 1)

  const single = await setUp(t, { placement: { spotPercent: 100 } })
  front.capacity.set({ market: 'spot' }, 0, { code: 'MaxSpotInstanceCountExceeded' })
  t.same(marketsOf(await single.provider.launch(request(2))), { spot: 0, onDemand: 2 })
  t.equal(callsOf('RunInstances').length, 2, 'RunInstances falls back, too')
})

t.test(
  'no room in every pool but one: that one is found, remembered, and the others are tried again later',
  async t => {
    const instanceTypes = ['c5.large', 'c6i.large']
    const { open, subnets } = await setUp(t)
    let now = Date.now()
    const provider = await open({ subnets, placement: { instanceTypes, spotPercent: 50 }, clock: () => now })
    front.capacity.set({}, 0)
    front.capacity.set({ type: 'c6i.large', zone: `${region}b`, market: 'on-demand' }, 100)
    const launched = await provider.launch(request(6))
    t.equal(launched.length, 6)
    for (const instance of launched) t.match(instance, { instanceType: 'c6i.large', market: 'on-demand' })
    front.calls.length = 0
    t.equal((await provider.launch(request(2))).length, 2)
    t.match(launchCalls(), [{ outcome: 'ok' }], 'by the first call')
    const { params = {} } = launchCalls()[0] ?? {}
    t.equal(params['TargetCapacitySpecification.OnDemandTargetCapacity'], '2')
    t.notOk(Object.values(params).includes('c5.large'), 'pools without room are not asked')
    t.ok(Object.values(params).includes(subnets[1] ?? ''))

    front.capacity.set({ type: 'c6i.large', zone: `${region}b`, market: 'on-demand' }, 0)
    const failures = await failuresOf(provider.launch(request(1)))
    t.ok(
      failures.length > 0 &&
        failures.every(({ capacity, code }) => capacity && code === 'InsufficientInstanceCapacity'),
    )
    front.calls.length = 0
    await failuresOf(provider.launch(request(2)))
    t.match(
      launchCalls()[0]?.params,
      { 'LaunchTemplateConfigs.1.Overrides.6.InstanceType': 'c6i.large' },
      'none is left: all are asked',
    )
    front.capacity.clear()
    now += 300_001
    t.same(marketsOf(await provider.launch(request(2))), { spot: 2, onDemand: 0 }, 'the share is made up for')
  },
)

t.test('throttled calls are repeated under the same token after a pause; refused ones are not', async t => {
  const { provider } = await setUp(t)
  front.fail({ action: 'RunInstances', times: 3, error: { status: 503, code: 'RequestLimitExceeded' } })
  t.equal((await provider.launch(request(1))).length, 1)
  const calls = callsOf('RunInstances')
  t.equal(calls.length, 4)
  t.equal(new Set(calls.map(({ params }) => params.ClientToken)).size, 1)
  const gaps = calls.slice(1).map(({ at }, n) => at - (calls[n]?.at ?? 0))
  t.ok(
    gaps.every(gap => gap >= 400),
    `EC2's bucket is empty: no more than two a second (${gaps})`,
  )

  front.fail({ action: 'RunInstances', error: { status: 403, code: 'UnauthorizedOperation' } })
  front.calls.length = 0
  t.match(await failuresOf(provider.launch(request(1))), [{ code: 'UnauthorizedOperation', throttled: false }])
  t.equal(callsOf('RunInstances').length, 1)
  front.clearFaults()

  front.fail({ action: 'DescribeInstances', rate: 0.5, error: { status: 503, code: 'RequestLimitExceeded' } })
  for (let n = 0; n < 5; n += 1) t.equal((await provider.list()).length, 1)
})

t.test('the own bucket keeps a burst of launches within the limits of EC2', async t => {
  const { provider } = await setUp(t)
  front.launchBucket.turnOn()
  const launched = await Promise.all(Array.from({ length: 8 }, async () => await provider.launch(request(1))))
  t.equal(new Set(launched.flat().map(({ id }) => id)).size, 8)
  t.ok(callsOf('RunInstances').length <= 9, 'hardly one was refused')
})

t.test('a lost reply launches once', async t => {
  for (const [name, placement] of [
    ['RunInstances', {}],
    ['CreateFleet', { instanceTypes: ['c5.large', 'c6i.large'], spotPercent: 50 }],
  ] as const) {
    for (const error of ['lose-reply', 'reset', { status: 500, code: 'InternalError' }] as const) {
      const parts = await setUp(t, { placement })
      front.fail({ action: name, times: 2, error })
      const launched = await parts.provider.launch(request(2))
      t.equal(launched.length, 2, `${name}: ${JSON.stringify(error)}`)
      t.same((await machines(parts)).map(({ InstanceId }) => InstanceId).sort(), idsOf(launched))
      t.same(idsOf(await parts.provider.list()), idsOf(launched))
    }
  }
})

t.test('a lost reply launches once, also when EC2 hides what it launched', async t => {
  const parts = await setUp(t, { placement: { instanceTypes: ['c5.large', 'c6i.large'] } })
  front.newInstances.hiddenMs = 60_000
  front.fail({ action: 'CreateFleet', times: 1, error: 'lose-reply' })
  t.equal((await parts.provider.launch(request(3))).length, 3)
  front.newInstances.clear()
  t.equal((await machines(parts)).length, 3)
  const tokens = callsOf('CreateFleet').map(({ params }) => params.ClientToken)
  t.equal(tokens.length, 2)
  t.equal(tokens[0], tokens[1])
})

t.test('a lost reply hides no shortage: the rest is neither forgotten nor launched twice', async t => {
  const parts = await setUp(t, { placement: { instanceTypes: ['c5.large', 'c6i.large'], spotPercent: 100 } })
  front.capacity.set({ market: 'spot' }, 1)
  front.fail({ action: 'CreateFleet', times: 1, error: 'lose-reply' })
  t.same(marketsOf(await parts.provider.launch(request(4))), { spot: 1, onDemand: 3 })
  t.equal((await machines(parts)).length, 4)
})

t.test('a second node with the same decision launches nothing, whatever it knows', async t => {
  const placement = { instanceTypes: ['c5.large', 'c6i.large'], spotPercent: 50 }
  const parts = await setUp(t, { placement })
  const other = await parts.open({ placement })
  const [one, two] = await Promise.all([parts.provider.launch(request(4, 'd1')), other.launch(request(4, 'd1'))])
  t.same(idsOf(one), idsOf(two))
  t.equal((await machines(parts)).length, 4, 'at the same time')
  const third = await parts.open({ placement })
  front.calls.length = 0
  t.same(idsOf(await third.launch(request(4, 'd1'))), idsOf(one))
  t.equal(launchCalls().length, 0, 'later: the tag shows it')

  // Each look shows the half that the one before left out.
  const halfOf = (id: string): number => idsOf(one).indexOf(id) % 2
  front.newInstances.hides = id => halfOf(id) === callsOf('DescribeInstances').length % 2
  t.same(idsOf(await (await parts.open({ placement })).launch(request(4, 'd1'))), idsOf(one), 'some show later')
  t.equal(launchCalls().length, 0)

  // Its memory differs, so does what it asks for; and the tags do not show before it has asked.
  front.newInstances.hides = () => launchCalls().at(-1)?.outcome !== 'IdempotentParameterMismatch'
  const first = await parts.provider.launch(request(2, 'd2'))
  const differs = await parts.open({ placement: { ...placement, spotPercent: 0 } })
  t.same(idsOf(await differs.launch(request(2, 'd2'))), idsOf(first), 'it finds what the other one launched')
  t.match(launchCalls().at(-1), { outcome: 'IdempotentParameterMismatch' })
  front.newInstances.clear()
  t.equal((await machines(parts)).length, 6)
  await parts.admin.terminateInstances({ InstanceIds: idsOf(first) })
  t.same(
    idsOf(await (await parts.open({ placement })).launch(request(2, 'd2'))),
    idsOf(first),
    'also when they are gone',
  )
})

t.test('a node with such a fleet starts, unless what it needs is refused', async t => {
  await setUp(t)
  const settings = (more: Record<string, string> = {}) =>
    readSettings({
      ...{ MUSTER_CONFIG_FILE: '/nonexistent', MUSTER_FLEET: 'ec2', AWS_REGION: region, AWS_ENDPOINT_URL: front.url },
      ...{ MUSTER_EC2_LAUNCH_TEMPLATE: 'workers', MUSTER_DEPLOYMENT: deployment, ...more },
    })
  const provider = await openEc2Provider(settings(), pino({ level: 'silent' }))
  const [instance] = await provider.launch(request(1))
  t.match(await provider.list(), [{ id: instance?.id }])
  await provider.close({ stopInstances: false })
  const { UserData } = await (await openEc2Parts(t, front)).admin.describeInstanceAttribute({
    ...{ InstanceId: instance?.id, Attribute: 'userData' },
  })
  t.match(Buffer.from(UserData?.Value ?? '', 'base64').toString(), /^node_urls='http:\/\/127\.0\.0\.1:5000'$/m)

  const absent = openEc2Provider(settings({ MUSTER_EC2_LAUNCH_TEMPLATE: 'absent' }), pino({ level: 'silent' }))
  await t.rejects(absent, { name: 'StartupError', message: /launch template absent, region us-east-1.*NotFound/ })
  front.fail({ action: '*', error: 'reset' })
  const blind = await openEc2Provider(settings(), pino({ level: 'silent' }))
  t.match(await failuresOf(blind.launch(request(1))), [{ throttled: false }], 'AWS is away: the node is there')
  await blind.close({ stopInstances: false })
})

t.test('a call that never returns is given up, a launch in its time, and close waits for nobody', async t => {
  const provider = await (await setUp(t)).open({ pace: { callTimeoutMs: 2000, launchMs: 8000 } })
  const hung = front.fail({ action: '*', times: 3, error: 'hang' })
  t.same(await provider.list(), [], 'asked again')
  t.equal(hung.hits, 3, 'three were given up')
  front.fail({ action: 'RunInstances', times: 1, error: 'hang' })
  t.equal((await provider.launch(request(1))).length, 1)

  for (const error of ['hang', { status: 503, code: 'RequestLimitExceeded' }] as const) {
    front.clearFaults()
    front.fail({ action: 'RunInstances', error })
    const [failure] = await failuresOf(provider.launch(request(1)))
    t.equal(failure?.throttled, error !== 'hang')
  }
  await provider.close()
  await t.rejects(provider.launch(request(1)), { message: 'The EC2 provider is closed' })
})
