import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { describeSettings, readSettings, unknownVariables } from '../src/settings/settings.ts'

const none = { MUSTER_CONFIG_FILE: '/nonexistent' }
const faultsOf = (environment: Record<string, string>): string => {
  try {
    readSettings({ ...none, ...environment })
    return ''
  } catch (error) {
    return (error as Error).message
  }
}

t.test('defaults suit a laptop', async t => {
  const settings = readSettings(none)
  t.match(settings, { host: '127.0.0.1', port: 5000, fleet: 'local', minWorkers: 0, maxWorkers: 4, attempts: 3 })
  t.match(settings.dataDir, /\/\.muster$/)
  t.strictSame(Object.keys(settings.pools), ['default'])
})

t.test('an empty variable is an unset one; PORT is a fallback', async t => {
  t.equal(readSettings({ ...none, MUSTER_PORT: '' }).port, 5000)
  t.equal(readSettings({ ...none, PORT: '8080' }).port, 8080)
  t.equal(readSettings({ ...none, PORT: '8080', MUSTER_PORT: '9090' }).port, 9090)
})

t.test('all faults are reported together, each with its name and what it may be', async t => {
  const faults = faultsOf({
    MUSTER_PORT: '70000',
    MUSTER_FLEET: 'cloud',
    MUSTER_REDIS_URL: 'localhost',
    MUSTER_NODE_URLS: 'x',
    MUSTER_MAX_WORKERS: '1.5',
  })
  for (const name of ['MUSTER_PORT', 'MUSTER_FLEET', 'MUSTER_REDIS_URL', 'MUSTER_NODE_URLS', 'MUSTER_MAX_WORKERS'])
    t.match(faults, name)
  t.notMatch(faultsOf({ MUSTER_REDIS_URL: 'secret-password@host' }), /secret/, 'what is secret is not repeated')
  t.match(faultsOf({ MUSTER_MIN_WORKERS: '5', MUSTER_MAX_WORKERS: '2' }), /minWorkers \(5\) is above maxWorkers \(2\)/)
})

t.test('secrets are masked', async t => {
  const lines = describeSettings(
    readSettings({ ...none, MUSTER_REDIS_URL: 'redis://:pa55@host:1', MUSTER_WORKER_TOKEN: 't0ken' }),
  )
  const text = JSON.stringify(lines)
  t.notMatch(text, /pa55|t0ken/)
  t.match(
    lines.find(line => line.name === 'MUSTER_WORKER_TOKEN'),
    { value: '********' },
  )
})

t.test('secrets in what is wrong are masked, too', t => {
  const wrong: Record<string, string>[] = [
    { AWS_ENDPOINT_URL: 'htp://user:hidden@h/?sig=hidden' },
    { MUSTER_NODE_URLS: 'ftp://u:hidden@h:1' },
    { MUSTER_BUNDLE_URL: 'ftp://u:hidden@h/b?sig=hidden' },
    { MUSTER_PAYLOAD_STORE: 's3://u:hidden@b/p' },
    {
      MUSTER_FLEET: 'ec2',
      MUSTER_NODE_URLS: 'http://u:hidden@10.0.0.1:5000',
      MUSTER_BUNDLE_URL: 'http://u:hidden@h/b?sig=hidden',
    },
  ]
  for (const variables of wrong) {
    const faults = faultsOf(variables)
    for (const name of Object.keys(variables).slice(-1)) t.match(faults, name)
    t.notMatch(faults, /hidden/, Object.keys(variables).join())
  }
  t.end()
})

t.test('muster.yaml declares queues, each with a pool', async t => {
  const file = join(t.testdir(), 'muster.yaml')
  const read = async (text: string): Promise<string> => {
    await writeFile(file, text)
    return faultsOf({ MUSTER_CONFIG_FILE: file })
  }
  t.equal(await read('queues:\n  images: { maxWorkers: 8, slots: 2 }\n  plain:\n'), '')
  const { pools } = readSettings({ MUSTER_CONFIG_FILE: file, MUSTER_IDLE_TIMEOUT_MS: '7' })
  t.match(pools, {
    default: { maxWorkers: 4 },
    images: { maxWorkers: 8, slots: 2, idleTimeoutMs: 7 },
    plain: { maxWorkers: 4 },
  })
  t.equal(await read(''), '')
  t.match(await read('queues: [a]'), /must be a mapping/)
  t.match(await read('queues: { images: { workers: 1 } }'), /queues\.images\.workers is not known/)
  t.match(await read('queues: { images: { maxWorker: 1 } }'), /did you mean "maxWorkers"\?/)
  t.match(await read('queues: { images: { slots: -1 } }'), /queues\.images\.slots must be a whole number/)
  t.match(await read('queues: { "Bad Name": {} }'), /needs a name/)
  t.match(await read('pools: {}'), /"pools" is not known/)
  t.match(await read('queues: {'), /cannot be read/)
})

