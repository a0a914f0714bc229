/** The EC2 provider against the emulator: the contract, and all that EC2 does which a process on this machine does not. */
import { randomUUID } from 'node:crypto'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import type { Ec2Provider } from '../../src/fleet/providers/ec2/ec2-provider.ts'
import { openEc2Provider } from '../../src/fleet/providers/ec2/open-ec2-provider.ts'
import { LaunchError, type LaunchFailure } from '../../src/fleet/providers/provider.ts'
import { readSettings } from '../../src/settings.ts'
import { testProviderContract } from '../contracts/provider-contract.ts'
import { startFront } from '../support/aws/front.ts'
import { startMoto } from '../support/aws/moto.ts'
import { deployment, type Ec2Options, openEc2Parts, region } from '../support/ec2-parts.ts'
import { until } from '../support/until.ts'

const moto = await startMoto(t)
const front = await startFront(t, moto)

/** A fresh account with a template, and a provider on it. */
async function setUp(t: Test, options: Ec2Options = {}) {
  await front.reset()
  const parts = await openEc2Parts(t, front)
  const templateId = await parts.createTemplate()
  front.calls.length = 0
  const subnets = parts.subnets
  return { ...parts, templateId, provider: await parts.open(options), subnets }
}

const request = (count: number, decisionId: string = randomUUID()) => ({
  ...{ pool: 'default', count, decisionId, slots: 2 },
})
const callsOf = (...actions: string[]) => front.calls.filter(({ action }) => actions.includes(action))
const launchCalls = () => callsOf('RunInstances', 'CreateFleet')
const marketsOf = (instances: readonly { market?: string }[]) => ({
  spot: instances.filter(({ market }) => market === 'spot').length,
  onDemand: instances.filter(({ market }) => market === 'on-demand').length,
})
const idsOf = (instances: readonly { id: string }[]) => instances.map(({ id }) => id).sort()
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

t.test('what was launched is listed while EC2 hides it, and gone once EC2 says so', async t => {
  const { provider, admin, open } = await setUp(t)
  front.newInstances.hiddenMs = 60_000
  const [hidden] = await provider.launch(request(1))
  t.same(idsOf(await provider.list()), [hidden?.id], 'hidden')
  front.newInstances.clear()
  await admin.terminateInstances({ InstanceIds: [hidden?.id ?? ''] })
  t.same(await provider.list(), [], 'it ended before it was ever shown')

  let now = Date.now()
  const patient = await open({ clock: () => now })
  front.newInstances.hiddenMs = 60_000
  await patient.launch(request(1))
  now += 119_000
  t.equal((await patient.list()).length, 1)
  now += 2000
  t.same(await patient.list(), [], 'not for ever')
})

t.test('one that EC2 leaves out for a while is there all the same; one that shows again is listed again', async t => {
  let now = Date.now()
  const { provider, admin } = await setUp(t, { clock: () => now })
  const [instance] = await provider.launch(request(1))
  const ids = [instance?.id]
  t.same(idsOf(await provider.list()), ids, 'shown')
  front.newInstances.hides = () => true
  now += 600_000
  t.same(idsOf(await provider.list()), ids, 'left out, however long ago the last list was')
  now += 119_000
  t.same(idsOf(await provider.list()), ids, 'for two minutes')
  now += 2000
  t.same(await provider.list(), [], 'not for ever')
  front.newInstances.clear()
  now += 1
  t.same(idsOf(await provider.list()), ids, 'it was there all the time')

  await admin.deleteTags({ Resources: [instance?.id ?? ''], Tags: [{ Key: 'muster:deployment' }] })
  now += 1
  t.same(await provider.list(), [], 'one whose tag was taken off is not ours any more')
  await admin.createTags({
    Resources: [instance?.id ?? ''],
    Tags: [{ Key: 'muster:deployment', Value: deployment }],
  })
  now += 1
  t.same(idsOf(await provider.list()), ids)

  front.newInstances.hides = () => true
  now += 1_900_000
  t.same(await provider.list(), [], 'so long ago that it may have ended, and EC2 does not tell any more')
})

