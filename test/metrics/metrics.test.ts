import { readFile } from 'node:fs/promises'
import {
  CloudWatchClient,
  GetMetricStatisticsCommand,
  ListMetricsCommand,
  type Statistic,
} from '@aws-sdk/client-cloudwatch'
import t from 'tap'
import type { PoolStatus } from '../../src/fleet/fleet.ts'
import { openCloudWatch } from '../../src/metrics/cloudwatch.ts'
import { type DataPoint, metricTable, pointsOfQueues } from '../../src/metrics/metric-table.ts'
import { MetricsPublisher, openMetrics, sourcesOf } from '../../src/metrics/publisher.ts'
import { type MetricSources, readPoints } from '../../src/metrics/read-points.ts'
import { closeRedis, connectRedis } from '../../src/redis/connect/connection.ts'
import { countInSync, readInfo } from '../../src/redis/inspect/info.ts'
import { Refusals } from '../../src/refusal-counts.ts'
import { startTestApi } from '../support/api.ts'
import { startMoto } from '../support/aws/moto.ts'
import { startTestRedis } from '../support/redis.ts'
import { until } from '../support/until.ts'

process.env.AWS_ACCESS_KEY_ID = 'test'
process.env.AWS_SECRET_ACCESS_KEY = 'test'
process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED = 'true'
const moto = await startMoto(t)
const region = 'us-east-1'
const access = { region, endpoint: moto.url, namespace: 'Muster/Test', deployment: 'd1' }
const minute = 60_000
const quiet = { info: () => undefined, warn: () => undefined }

const pool = (more: Partial<PoolStatus>): PoolStatus => ({
  queue: 'default',
  policy: 'target-wait',
  min: 0,
  max: 4,
  instances: [],
  workers: [],
  ...more,
})
const sources = (more: Partial<MetricSources> = {}): MetricSources => ({
  node: 'node-a',
  ping: async () => 'PONG',
  replication: async () => [readInfo('role:master')],
  queueNames: () => ['default'],
  backlog: async () => ({ waiting: 0, dead: 0, oldestSince: undefined }),
  pools: async () => [],
  refusals: () => new Refusals().take(),
  ...more,
})
const figureOf = (points: readonly DataPoint[], name: string, dimension?: string): number | undefined =>
  points.find(point => point.name === name && point.dimension?.value === dimension)?.value

t.test('the page of metrics says what the table says', async t => {
  const page = await readFile(new URL('../../docs/metrics.md', import.meta.url), 'utf8')
  const rows = Object.entries(metricTable).map(([name, metric]) => {
    const dimensions = 'per' in metric ? `Deployment; and ${metric.per}` : 'Deployment'
    return `| \`${name}\` | ${metric.unit} | ${metric.statistic} | ${dimensions} | ${metric.help} |`
  })
  t.same(
    page.split('\n').filter(line => line.startsWith('| `')),
    rows,
  )
})

t.test('figures of queues make those of the deployment', async t => {
  const points = pointsOfQueues(
    new Map([
      ['default', { BacklogJobs: 3, BacklogAgeSeconds: 10, DeadJobs: 1, FleetAtCeiling: 0 }],
      ['images', { BacklogJobs: 4, BacklogAgeSeconds: 2.5, FleetAtCeiling: 1 }],
    ]),
  )
  t.equal(figureOf(points, 'BacklogJobs', 'images'), 4)
  t.equal(figureOf(points, 'BacklogJobs'), 7, 'added up')
  t.equal(figureOf(points, 'BacklogAgeSeconds'), 10, 'the worst')
  t.equal(figureOf(points, 'FleetAtCeiling'), 1)
  t.equal(figureOf(points, 'DeadJobs'), 1)
  t.equal(figureOf(points, 'Workers'), undefined, 'what nobody knows is not published')
})

