import { fileURLToPath } from 'node:url'
import t from 'tap'
import { startNodeProcess } from '../support/node-process.ts'
import { readOptions } from './options.ts'
import { readRecordedJobs } from './recorded-jobs.ts'
import { runRegression } from './run-regression.ts'

const folder = fileURLToPath(new URL('./jobs', import.meta.url))

t.test('every recorded job leads to what was recorded', async t => {
  const jobs = await readRecordedJobs(folder)
  const types = new Set(jobs.map(({ query }) => query.type ?? 'sha512'))
  for (const type of ['sha512', 'primes', 'countToThree', 'noop', 'sleep']) t.ok(types.has(type), `${type} is recorded`)
  const { url } = await startNodeProcess(t)
  const base = { urls: [url], key: '', queue: 'default', timeoutMs: 60_000 }
  const outcomes = await runRegression({ ...base, jobs })
  t.same(
    outcomes.filter(({ fault }) => fault !== undefined),
    [],
  )

  const wrong = [
    { name: 'value', query: { iterations: 1 }, base64: '', value: 'cf83' },
    { name: 'value of another type', query: { type: 'countToThree' }, value: '3' },
    { name: 'less', query: { type: 'sleep' }, payload: { ms: 1 }, atLeast: { sleptMs: 60_000 } },
    { name: 'no number', query: { type: 'countToThree' }, atLeast: { sleptMs: 0 } },
    { name: 'bytes', query: { type: 'countToThree' }, bytes: { length: 1, sha256: '' } },
    { name: 'dead', query: { type: 'noop' }, dead: 'timeout' },
    { name: 'refused', query: { type: 'noop' }, refused: 'type_unknown' },
    { name: 'refused otherwise', query: { type: 'no-such' }, refused: 'queue_unknown' },
    { name: 'taken', query: { type: 'no-such' }, value: 1 },
  ]
  const faults = await runRegression({ ...base, jobs: wrong })
  t.same(
    faults.filter(({ fault }) => fault === undefined),
    [],
    'each of these is found to be wrong',
  )
})

t.test('a deployment that is away is a fault of every job', async t => {
  const jobs = (await readRecordedJobs(folder)).slice(0, 2)
  const outcomes = await runRegression({
    jobs,
    urls: ['http://127.0.0.1:9'],
    key: '',
    queue: 'default',
    timeoutMs: 600,
  })
  t.match(outcomes[0]?.fault, /127\.0\.0\.1:9 cannot be reached/)
  t.equal(outcomes.length, 2)
})

t.test('options', async t => {
  t.same(readOptions(['--url', 'http://a:1/,https://b'], {}).urls, ['http://a:1', 'https://b'])
  t.same(readOptions([], { MUSTER_NODE_URLS: 'http://c', MUSTER_API_KEY: 'k' }), {
    urls: ['http://c'],
    key: 'k',
    queue: 'default',
    timeoutMs: 300_000,
    json: false,
    help: false,
  })
  t.throws(() => readOptions(['--url', 'nonsense'], {}), /is no URL/)
  t.throws(() => readOptions(['--timeout', '0'], {}), /above 0/)
  t.throws(() => readOptions(['--key-file', '/nonexistent/key'], {}), /cannot be read/)
})
