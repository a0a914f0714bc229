/** The instances of the EC2 provider against the emulator: how they are listed, ended, priced and explained, and what they leave. */
import t, { type Test } from 'tap'
import type { Ec2Provider } from '../../src/fleet/providers/ec2/ec2-provider.ts'
import { startFront } from '../support/aws/front.ts'
import { startMoto } from '../support/aws/moto.ts'
import { deployment, type Ec2Options, idsOf, region, request, setUpEc2 } from '../support/ec2-parts.ts'
import { until } from '../support/until.ts'

const moto = await startMoto(t)
const front = await startFront(t, moto)
const setUp = (t: Test, options: Ec2Options = {}) => setUpEc2(t, front, options)
const callsOf = (...actions: string[]) => front.calls.filter(({ action }) => actions.includes(action))

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
