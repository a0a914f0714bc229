/** Secrets planted everywhere, and everything that a node writes or answers searched for them. Runs the built code. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { fastify } from 'fastify'
import { Redis } from 'ioredis'
import { pino } from 'pino'
import t from 'tap'
import { errorForLog } from '../../src/cli/make-log.ts'
import { cli, startNodeProcess } from '../support/node-process.ts'
import { startTestRedis } from '../support/redis.ts'
import { patienceMs, until } from '../support/until.ts'

const planted = {
  redis: 'planted-redis-password',
  operator: `planted-operator-key-${'o'.repeat(20)}`,
  join: `planted-join-secret-${'j'.repeat(20)}`,
  workerToken: 'planted-worker-token',
  apiKey: 'planted-api-key',
  unknown: 'planted-unknown-bearer',
  wrong: 'planted-wrong-password',
}
/** Added to as the node makes them. */
const secrets: string[] = Object.values(planted)

t.test('no log line, reply, page or setting tells a secret', async t => {
  const redis = await startTestRedis(t, { tcp: true, appendOnly: true })
  const direct = await redis.client()
  await direct.config('SET', 'requirepass', planted.redis)
  const redisUrl = (redis.url ?? '').replace('redis://', `redis://:${planted.redis}@`)
  const operatorKeyFile = join(t.testdir({ key: planted.operator }), 'key')
  const environment = {
    MUSTER_REDIS_URL: redisUrl,
    MUSTER_OPERATOR_KEY_FILE: operatorKeyFile,
    MUSTER_WORKER_JOIN_SECRET: planted.join,
    MUSTER_WORKER_TOKEN: planted.workerToken,
    MUSTER_API_KEY: planted.apiKey,
    MUSTER_LOG_LEVEL: 'trace',
    MUSTER_MIN_WORKERS: '1',
  }
  const node = await startNodeProcess(t, environment)
  const replies: string[] = []
  const call = async (method: string, path: string, key: string, json?: unknown): Promise<string> => {
    const reply = await fetch(node.url + path, {
      method,
      headers: { authorization: `Bearer ${key}`, ...(json !== undefined && { 'content-type': 'application/json' }) },
      ...(json !== undefined && { body: JSON.stringify(json) }),
    })
    const text = `${JSON.stringify([...reply.headers])} ${await reply.text()}`
    replies.push(text)
    return text
  }
  /** A reply that is to hold a secret: this once. @returns that secret */
  const issue = async (path: string, json: unknown): Promise<string> => {
    const text = await call('POST', path, planted.operator, json)
    replies.pop()
    const key = /"key":"([^"]+)"/.exec(text)?.[1] ?? ''
    secrets.push(key.split('_')[2] ?? '')
    return key
  }
  const created = await issue('/keys', { name: 'all', roles: ['submit', 'collect', 'read', 'operate'] })
  const rotated = await issue(`/keys/${created.split('_')[1]}/rotate`, { graceMs: 60_000 })
  t.match(rotated, /^muster_/)
  t.ok(secrets.every(secret => secret.length > 10))

  const { paths } = JSON.parse(await (await fetch(`${node.url}/docs/openapi.json`)).text()) as {
    paths: Record<string, Record<string, unknown>>
  }
  const odd = { name: planted.unknown.length, roles: 'all', workerId: 1, queue: 'no such', token: 1 }
  for (const [path, methods] of Object.entries(paths)) {
    for (const method of Object.keys(methods)) {
      const [verb, url] = [method.toUpperCase(), path.replace(/\{\w+\}/g, 'x')]
      for (const key of [planted.unknown, planted.join, rotated, planted.operator, planted.operator.slice(1)]) {
        await call(verb, url, key)
        if (verb !== 'GET') await call(verb, url, key, odd)
      }
    }
  }
  for (const page of [
    '/docs/',
    '/docs/errors',
    '/docs/openapi.json',
    '/audit',
    '/keys',
    '/fleet',
    '/queues',
    '/status',
    '/jobs',
  ])
    await call('GET', page, planted.operator)
  // Redis fails in the midst of it: errors of clients carry their commands.
  const port = new URL(redis.url ?? '').port
  await direct.config('SET', 'requirepass', planted.wrong)
  await direct.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
  await until(() => /Redis is away/.test(node.output()))
  for (const path of ['/status', '/keys', '/audit']) await call('GET', path, planted.operator)
  await call('PUT', '/enqueue?type=noop', rotated)
  await call('POST', '/keys', planted.operator, { name: 'x', roles: ['read'] })
  await direct.config('SET', 'requirepass', planted.redis)
  await until(async () => (await fetch(`${node.url}/health/ready`)).status === 200)

  const run = (args: readonly string[], more: Record<string, string> = {}): string => {
    const env = { PATH: process.env.PATH, MUSTER_CONFIG_FILE: '/nonexistent', ...environment, ...more }
    const { stdout, stderr } = spawnSync(process.execPath, [cli, ...args], {
      env,
      encoding: 'utf8',
      timeout: patienceMs,
    })
    return stdout + stderr
  }
  const outputs: Record<string, string> = {
    settings: run(['settings']),
    'settings as JSON': run(['settings', '--json']),
    'faults of settings': run(['settings'], { MUSTER_REDIS_URL: planted.wrong, MUSTER_OPERATOR_KEY_FILE: '/x' }),
    'keys list by a node': run(['keys', 'list'], { MUSTER_NODE_URLS: node.url }),
    'keys list in Redis': run(['keys', 'list'], { MUSTER_API_KEY: '' }),
    'a node with the wrong password': run(['node'], {
      MUSTER_REDIS_URL: `redis://:${planted.wrong}@127.0.0.1:${port}`,
      MUSTER_PORT: '0',
    }),
    'the log of the node': node.output(),
    replies: replies.join('\n'),
  }
  t.match(outputs['a node with the wrong password'], /does not let us in|WRONGPASS|password/i)
  t.match(outputs['the log of the node'], /"audit":true/, 'the log is there to be searched')
  t.match(outputs.replies, /unauthenticated/)
  for (const [place, text] of Object.entries(outputs))
    for (const secret of secrets) {
      const at = text.indexOf(secret)
      t.equal(at, -1, `${place}: ${at < 0 ? 'nothing' : text.slice(Math.max(0, at - 200), at + 60)}`)
    }
})

t.test('an error of Redis is logged without the arguments of its command, also by the HTTP server', async t => {
  const { socketPath } = await startTestRedis(t, { config: { requirepass: planted.redis } })
  const client = new Redis({ path: socketPath, password: planted.wrong, lazyConnect: true, retryStrategy: () => null })
  t.teardown(() => client.disconnect())
  const error = await new Promise<Error>(resolve => {
    client.on('error', resolve)
    client.connect().catch(() => undefined)
  })
  t.match(JSON.stringify({ ...error }), planted.wrong, 'the danger is real')
  const lines: string[] = []
  const log = pino({ level: 'trace', serializers: { err: errorForLog } }, { write: line => void lines.push(line) })
  const app = fastify({ loggerInstance: log })
  log.error({ err: error }, 'one')
  app.log.error({ err: error }, 'two')
  app.get('/', async () => {
    throw error
  })
  await app.inject('/')
  await app.close()
  t.match(lines.join(''), /WRONGPASS.*one[\s\S]*WRONGPASS.*two/)
  t.notMatch(lines.join(''), planted.wrong)
})
