/** A job that kills its host, among others that do not: a node and its fleet as a user has them. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { processesOf, startNodeProcess } from '../support/node-process.ts'
import { until } from '../support/until.ts'

/** All slots but one: the job that kills its host has others beside it. */
const besideCount = 5

// biome-ignore lint/suspicious/noExplicitAny: a test says what it expects of it
type Body = any

t.test('it is dead after three, with the evidence; all others finish, and the fleet stands', async t => {
  const folder = t.testdir()
  const file = join(folder, 'handlers.js')
  await writeFile(
    file,
    `import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { defineHandler } from 'muster'
const folder = ${JSON.stringify(folder)}
const until = async holds => { while (!holds()) await delay(10) } // pause: of the handler
const started = () => readdirSync(folder).filter(name => name.startsWith('beside')).length
export const killer = defineHandler({ type: 'killer', handle: async () => {
  await until(() => started() >= ${besideCount})
  writeFileSync(folder + '/killed', '')
  process.kill(process.ppid, 'SIGKILL')
  await until(() => false)
} })
export const beside = defineHandler({ type: 'beside', handle: async n => {
  writeFileSync(folder + '/beside' + n, '')
  await until(() => existsSync(folder + '/killed'))
  return n
} })
export const nap = defineHandler({ type: 'nap', handle: async ms => { await delay(ms); return ms } }) // pause: of the handler
`,
  )
  const node = await startNodeProcess(
    t,
    {
      MUSTER_MIN_WORKERS: '2',
      MUSTER_MAX_WORKERS: '2',
      MUSTER_WORKER_SLOTS: '3',
      MUSTER_LEASE_MS: '60000',
      MUSTER_AUTOSCALE_INTERVAL_MS: '200',
    },
    ['--handlers', file],
  )
  const get = async (path: string): Promise<Body> => await (await fetch(node.url + path)).json()
  const put = async (type: string, payload: unknown): Promise<string> => {
    const headers = { 'content-type': 'application/json' }
    const request = { method: 'PUT', headers, body: JSON.stringify({ payload }) }
    return ((await (await fetch(`${node.url}/enqueue?type=${type}&attempts=1`, request)).json()) as Body)['Work ID']
  }
  await until(async () => (await get('/status')).Workers === 2)

  const others: string[] = []
  for (let index = 0; index < besideCount; index += 1) others.push(await put('beside', index))
  const killer = await put('killer', null)
  for (let index = 0; index < 60; index += 1) others.push(await put('nap', 200 + index))

  await until(async () => (await get(`/jobs/${killer}`)).state === 'dead')
  const dead = await get(`/jobs/${killer}`)
  t.match(dead, { attemptsMade: 1, lostLeases: 3, error: { code: 'workers_lost', message: /lost 3 times/ } })
  t.equal(new Set(dead.lostWorkers.map(({ workerId }: Body) => workerId)).size, 3, 'three different workers')

  await until(async () => (await get('/status')).Jobs === 0)
  const views: Body[] = []
  await until(async () => {
    views.splice(0, views.length, ...(await Promise.all(others.map(id => get(`/jobs/${id}`)))))
    return views.every(({ state }) => state === 'succeeded' || state === 'dead')
  })
  t.same(
    views.filter(({ state }) => state !== 'succeeded').map(({ error }) => error),
    [],
    'every other job has its value',
  )
  t.ok(
    views.some(({ lostLeases }) => lostLeases > 0),
    'some of them were beside it',
  )
  t.ok(
    views.every(({ lostLeases, attemptsMade }) => lostLeases <= 2 && attemptsMade === 1),
    'at the cost of no attempt',
  )
  const after = await put('nap', 1)
  await until(async () => (await get(`/jobs/${after}`)).state === 'succeeded')
  node.kill('SIGTERM')
  t.equal(await node.ended(), 0)
  t.same(await processesOf(node.dataDir), [])
})
