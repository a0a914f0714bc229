import t from 'tap'
import { maxJsonDepth, parseJson, printExact } from '../../src/api/bodies/json-text.ts'
import type { Lease } from '../../src/contract/worker-protocol.ts'
import { startTestApi } from '../support/api.ts'

const json = { 'content-type': 'application/json' }
const nested = (levels: number): string => '['.repeat(levels) + ']'.repeat(levels)

t.test('the depth is looked at before the text is parsed', async t => {
  const parse = (text: string) => parseJson(Buffer.from(text), true)
  t.doesNotThrow(() => parse(nested(maxJsonDepth)))
  t.throws(() => parse(nested(maxJsonDepth + 1)), { code: 'json_too_deep' })
  t.throws(() => parse('['.repeat(1_000_000)), { code: 'json_too_deep' })
  t.throws(() => parse('{"a":'.repeat(300)), { code: 'json_too_deep' })
  t.doesNotThrow(() => parse(JSON.stringify(['[{'.repeat(400), '\\"[['.repeat(400)])), 'brackets in strings')
  t.throws(() => parse('['), { code: 'json_invalid' })
  t.throws(() => parseJson(Buffer.from([0x22, 0xff, 0x22]), false), { code: 'json_invalid' })
})

t.test('numbers that a double cannot hold are noticed', async t => {
  for (const text of ['1970670598291982290', '1e400', '-0', '1.0', '9007199254740993', '{"a":[0.1,-0]}', '1E5']) {
    const { exact } = parseJson(Buffer.from(text), true)
    t.equal(printExact(exact), text)
  }
  for (const text of ['1', '-1', '0.1', '"-0"', '"a\\"1e400"', '[123456789012345,1.5,true]', '9007199254740991'])
    t.notHas(parseJson(Buffer.from(text), true), { exact: /./ }, text)
  t.equal(parseJson(Buffer.from('-0'), false).exact, undefined)
  t.equal(printExact(parseJson(Buffer.from('{"a":-0,"a":1.0,"__proto__":1}'), true).exact), '{"a":1.0,"__proto__":1}')
})

t.test('deep JSON is refused at every door, and nothing of it is kept', async t => {
  const api = await startTestApi(t)
  const refuses = async (method: string, path: string, body: string, headers = json) =>
    t.match(await api.call(method, path, { headers, body }), { status: 400, body: { code: 'json_too_deep' } }, path)
  for (const levels of [256, 4106, 10_000]) await refuses('PUT', '/enqueue?type=noop', `{"payload":${nested(levels)}}`)
  t.equal((await api.call('GET', '/status')).body.Jobs, 0)
  t.equal(
    (await api.call('PUT', '/enqueue?type=noop', { headers: json, body: `{"payload":${nested(255)}}` })).status,
    200,
  )
  await refuses('POST', '/keys', `{"name":${nested(300)}}`)
  const worker = api.worker()
  await worker.heartbeat()
  const [lease] = (await worker.claim()) as [Lease]
  const { workId, token, type } = lease
  await refuses(
    'POST',
    '/workers/complete',
    `{"workerId":"w1","queue":"default","results":[{"workId":"${workId}","token":"${token}","type":"${type}","durationMs":1,"value":{"json":${nested(300)}}}]}`,
  )
  await refuses('PUT', `/workers/results/${workId}?token=${encodeURIComponent(token)}&kind=json`, nested(300), {
    'content-type': 'application/octet-stream',
  })
  t.match((await worker.complete(lease, { value: { json: JSON.parse(nested(200)) } })).results, [
    { outcome: 'succeeded' },
  ])
})

t.test('numbers reach workers, and their results clients, as they were sent', async t => {
  const api = await startTestApi(t, { MUSTER_INLINE_BYTES: '200' })
  const text = '{"id":1970670598291982290,"big":1e400,"zero":-0,"one":1.0,"text":"a\\"b\\\\c\\n\u20ac"}'
  const raw = async (method: string, path: string, body?: string): Promise<string> =>
    await (await fetch(api.url + path, { method, ...(body !== undefined && { body, headers: json }) })).text()
  await api.call('PUT', '/enqueue?type=noop', { headers: json, body: `{ "payload": ${text} }` })
  await api.worker().heartbeat()
  const claimed = await raw('POST', '/workers/claim', '{"workerId":"w1","queue":"default","max":1}')
  t.ok(claimed.includes(`"payload":{"json":${text}}`), claimed)
  const { workId, token } = JSON.parse(claimed).jobs[0]
  const completion = `{"workerId":"w1","queue":"default","claim":1,"results":[{"workId":"${workId}","token":"${token}","type":"noop","durationMs":1.0,"value":{"json":${text}}}]}`
  await api.call('PUT', '/enqueue?type=noop', { headers: json, body: `{"payload":${text}}` })
  const completed = await raw('POST', '/workers/complete', completion)
  t.ok(completed.includes(`"payload":{"json":${text}}`), 'the next job comes with the completion')
  t.equal(await raw('GET', `/jobs/${workId}/result`), `{"workId":"${workId}","value":${text}}`)
  t.equal(await raw('POST', '/pullCompleted?top=1'), `[{"Work ID":"${workId}","Value":${text}}]`)

  const long = `{"id":1970670598291982290,"text":"${'x'.repeat(300)}"}`
  const { body } = await api.call('PUT', '/enqueue?type=noop', { headers: json, body: `{"payload":${long}}` })
  const [lease] = (await api.worker().claim()) as [Lease & { payload: { blob: { url: string } } }]
  t.equal(lease.workId, body['Work ID'])
  t.equal(await raw('GET', lease.payload.blob.url), long, 'over the inline limit, too')
})

t.test('a payload is checked by its schema whatever its numbers are', async t => {
  const api = await startTestApi(t)
  const call = async (payload: string) =>
    await api.call('PUT', '/enqueue?type=sleep', { headers: json, body: `{"payload":${payload}}` })
  t.equal((await call('{"ms":1.0}')).status, 200)
  const refused = await call('{"ms":-1.0}')
  t.match(refused, { status: 400, body: { code: 'payload_invalid' } })
  t.equal(refused.body.detail.match(/payload/gi)?.length, 2, 'said once')
})