t.test('readings: a fleet at its ceiling, a stale decision, a part that cannot be read', async t => {
  const now = 10_000_000
  const faults: string[] = []
  const read = (more: Partial<MetricSources>) => readPoints(sources(more), now, what => void faults.push(what))
  const backlog = async () => ({ waiting: 5, dead: 2, oldestSince: now - 90_000 })
  const decided = { desired: 4, decidedAt: now - 1000 }
  let points = await read({ backlog, pools: async () => [pool(decided)] })
  t.equal(figureOf(points, 'FleetAtCeiling', 'default'), 1)
  t.equal(figureOf(points, 'WorkersDesired'), 4)
  t.equal(figureOf(points, 'BacklogAgeSeconds'), 90)
  t.equal(figureOf(points, 'DeadJobs', 'default'), 2)
  t.equal(figureOf(points, 'NodeUp', 'node-a'), 1)
  t.equal(figureOf(points, 'ReplicasInSync'), 0)
  points = await read({ pools: async () => [pool(decided)] })
  t.equal(figureOf(points, 'FleetAtCeiling'), 0, 'nothing waits')
  points = await read({ backlog, pools: async () => [pool({ ...decided, desired: 3 })] })
  t.equal(figureOf(points, 'FleetAtCeiling'), 0, 'there may be more')
  points = await read({ backlog, pools: async () => [pool({ ...decided, decidedAt: now - 400_000 })] })
  t.equal(figureOf(points, 'FleetAtCeiling'), undefined, 'nobody decides any more')
  t.equal(figureOf(points, 'Workers'), 0)
  t.same(faults, [])

  const broken = async (): Promise<never> => {
    throw new Error('NOPERM')
  }
  points = await read({ replication: broken, pools: async () => [pool(decided)] })
  t.same(faults.splice(0), ['Redis (replication)'])
  t.equal(figureOf(points, 'ReplicasInSync'), undefined)
  t.equal(figureOf(points, 'Workers'), 0, 'the rest is there')
  points = await read({ ping: broken })
  t.same(faults.splice(0), ['Redis (ping)'])
  t.same(
    points.map(({ name, value }) => `${name} ${value}`),
    ['NodeUp 1', 'NodeUp 1', 'RedisUp 0', 'FailedLogins 0', 'RefusedJoins 0', 'ThrottledRequests 0'],
  )
})

t.test('once a minute; an outage is told once, and its end', async t => {
  const puts: number[] = []
  const said: string[] = []
  let down = false
  const target = {
    async put(_points: readonly DataPoint[], at: number) {
      if (down) throw new Error('no route')
      puts.push(at)
    },
  }
  const log = { warn: () => void said.push('warn'), info: () => void said.push('info') }
  const publisher = new MetricsPublisher({ sources: sources(), target, log: log as never })
  t.ok((await publisher.runOnce(10 * minute + 7)) > 5)
  t.equal(await publisher.runOnce(10 * minute + 59_999), 0, 'this minute has had its own')
  down = true
  t.equal(await publisher.runOnce(11 * minute), 0)
  t.equal(await publisher.runOnce(12 * minute), 0)
  t.same(said, ['warn'])
  down = false
  await publisher.runOnce(13 * minute + 30_000)
  t.same(said, ['warn', 'info'])
  t.same(puts, [10 * minute, 13 * minute])
  await publisher.stop()
  await publisher.stop()
})

t.test('a node with jobs publishes to CloudWatch', async t => {
  const api = await startTestApi(t, { MUSTER_CLOUDWATCH_NAMESPACE: access.namespace, AWS_REGION: region })
  const submit = async (query = ''): Promise<string> =>
    (
      await api.call('PUT', `/enqueue?iterations=1${query}`, {
        body: 'x',
        headers: { 'content-type': 'application/octet-stream' },
      })
    ).body['Work ID']
  const parts = { jobs: api.jobs, fleet: api.fleet, redis: api.redis, refusals: api.refusals }
  const begunAt = Date.now()
  const ageAt = async (now: number): Promise<number | undefined> =>
    (await sourcesOf(parts).backlog('default', now)).oldestSince
  t.equal(await ageAt(begunAt), undefined)

  const worker = api.worker()
  await worker.heartbeat()
  await submit('&attempts=1')
  const [lease] = await worker.claim()
  if (lease === undefined) throw new Error('nothing to claim')
  await worker.complete(lease, { error: { code: 'handler_error', message: 'no' } })
  await submit('&delayMs=3600000')
  t.equal(await ageAt(Date.now()), undefined, 'a job that is not due does not wait')
  t.ok(((await ageAt(begunAt + 7_300_000)) ?? 0) >= begunAt + 3_599_000, 'from when it is due')
  await submit('&priority=9')
  const starvingSince = await ageAt(Date.now())
  await submit('&priority=1')
  await submit()
  t.equal(await ageAt(Date.now()), starvingSince, 'the one of the lowest priority has waited longest')

  const cloudwatch = await openCloudWatch(access)
  t.teardown(() => cloudwatch.close())
  const publisher = new MetricsPublisher({ sources: sourcesOf(parts), target: cloudwatch, log: quiet })
  const count = await publisher.runOnce(begunAt)
  t.ok(count > 0)

  const client = new CloudWatchClient({ region, endpoint: moto.url, maxAttempts: 1 })
  t.teardown(() => client.destroy())
  const { Metrics = [] } = await client.send(new ListMetricsCommand({ Namespace: access.namespace }))
  const names = new Set(Metrics.map(({ MetricName }) => MetricName))
  const expected = Object.keys(metricTable).filter(name => !['WorkersDesired', 'FleetAtCeiling'].includes(name))
  t.same([...names].sort(), expected.sort(), 'all but those of an autoscaler, which is not here')
  t.equal(Metrics.length, count)
  const read = async (MetricName: string, statistic: Statistic, more: { Name: string; Value: string }[] = []) => {
    const reply = await client.send(
      new GetMetricStatisticsCommand({
        Namespace: access.namespace,
        MetricName,
        Dimensions: [{ Name: 'Deployment', Value: 'd1' }, ...more],
        StartTime: new Date(begunAt - 10 * minute),
        EndTime: new Date(begunAt + 10 * minute),
        Period: 60,
        Statistics: [statistic],
      }),
    )
    return reply.Datapoints?.[0]?.[statistic as 'Sum']
  }
  const queue = [{ Name: 'Queue', Value: 'default' }]
  // The emulator adds up what has more dimensions than asked for; CloudWatch keeps them apart.
  t.equal(await read('NodeUp', 'Sum', [{ Name: 'Node', Value: sourcesOf(parts).node }]), 1)
  t.equal(await read('RedisUp', 'Maximum'), 1)
  t.equal(await read('BacklogJobs', 'Maximum', queue), 3)
  t.equal(await read('DeadJobs', 'Maximum'), 1)
  t.equal(await read('Workers', 'Maximum', queue), 1)
})