t.test('only workers of the deployment are listed, and EC2 is asked no more often than needed', async t => {
  const { provider, admin, open } = await setUp(t)
  const tagged = (tags: Record<string, string>) => [
    { ResourceType: 'instance' as const, Tags: Object.entries(tags).map(([Key, Value]) => ({ Key, Value })) },
  ]
  const start = async (tags: Record<string, string>) =>
    await admin.runInstances({ ImageId: 'ami-12c6146b', MinCount: 1, MaxCount: 1, TagSpecifications: tagged(tags) })
  await start({ 'muster:deployment': deployment, Name: 'a node' })
  await start({ 'muster:deployment': 'another', 'muster:pool': 'default' })
  await start({ 'muster:deployment': deployment, 'muster:pool': 'old', 'muster:slots': '3' })
  t.match(await provider.list(), [{ pool: 'old', slots: 3, decisionId: '', state: 'running' }])

  const cached = await open({ listCacheMs: 60_000 })
  front.calls.length = 0
  await Promise.all([cached.list(), cached.list()])
  await cached.list()
  t.equal(callsOf('DescribeInstances').length, 1)
  const [instance] = await cached.launch(request(1))
  t.equal((await cached.list()).length, 2, 'a launch is seen at once')
  await cached.terminate([instance?.id ?? ''])
  t.equal((await cached.list()).length, 1, 'and an end, too')
})

t.test('termination goes on past ids that EC2 does not know, and names an end at once', async t => {
  const { provider } = await setUp(t)
  const launched = await provider.launch(request(5))
  const unknown = ['i-00000000000000001', 'i-00000000000000002']
  const ids = idsOf(launched)
  await provider.terminate([ids[0] ?? '', unknown[0] ?? '', ...ids.slice(1, 4), unknown[1] ?? '', 'local-1-2'])
  t.same(idsOf(await provider.list()), [ids[4]])
  front.fail({ action: 'TerminateInstances', times: 2, error: 'lose-reply' })
  await provider.terminate([ids[4] ?? ''], { force: true })
  t.same(await provider.list(), [])
  t.equal(callsOf('TerminateInstances').at(-1)?.params.SkipOsShutdown, 'true')
})

t.test('prices come after a while, and nobody waits for them', async t => {
  const instanceTypes = ['c5.large', 'c6i.large']
  const { provider } = await setUp(t, { placement: { instanceTypes, spotPercent: 50 } })
  await provider.launch(request(4))
  const priced = async (provider: Ec2Provider) => (await provider.list()).every(({ hourlyUsd }) => (hourlyUsd ?? 0) > 0)
  await until(() => priced(provider))
  for (const { market, instanceType, zone, hourlyUsd } of await provider.list()) {
    if (market === undefined || instanceType === undefined || zone === undefined) throw new Error('incomplete')
    t.equal(hourlyUsd, front.prices.priceOf({ type: instanceType, zone, market }))
  }
  const calls = callsOf('GetProducts', 'DescribeSpotPriceHistory').length
  await provider.list()
  t.equal(callsOf('GetProducts', 'DescribeSpotPriceHistory').length, calls, 'kept')

  const blind = await setUp(t)
  front.fail({ action: 'GetProducts', error: { status: 403, code: 'AccessDeniedException' } })
  await blind.provider.launch(request(1))
  await blind.provider.list()
  await until(() => callsOf('GetProducts').length > 0)
  t.match(await blind.provider.list(), [{ hourlyUsd: undefined }], 'unknown stays unknown')
})

t.test('the console of an instance explains its boot', async t => {
  const { provider } = await setUp(t)
  const [instance] = await provider.launch(request(1))
  const id = instance?.id ?? ''
  t.equal(await provider.explainBoot(id), undefined, 'it said nothing')
  front.machines.hasConsole(id, () => `${'x'.repeat(5000)}the end`)
  t.match(await provider.explainBoot(id), /^x+the end$/)
  t.equal((await provider.explainBoot(id))?.length, 4096)
  front.fail({ action: 'GetConsoleOutput', when: ({ Latest }) => Latest === 'true', error: unsupported })
  t.match(await provider.explainBoot(id), /the end$/, 'types that do not show the latest')
  t.equal(await provider.explainBoot('i-00000000000000001'), undefined, 'forgotten')
})
const unsupported = { status: 400, code: 'UnsupportedOperation' }

t.test('volumes that workers left are swept after the grace; others are not touched', async t => {
  const { provider, admin } = await setUp(t)
  const create = async (tags: Record<string, string>) => {
    const Tags = Object.entries(tags).map(([Key, Value]) => ({ Key, Value }))
    const TagSpecifications = [{ ResourceType: 'volume' as const, Tags }]
    const { VolumeId = '' } = await admin.createVolume({ AvailabilityZone: `${region}a`, Size: 1, TagSpecifications })
    return VolumeId
  }
  const ours = await create({ 'muster:deployment': deployment, 'muster:pool': 'default' })
  await create({ 'muster:deployment': deployment })
  await create({ 'muster:deployment': 'another', 'muster:pool': 'default' })
  await provider.launch(request(1))
  t.same(await provider.sweepLeftovers(Date.now()), [], 'young')
  t.same(await provider.sweepLeftovers(Date.now() + 601_000), [ours])
  t.same(await provider.sweepLeftovers(Date.now() + 601_000), [])
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
