/** Other handlers for two nodes and a worker that go on running. */
import { spawnSync } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { cli, type NodeProcess, startNodeProcess } from '../support/node-process.ts'
import { startTestRedis } from '../support/redis.ts'
import { type Body, put, startNodes, startWorker, stateOf } from '../support/two-nodes.ts'
import { until } from '../support/until.ts'

const folder = await mkdtemp(join(tmpdir(), 'muster-replaced-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))
const gate = join(folder, 'gate')

async function version(word: string, more = ''): Promise<string> {
  const file = join(folder, `${word}.ts`)
  await writeFile(join(folder, `word-of-${word}.ts`), `export const word: string = '${word}'`)
  await writeFile(
    file,
    `import { existsSync } from 'node:fs'
    import { setTimeout } from 'node:timers/promises'
    import { defineHandler } from 'muster'
    import { word } from './word-of-${word}'
    export const say = defineHandler({ type: 'say', handle: () => word })
    export const hold = defineHandler({ type: 'hold', async handle() {
      while (!existsSync(${JSON.stringify(gate)})) await setTimeout(20) // pause: of the handler
      return word
    } })
    ${more}`,
  )
  return file
}

const digestOf = async (node: NodeProcess): Promise<string | null> =>
  (await fetch(`${node.url}/workers/handlers`)).headers.get('muster-digest')

async function resultOf(node: NodeProcess, workId: string): Promise<Body> {
  await until(async () => (await stateOf(node, workId)).state === 'succeeded')
  return ((await (await fetch(`${node.url}/jobs/${workId}/result`)).json()) as Body).value
}

const deploy = async (node: NodeProcess, body: string): Promise<{ status: number; body: Body }> => {
  const headers = { 'content-type': 'text/typescript' }
  const reply = await fetch(`${node.url}/handlers`, { method: 'PUT', headers, body })
  return { status: reply.status, body: await reply.json() }
}

t.test('handlers are replaced while a job runs, and nothing is restarted', async t => {
  const redis = await startTestRedis(t, { tcp: true })
  const nodes = await startNodes(t, redis, { MUSTER_HANDLERS: await version('one') })
  const [a, b] = nodes
  const worker = await startWorker(t, nodes)
  const first = await digestOf(a)
  t.ok(first)
  t.equal(await digestOf(b), first)
  const running = await put(a, 'type=hold')
  await until(async () => (await stateOf(a, running)).state === 'running')

  const two = await version(
    'two',
    `export const fresh = defineHandler({ type: 'fresh', payload: { type: 'integer' }, handle: n => n + 1 })`,
  )
  const { status, stdout, stderr } = spawnSync(process.execPath, [cli, 'handlers', 'deploy', two, '--url', b.url], {
    encoding: 'utf8',
    env: { PATH: process.env.PATH, MUSTER_CONFIG_FILE: '/nonexistent' },
  })
  t.equal(status, 0, stderr)
  t.match(stdout, /^[0-9a-f]{64} .*\bfresh\b/)
  const second = stdout.slice(0, 64)
  for (const node of nodes) await until(async () => (await digestOf(node)) === second)
  // At once: one slot is idle, and its claim lies open.
  t.equal(await resultOf(a, await put(a, 'type=say')), 'two', 'the next job runs on the new ones')
  t.match(worker.output(), 'new jobs run on other handlers')
  t.equal(await resultOf(a, await put(a, 'type=fresh', 1)), 2, 'a new type is known to the other node')
  const misfit = await fetch(`${a.url}/enqueue?type=fresh`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: '{"payload":"x"}',
  })
  t.equal(misfit.status, 400, 'and so is its schema')
  t.equal((await stateOf(a, running)).state, 'running')
  await writeFile(gate, '')
  t.equal(await resultOf(a, running), 'one', 'what ran ends on those before')
  const ended = await stateOf(a, running)
  t.equal(ended.attemptsMade, 1)
  t.equal(ended.lostLeases, 0)
  const words = await Promise.all([1, 2, 3, 4].map(async () => await resultOf(b, await put(b, 'type=hold'))))
  t.same(words, ['two', 'two', 'two', 'two'], 'no slot has the old ones')
  t.notMatch(worker.output(), /a slot ended|worker stopped/)
  for (const node of nodes) t.equal(node.output().match(/Muster is ready/g)?.length, 1)

  const faults: [string, RegExp][] = [
    ['export const a = (', /handlers\.ts:1:\d+/],
    ['import "muster"\nthrow new Error("no luck")', /handlers\.ts:2:\d+: Error: no luck/],
    ['export const nothing = 1', /exports no handler/],
    ['import { x } from "/etc/passwd.json"; export default x', /cannot be imported by a file that comes alone/],
    ['import { x } from "left-pad"; export default x', /cannot be imported by a file that comes alone/],
    ['export const a = { type: "noop", handle() {} }', /built in/],
    ['', /no body/],
  ]
  for (const [text, what] of faults) {
    const reply = await deploy(a, text)
    t.equal(reply.status, 400, text)
    t.equal(reply.body.code, 'handlers_invalid', text)
    t.match(reply.body.detail, what)
  }
  for (const node of nodes) t.equal(await digestOf(node), second, 'what is broken changes nothing')

  const source = `import { defineHandler } from 'muster'
    export const say = defineHandler({ type: 'say', handle: (): string => 'three' })`
  const third = await deploy(b, source)
  t.equal(third.status, 200)
  for (const node of nodes) await until(async () => (await digestOf(node)) === third.body.digest)
  t.equal(await resultOf(a, await put(a, 'type=say')), 'three')

  a.kill('SIGTERM')
  await a.ended()
  await a.restart()
  t.match(a.output(), /were replaced by a deployment, which stays/)
  t.equal(await digestOf(a), third.body.digest, 'a node that starts does not bring back what was replaced')
  const c = await startNodeProcess(t, {
    MUSTER_REDIS_URL: redis.url as string,
    MUSTER_FLEET: 'none',
    MUSTER_HANDLERS: await version('four'),
  })
  t.not(await digestOf(c), third.body.digest, 'but publishes what there never was')
  const fourth = await digestOf(c)
  await until(async () => (await digestOf(b)) === fourth)
  await until(async () => (await digestOf(a)) === fourth)
  t.equal(await resultOf(a, await put(a, 'type=say')), 'four')
})

t.test('a type that goes and comes back runs again at once, however its claims lie', async t => {
  const redis = await startTestRedis(t, { tcp: true })
  const [a, b] = await startNodes(t, redis, { MUSTER_HANDLERS: await version('back') })
  const worker = await startWorker(t, [a, b])
  t.equal(await resultOf(a, await put(a, 'type=say')), 'back')
  const handler = (type: string): string =>
    `import { defineHandler } from 'muster'\nexport const own = defineHandler({ type: '${type}', handle: () => '${type}' })`
  const takeovers = (): number => worker.output().match(/new jobs run on other handlers/g)?.length ?? 0
  const typesOfWorker = async (): Promise<string[]> =>
    ((await (await fetch(`${a.url}/fleet`)).json()) as Body).pools[0].workers[0].types as string[]
  for (let round = 1; round <= 3; round++) {
    const [before, running] = [takeovers(), await put(a, 'type=sleep', { ms: 300 })]
    t.equal((await deploy(b, handler('other'))).status, 200)
    await until(() => takeovers() > before)
    t.equal((await deploy(a, handler('say'))).status, 200)
    t.equal(await resultOf(b, await put(b, 'type=say')), 'say', `round ${round}`)
    await until(async () => (await typesOfWorker()).includes('say'))
    await resultOf(a, running)
  }
  t.notMatch(worker.output(), /declares a type that it has no handler for/)
})
