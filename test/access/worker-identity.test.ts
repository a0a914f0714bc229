/** Whom a caller may speak for as a worker, and how much it can make. */
import t, { type Test } from 'tap'
import { Types } from '../../src/jobs/submit/types.ts'
import { type Reply, startTestApi } from '../support/api.ts'

const operator = 'an-operator-key-of-thirty-two-characters'

async function setUp(t: Test) {
  const file = `${t.testdir({ 'muster.yaml': 'queues:\n  images: {}\n' })}/muster.yaml`
  const api = await startTestApi(t, { MUSTER_OPERATOR_KEY: operator, MUSTER_CONFIG_FILE: file })
  const send = (secret: string, path: string, json: unknown): Promise<Reply> =>
    api.call('POST', path, { headers: { authorization: `Bearer ${secret}` }, json })
  const keyFor = async (name: string, roles: string[], queues?: string[]): Promise<string> => {
    const reply = await send(operator, '/keys', { name, roles, ...(queues && { queues }) })
    t.equal(reply.status, 200, JSON.stringify(reply.body))
    return reply.body.secret ?? reply.body.key
  }
  const beat = (secret: string, workerId: string, queue: string, more: object = {}, types = ['x']): Promise<Reply> =>
    send(secret, '/workers/heartbeat', {
      worker: { workerId, queue, slots: 2, types },
      state: 'ready',
      leases: [],
      ...more,
    })
  return { api, send, keyFor, beat }
}

t.test('a worker stays in its queue and with its key', async t => {
  const { api, send, keyFor, beat } = await setUp(t)
  const [all, images] = [await keyFor('all', ['work']), await keyFor('images', ['work'], ['images'])]
  t.equal((await beat(all, 'victim', 'default')).status, 200)
  const interruption = { kind: 'interruption', at: '2026-01-01T00:00:00Z' }
  t.match(await beat(images, 'victim', 'images', { interruption }), { status: 403, body: { code: 'forbidden' } })
  t.match(await beat(all, 'victim', 'images'), { status: 403, body: { detail: /another queue/ } })
  t.match(await api.fleet.registry.list(), [{ workerId: 'victim', queue: 'default', drain: undefined }])

  const other = await keyFor('other', ['work'])
  t.match(await beat(other, 'victim', 'default'), { status: 403, body: { detail: /another API key/ } })
  const claim = { workerId: 'victim', queue: 'default', max: 1 }
  t.equal((await send(other, '/workers/claim', claim)).status, 403)
  t.equal((await send(all, '/workers/claim', claim)).status, 200)
  t.equal((await beat(images, 'own', 'images')).status, 200)
})

t.test('what a key can make has a limit and an end', async t => {
  const { api, keyFor, beat } = await setUp(t)
  const key = await keyFor('made-up', ['work'])
  const types = (from: number, count: number) => Array.from({ length: count }, (_, index) => `t-${from + index}`)
  t.equal((await beat(key, 'w', 'default', {}, types(0, 1000))).status, 200)
  t.equal((await beat(key, 'w', 'default', {}, types(0, 1000))).status, 200, 'the same again')
  t.match(await beat(key, 'w', 'default', {}, types(1000, 1)), { status: 403, body: { detail: /1000 types/ } })
  for (let at = 0; at < 1000; at += 50)
    await Promise.all(Array.from({ length: 50 }, (_, n) => beat(key, `w-${at + n}`, 'default', {}, [])))
  t.match(await beat(key, 'one-more', 'default', {}, []), { status: 403, body: { detail: /1000 workers/ } })
  t.equal((await api.fleet.registry.all()).length, 1000)
  const neighbour = await keyFor('neighbour', ['work'])
  t.equal((await beat(neighbour, 'mine', 'default', {}, ['mine'])).status, 200, 'another key has a limit of its own')

  const ask = async (secret: string): Promise<Reply> =>
    api.call('PUT', '/enqueue?type=t-99x', { headers: { authorization: `Bearer ${secret}` }, json: { payload: 1 } })
  const reply = await ask(await keyFor('all', ['submit']))
  t.match(reply, { status: 400, body: { code: 'type_unknown', detail: /nearest of \d+ are: t-99/ } })
  t.ok(JSON.stringify(reply.body).length < 1000)
  t.notMatch(
    (await ask(await keyFor('bound', ['submit'], ['images']))).body.detail,
    /t-\d/,
    'nor those of other queues',
  )
})

t.test('the nearest ten', async t => {
  const types = new Types([{ type: 'resize' }], async () => Array.from({ length: 500 }, (_, n) => `made-up-${n}`))
  await t.rejects(types.require('rezise'), { message: /nearest of 501 are: resize, / })
  await t.rejects(types.require('rezise', true), { message: /there are: resize\.$/ })
})