t.test('a node publishes by itself when a namespace is set', async t => {
  const { jobs, fleet, redis, refusals } = await startTestApi(t)
  const settings = { cloudwatchNamespace: '', deployment: 'd2', awsRegion: region, awsEndpointUrl: moto.url }
  t.equal(await openMetrics({ settings, jobs, fleet, redis, refusals, log: quiet }), undefined, 'not by default')
  const metrics = await openMetrics({
    settings: { ...settings, cloudwatchNamespace: 'Muster/Own' },
    ...{ jobs, fleet, redis, refusals, log: quiet },
  })
  metrics?.start()
  const client = new CloudWatchClient({ region, endpoint: moto.url, maxAttempts: 1 })
  t.teardown(() => client.destroy())
  await until(async () => {
    const { Metrics = [] } = await client.send(new ListMetricsCommand({ Namespace: 'Muster/Own' }))
    return Metrics.some(({ MetricName }) => MetricName === 'BacklogJobs')
  })
  await metrics?.stop()
  await metrics?.stop()
})

t.test('what a node refuses is counted, once', async t => {
  const key = 'k'.repeat(32)
  const api = await startTestApi(t, {
    ...{ MUSTER_OPERATOR_KEY: key, MUSTER_MAX_FAILED_LOGINS: '2', MUSTER_WORKER_JOIN_SECRET: 'j'.repeat(32) },
  })
  const refusedWith = async (method: string, path: string, bearer: string, body?: string): Promise<number> => {
    const headers = {
      authorization: `Bearer ${bearer}`,
      ...(body !== undefined && { 'content-type': 'application/json' }),
    }
    return (await fetch(api.url + path, { method, headers, ...(body !== undefined && { body }) })).status
  }
  t.equal(await refusedWith('GET', '/status', key), 200)
  t.equal(await refusedWith('GET', '/status', 'wrong'), 401)
  const join = JSON.stringify({ instanceId: 'i-0123456789abcdef0', queue: 'default' })
  t.equal(await refusedWith('POST', '/workers/join', 'wrong', join), 401)
  t.equal(await refusedWith('POST', '/workers/join', 'j'.repeat(32), join), 404)
  t.equal(await refusedWith('GET', '/status', 'wrong'), 429)
  t.same(api.refusals.take(), { FailedLogins: 3, RefusedJoins: 2, ThrottledRequests: 1 })
  t.same(api.refusals.take(), { FailedLogins: 0, RefusedJoins: 0, ThrottledRequests: 0 })
})

t.test('a real replica is counted', async t => {
  const primary = await startTestRedis(t, { tcp: true })
  const replica = await startTestRedis(t)
  const redis = await connectRedis({ socketPath: primary.socketPath, purpose: 'commands', log: quiet })
  t.teardown(() => closeRedis(redis))
  const { replication } = sourcesOf({
    redis,
    jobs: undefined as never,
    fleet: undefined as never,
    refusals: new Refusals(),
  })
  t.same((await replication()).map(countInSync), [0])
  const port = new URL(primary.url ?? '').port
  await (await replica.client()).replicaof('127.0.0.1', Number(port))
  await until(async () => (await replication()).map(countInSync)[0] === 1)
})