t.test('what looks like a setting and is none is found', async t => {
  t.strictSame(unknownVariables({ MUSTER_PROT: '1', MUSTER_PORT: '1', MUSTER_QUEUE: 'x', HOME: '/' }), [
    { name: 'MUSTER_PROT', nearest: 'MUSTER_PORT' },
  ])
  t.strictSame(unknownVariables({ MUSTER_WEATHER: '1' }), [{ name: 'MUSTER_WEATHER', nearest: undefined }])
  t.match(faultsOf({ MUSTER_FLEET: 'ec' }), /did you mean "ec2"\?/)
})

t.test('a time may have a unit, in the environment and in muster.yaml', async t => {
  const file = join(t.testdir(), 'muster.yaml')
  await writeFile(file, 'queues: { images: { targetWaitMs: 30s, idleTimeoutMs: 250 } }')
  const settings = readSettings({ MUSTER_CONFIG_FILE: file, MUSTER_LEASE_MS: '1m', MUSTER_RESULT_TTL_MS: '2 days' })
  t.match(settings, { leaseMs: 60_000, resultTtlMs: 172_800_000 })
  t.match(settings.pools.images, { targetWaitMs: 30_000, idleTimeoutMs: 250 })
  for (const wrong of ['30 parsecs', '-1s', 's', '1s2m', '1e3s', '1ms'])
    t.match(faultsOf({ MUSTER_LEASE_MS: wrong }), /MUSTER_LEASE_MS .*like 30s, 5m or 24h/, wrong)
  t.match(faultsOf({ MUSTER_PORT: '30s' }), /MUSTER_PORT must be a whole number/, 'what is no time takes none')
})

t.test('URLs are shown without what logs in or is signed', async t => {
  const planted = {
    MUSTER_BUNDLE_URL: 'https://user:hunter2@b.example/worker.tgz?X-Amz-Signature=hunter2&X-Amz-Date=1',
    MUSTER_NODE_URLS: 'http://a:hunter2@one:5000,https://b:hunter2@two/?token=hunter2',
    AWS_ENDPOINT_URL: 'http://key:hunter2@127.0.0.1:4566',
    AWS_REGION: 'eu-central-1',
    MUSTER_PAYLOAD_STORE: 's3://bucket/prefix',
  }
  const lines = describeSettings(readSettings({ ...none, ...planted }))
  t.notMatch(JSON.stringify(lines), /hunter2/)
  t.match(
    lines.find(({ name }) => name === 'MUSTER_NODE_URLS'),
    { value: 'http://********@one:5000,https://********@two/?********' },
  )
  t.match(
    lines.find(({ name }) => name === 'MUSTER_PAYLOAD_STORE'),
    { value: 's3://bucket/prefix' },
  )
})

t.test('documents name only what exists', async t => {
  const root = new URL('../', import.meta.url)
  const known = new Set([
    ...describeSettings(readSettings(none)).map(({ name }) => name),
    'MUSTER_INSTANCE_ID',
    'MUSTER_QUEUE',
    'MUSTER_BOOT_STAGES',
    // Those of setup.sh.
    'MUSTER_SMOKE_URLS',
    'MUSTER_SMOKE_KEY_FILE',
  ])
  const { scripts } = JSON.parse(await readFile(new URL('package.json', root), 'utf8'))
  const docs = (await readdir(new URL('docs', root), { recursive: true }))
    .filter(name => name.endsWith('.md'))
    .map(name => `docs/${name}`)
  for (const file of [
    'README.md',
    'CONTRIBUTING.md',
    'CHANGELOG.md',
    ...docs,
    'test/faults/README.md',
    'bench/README.md',
  ]) {
    const text = await readFile(new URL(file, root), 'utf8')
    for (const [name] of text.matchAll(/MUSTER_[A-Z0-9_]+/g)) t.ok(known.has(name), `${file}: ${name}`)
    for (const [, name] of text.matchAll(/npm run ([a-z:]+)/g))
      t.ok(name !== undefined && name in scripts, `${file}: npm run ${name}`)
  }
})
