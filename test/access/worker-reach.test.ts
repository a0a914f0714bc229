/** A worker reaches the jobs that it holds, and no other: each of its routes, with what belongs to somebody else. */
import t from 'tap'
import type { Lease } from '../../src/contract/worker-protocol.ts'
import { type Reply, startTestApi } from '../support/api.ts'

const operatorKey = 'o'.repeat(40)

t.test('each route of workers, with the lease of another, and with that of an attempt before', async t => {
  const file = `${t.testdir({ 'muster.yaml': 'queues:\n  images: {}\n' })}/muster.yaml`
  const api = await startTestApi(t, {
    MUSTER_OPERATOR_KEY: operatorKey,
    MUSTER_CONFIG_FILE: file,
    MUSTER_INLINE_BYTES: '10',
  })
  const send = (key: string, method: string, path: string, json: unknown): Promise<Reply> =>
    api.call(method, path, { headers: { authorization: `Bearer ${key}` }, json })
  const put = (key: string, path: string, body: string): Promise<Reply> =>
    api.call('PUT', path, {
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/octet-stream' },
      body,
    })
  const key = async (name: string, queues?: string[]): Promise<string> =>
    (await api.access.keys.create({ name, roles: ['work'], ...(queues && { queues }) })).key
  const beat = (token: string, workerId: string, more: object = {}, queue = 'default'): Promise<Reply> =>
    send(token, 'POST', '/workers/heartbeat', {
      worker: { workerId, queue, slots: 1, types: ['noop'], instanceId: `i-${workerId}` },
      state: 'ready',
      leases: [],
      ...more,
    })
  const take = async (): Promise<Lease> => {
    const claim = { workerId: 'victim', queue: 'default', max: 1 }
    return (await send(owner, 'POST', '/workers/claim', claim)).body.jobs[0]
  }
  /** All that can be done with a lease, by whoever says to be this worker. */
  const uses = (token: string, workerId: string, { workId, token: lease }: Lease) => {
    const ref = { workId, token: lease }
    const query = `${workId}?token=${encodeURIComponent(lease)}`
    const who = { workerId, queue: 'default' }
    const error = { code: 'x', message: 'forged', retryable: false }
    return {
      extends: () => beat(token, workerId, { leases: [ref] }),
      'tells progress': () => beat(token, workerId, { progress: [{ ...ref, fraction: 0.5, note: 'forged' }] }),
      logs: () => beat(token, workerId, { logs: [{ ...ref, lines: ['forged'] }] }),
      'reads the payload': () => send(token, 'GET', `/workers/payloads/${query}`, undefined),
      'reads the checkpoint': () => send(token, 'GET', `/workers/checkpoints/${query}`, undefined),
      'keeps a checkpoint': () => put(token, `/workers/checkpoints/${query}`, 'a forged checkpoint'),
      'uploads a result': () => put(token, `/workers/results/${query}&kind=bytes`, 'a forged result'),
      fails: () =>
        send(token, 'POST', '/workers/complete', { ...who, results: [{ ...ref, type: 'noop', durationMs: 1, error }] }),
      returns: () => send(token, 'POST', '/workers/return', { ...who, jobs: [ref] }),
    }
  }

  const owner = await key('owner')
  const workId = (
    await api.call('PUT', '/enqueue?type=noop', {
      headers: { authorization: `Bearer ${operatorKey}`, 'content-type': 'application/octet-stream' },
      body: 'a payload that is not inline',
    })
  ).body['Work ID']
  t.equal((await beat(owner, 'victim')).status, 200)
  const old = await take()
  t.equal(old.workId, workId)
  t.equal(
    (await put(owner, `/workers/checkpoints/${workId}?token=${encodeURIComponent(old.token)}`, 'mine, and kept'))
      .status,
    200,
  )

  const images = await key('images', ['images'])
  t.equal((await beat(images, 'of-images', {}, 'images')).status, 200)
  const neighbour = await key('neighbour')
  t.equal((await beat(neighbour, 'thief')).status, 200)
  const instance = (await beat(api.access.mintFirstToken('i-token', 'default').token, 'token')).body.token as string
  const strangers: [what: string, token: string, workerId: string][] = [
    ['a key of another queue, as itself', images, 'of-images'],
    ['a key of another queue, as the holder', images, 'victim'],
    ['another key, as its own worker', neighbour, 'thief'],
    ['another key, as the holder', neighbour, 'victim'],
    ['a worker token, as itself', instance, 'token'],
    ['a worker token, as the holder', instance, 'victim'],
  ]
  for (const [who, token, workerId] of strangers)
    for (const [what, use] of Object.entries(uses(token, workerId, old))) {
      const { status, body } = await use()
      t.match({ status, body }, { status: 403, body: { code: 'forbidden' } }, `${who}: ${what}`)
    }
  t.ok(await api.jobs.of('default').leases.holds(old), 'it is held as before')

  t.match((await send(owner, 'POST', '/workers/return', { workerId: 'victim', queue: 'default', jobs: [old] })).body, {
    returned: 1,
  })
  const lease = await take()
  t.equal(lease.workId, workId)
  t.not(lease.token, old.token)
  const replies: Record<string, Reply> = {}
  for (const [what, use] of Object.entries(uses(owner, 'victim', old))) replies[what] = await use()
  t.match(replies.extends, { status: 200, body: { stop: [{ workId, reason: 'lost' }] } })
  for (const what of ['reads the payload', 'reads the checkpoint', 'keeps a checkpoint', 'uploads a result'])
    t.match(replies[what], { status: 409, body: { code: 'lease_lost' } }, `an attempt before: ${what}`)
  t.match(replies.fails, { status: 200, body: { results: [{ outcome: 'stale' }] } })
  t.match(replies.returns, { status: 200, body: { returned: 0 } })
  const reader = { headers: { authorization: `Bearer ${operatorKey}` } }
  const job = (await api.call('GET', `/jobs/${workId}`, reader)).body
  t.equal(job.state, 'running')
  t.notMatch(JSON.stringify(job), /forged/)
  t.notMatch(JSON.stringify((await api.call('GET', `/jobs/${workId}/logs`, reader)).body), /forged/)

  const { 'reads the payload': payload, 'reads the checkpoint': checkpoint, fails } = uses(owner, 'victim', lease)
  t.equal((await payload()).body.toString(), 'a payload that is not inline', 'its own goes on')
  t.equal((await checkpoint()).body.toString(), 'mine, and kept', 'nobody replaced it')
  t.match((await fails()).body, { results: [{ outcome: 'dead' }] })
})
