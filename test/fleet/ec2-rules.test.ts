/** What the EC2 provider decides without asking anybody: markets and offerings, tokens, memory, and the settings it needs. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { classify, isThrottledCode } from '../../src/fleet/providers/ec2/aws-errors.ts'
import { planLaunch } from '../../src/fleet/providers/ec2/launch-request.ts'
import { clientToken } from '../../src/fleet/providers/ec2/tags.ts'
import { backoffMs, TokenBucket } from '../../src/fleet/providers/ec2/throttling.ts'
import { type Offering, UnavailableOfferings } from '../../src/fleet/providers/ec2/unavailable-offerings.ts'
import { readSettings } from '../../src/settings/settings.ts'

const a: Offering = { instanceType: 'c5.large', subnetId: 'subnet-a' }
const b: Offering = { instanceType: 'c5.large', subnetId: 'subnet-b' }
const c: Offering = { instanceType: 'm5.large', subnetId: 'subnet-a' }
const offerings = [a, b, c]

t.test('markets and offerings', async t => {
  const plan = (given: object) =>
    planLaunch({
      ...{ count: 4, spotPercent: 50, present: { spot: 0, 'on-demand': 0 }, offerings },
      ...{ usable: { spot: offerings, 'on-demand': offerings }, ...given },
    })
  const table: [string, object, ReturnType<typeof plan>][] = [
    ['both in one call', {}, [{ spot: 2, onDemand: 2, offerings }]],
    ['none of Spot', { spotPercent: 0 }, [{ spot: 0, onDemand: 4, offerings }]],
    ['all Spot', { spotPercent: 100 }, [{ spot: 4, onDemand: 0, offerings }]],
    ['a single one, half', { count: 1 }, [{ spot: 1, onDemand: 0, offerings }]],
    ['half is there', { count: 1, present: { spot: 1, 'on-demand': 0 } }, [{ spot: 0, onDemand: 1, offerings }]],
    ['nothing desired', { count: 0 }, []],
    [
      'no room in some offerings for Spot: a call for each market',
      { usable: { spot: [b], 'on-demand': offerings } },
      [
        { spot: 2, onDemand: 0, offerings: [b] },
        { spot: 0, onDemand: 2, offerings },
      ],
    ],
    ['no room for Spot at all', { usable: { spot: [], 'on-demand': [c] } }, [{ spot: 0, onDemand: 4, offerings: [c] }]],
    [
      'no room anywhere: all are asked',
      { usable: { spot: [], 'on-demand': [] } },
      [{ spot: 2, onDemand: 2, offerings }],
    ],
  ]
  for (const [name, given, expected] of table) t.same(plan(given), expected, name)

  const natural = fc.nat({ max: 50 })
  const some = fc.subarray(offerings)
  const given = fc.tuple(natural, fc.nat({ max: 100 }), natural, natural, some, some)
  fc.assert(
    fc.property(given, ([count, spotPercent, spot, onDemand, usableSpot, usableOnDemand]) => {
      const usable = { spot: usableSpot, 'on-demand': usableOnDemand }
      const asks = plan({ count, spotPercent, present: { spot, 'on-demand': onDemand }, usable })
      const sum = asks.reduce((total, ask) => total + ask.spot + ask.onDemand, 0)
      return (
        sum === count && asks.length <= 2 && asks.every(ask => ask.offerings.length > 0 && ask.spot + ask.onDemand > 0)
      )
    }),
  )
})

t.test('no room is remembered for what it is about, and not for ever', async t => {
  const table: [string, Offering[], Offering[]][] = [
    ['InsufficientInstanceCapacity', [b, c], offerings],
    ['VcpuLimitExceeded', [c], offerings],
    ['InsufficientFreeAddressesInSubnet', [b], [b]],
    ['MaxSpotInstanceCountExceeded', [], offerings],
    ['UnauthorizedOperation', offerings, offerings],
  ]
  for (const [code, spot, onDemand] of table) {
    const memory = new UnavailableOfferings(1000)
    const failure = { code, message: '', throttled: false, capacity: true, market: 'spot' } as const
    memory.remember({ ...failure, instanceType: 'c5.large', subnetId: 'subnet-a' }, 5000)
    t.same(memory.usable(offerings, 'spot', 5999), spot, `${code}: Spot`)
    t.same(memory.usable(offerings, 'on-demand', 5999), onDemand, `${code}: On-Demand`)
    t.same(memory.usable(offerings, 'spot', 6000), offerings, `${code}: later`)
  }
})

t.test('the bucket gives five, then two a second, and refuses who would wait too long', async t => {
  let now = 0
  const bucket = new TokenBucket(5, 2, () => now)
  for (let n = 0; n < 5; n += 1) t.equal(bucket.take(1, 0), 0)
  t.equal(bucket.take(1, 499), undefined, 'nothing is taken')
  t.equal(bucket.take(1, 500), 500)
  t.equal(bucket.take(1, 1000), 1000, 'behind the one before')
  now += 1000
  t.equal(bucket.take(1, 1000), 500)
  now += 60_000
  t.equal(bucket.take(5, 0), 0, 'no more than it holds')
  now += 60_000
  bucket.empty()
  t.equal(bucket.take(1, 1000), 500)
})

t.test('waits grow, differ, and have a limit', async t => {
  const backoff = { firstMs: 100, maxMs: 1000 }
  t.same(
    [1, 2, 3, 4, 5].map(tries => backoffMs(backoff, tries, 1)),
    [100, 200, 400, 800, 1000],
  )
  t.equal(backoffMs(backoff, 5, 0), 100)
})

t.test('an error of AWS says whether it happened', async t => {
  const error = (name: string, httpStatusCode?: number) =>
    Object.assign(new Error(name), { name, $metadata: { httpStatusCode } })
  t.equal(classify(error('RequestLimitExceeded', 503)), 'throttled')
  for (const code of ['EC2ThrottledException', 'SlowDown', 'ThrottlingException'])
    t.equal(classify(error(code, 503)), 'throttled', code)
  t.equal(classify(error('SomethingElse', 429)), 'throttled', 'by the status')
  t.equal(classify(Object.assign(error('SomethingElse', 400), { $retryable: { throttling: true } })), 'throttled')
  t.ok(isThrottledCode('EC2ThrottledException'), 'a code in a reply that came')
  t.notOk(isThrottledCode('InsufficientInstanceCapacity'))
  t.equal(classify(error('InsufficientInstanceCapacity', 500)), 'capacity')
  t.equal(classify(error('IdempotentParameterMismatch', 400)), 'mismatch')
  t.equal(classify(error('InternalError', 500)), 'unknown')
  t.equal(classify(error('TimeoutError')), 'unknown')
  t.equal(classify(new Error('socket hang up')), 'unknown')
  t.equal(classify(error('UnauthorizedOperation', 403)), 'refused')
})

t.test('tokens tell words apart, and fit', async t => {
  t.equal(clientToken('a', 'b').length, 64)
  t.equal(clientToken('a', 'b'), clientToken('a', 'b'))
  t.not(clientToken('a', 'b'), clientToken('ab'))
})

t.test('settings of a fleet on EC2', async t => {
  const base = { MUSTER_CONFIG_FILE: '/nonexistent', MUSTER_FLEET: 'ec2' }
  const needs = { AWS_REGION: 'eu-central-1', MUSTER_EC2_LAUNCH_TEMPLATE: 'workers' }
  const reachable = { MUSTER_NODE_URLS: 'https://10.0.0.1:5000' }
  const faults = (environment: Record<string, string>): string => {
    try {
      readSettings({ ...base, ...environment })
      return ''
    } catch (error) {
      return (error as Error).message
    }
  }
  t.match(faults({}), /MUSTER_EC2_LAUNCH_TEMPLATE must be set .* make a launch template/)
  t.match(faults({}), /AWS_REGION must be set/)
  t.match(faults(needs), /MUSTER_NODE_URLS must be addresses .* not "http:\/\/127\.0\.0\.1:5000"/)
  t.equal(faults({ ...needs, ...reachable }), '')
  const plain = { MUSTER_NODE_URLS: 'http://10.0.0.1:5000' }
  t.match(faults({ ...needs, ...plain }), /must begin with https/)
  t.equal(faults({ ...needs, ...plain, MUSTER_INSECURE: 'yes' }), '')
  t.equal(faults({ ...needs, AWS_ENDPOINT_URL: 'http://127.0.0.1:4566' }), '', 'an emulator')
  t.match(faults({ ...needs, ...reachable, MUSTER_EC2_SPOT_PERCENT: '101' }), /from 0 to 100/)
  t.match(faults({ ...needs, ...reachable, MUSTER_DEPLOYMENT: 'a b' }), /MUSTER_DEPLOYMENT must be/)
  t.equal(faults({ ...reachable, MUSTER_EC2_LAUNCH_TEMPLATE: 'w', AWS_DEFAULT_REGION: 'eu-west-1' }), '')

  const file = join(t.testdir(), 'muster.yaml')
  await writeFile(
    file,
    'queues:\n  images: { instanceTypes: [c7g.large, c7g.xlarge], spotPercent: 80, maxWorkers: 9 }\n',
  )
  const settings = readSettings({
    ...{ ...base, ...needs, ...reachable, MUSTER_CONFIG_FILE: file },
    ...{ MUSTER_EC2_INSTANCE_TYPES: 'm5.large, m6i.large', MUSTER_EC2_SPOT_PERCENT: '10' },
  })
  t.same(settings.placements, {
    default: { instanceTypes: ['m5.large', 'm6i.large'], spotPercent: 10, handlerMetadata: 'no' },
    images: { instanceTypes: ['c7g.large', 'c7g.xlarge'], spotPercent: 80, handlerMetadata: 'no' },
  })
  t.match(settings.pools.images, { maxWorkers: 9, bootTimeoutMs: 300_000 })
  t.notOk('spotPercent' in (settings.pools.images ?? {}), 'no part of the decision')
  t.equal(readSettings({ MUSTER_CONFIG_FILE: '/nonexistent' }).bootTimeoutMs, 60_000)
  t.same(readSettings({ MUSTER_CONFIG_FILE: '/nonexistent', MUSTER_PORT: '7000' }).nodeUrls, ['http://127.0.0.1:7000'])
})
