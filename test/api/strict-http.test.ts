import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import t from 'tap'
import { startTestApi } from '../support/api.ts'

/** The reply to a request that no client library would send. */
async function send(url: string, lines: readonly string[], body = ''): Promise<{ status: number; body: string }> {
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  socket.write(`${[...lines, 'Connection: close'].join('\r\n')}\r\n\r\n${body}`)
  const reply = await text(socket)
  return { status: Number(reply.split(' ')[1]), body: reply.slice(reply.indexOf('\r\n\r\n') + 4) }
}

t.test('bodies that would have to be decoded, other expectations and a second host are refused', async t => {
  const api = await startTestApi(t)
  const put = 'PUT /enqueue?iterations=1 HTTP/1.1'
  const octets = 'Content-Type: application/octet-stream'
  const gzip = await send(api.url, [put, 'Host: localhost', octets, 'Content-Encoding: gzip', 'Content-Length: 1'], 'x')
  t.match(gzip, { status: 415, body: /"code":"content_encoding_unsupported"/ })
  const chunks = ['Transfer-Encoding: gzip, chunked']
  const transfer = await send(api.url, [put, 'Host: localhost', octets, ...chunks], '1\r\nx\r\n0\r\n\r\n')
  t.match(transfer, { status: 415, body: /"code":"content_encoding_unsupported"/ })
  const expects = await send(api.url, [put, 'Host: localhost', octets, 'Expect: a-miracle', 'Content-Length: 1'], 'x')
  t.match(expects, { status: 417, body: /"code":"expectation_unsupported"/ })
  t.equal((await api.call('GET', '/status')).body.Jobs, 0, 'nothing was put in')
  const identity = ['Content-Encoding: identity', 'Expect: 100-continue', 'Content-Length: 1']
  t.match((await send(api.url, [put, 'Host: localhost', octets, ...identity], 'x')).status, /^(100|200)$/)

  const get = 'GET /status HTTP/1.1'
  for (const host of ['localhost', '127.0.0.1:5000', '[::1]:5000', 'LOCALHOST:1'])
    t.equal((await send(api.url, [get, `Host: ${host}`])).status, 200, host)
  for (const host of ['localhost/x', 'a b', 'user@localhost', 'localhost:x', '[::1', ''])
    t.match(await send(api.url, [get, `Host: ${host}`]), { status: 400, body: /request_invalid/ }, `"${host}"`)
  t.match(await send(api.url, [get, 'Host: localhost', 'Host: localhost']), { status: 400, body: /more than one/ })
  t.match(await send(api.url, [get]), { status: 400, body: /request_invalid.*no header Host/ })
  t.equal((await send(api.url, ['GET /livez HTTP/1.0'])).status, 200, 'HTTP/1.0 has none')
  const types = [octets, 'Content-Type: application/json', 'Content-Length: 1']
  const two = await send(api.url, [put, 'Host: localhost', ...types], '1')
  t.match(two, { status: 400, body: /request_invalid.*more than one header content-type/ })
  const keys = ['Authorization: Bearer a', 'authorization: Bearer b']
  t.match(await send(api.url, [get, 'Host: localhost', ...keys]), { status: 400, body: /more than one/ })
})

t.test('no name that every object has passes for a parameter', async t => {
  const api = await startTestApi(t)
  for (const name of ['__proto__', 'constructor', 'toString', 'hasOwnProperty'])
    for (const path of ['/jobs', '/pullCompleted?top=1', '/status']) {
      const method = path.startsWith('/pull') ? 'POST' : 'GET'
      const reply = await api.call(method, `${path}${path.includes('?') ? '&' : '?'}${name}=1`)
      t.match(reply, { status: 400, body: { code: 'parameter_unknown' } }, `${name} of ${path}`)
    }
})

t.test('the retry of a cancelled job says that it was cancelled', async t => {
  const api = await startTestApi(t)
  const { body } = await api.call('PUT', '/enqueue?type=noop')
  await api.call('DELETE', `/jobs/${body['Work ID']}`)
  t.match(await api.call('POST', `/jobs/${body['Work ID']}/retry`), { status: 409, body: { code: 'job_cancelled' } })
})

t.test('what looks like JSON but says otherwise is told how to say it', async t => {
  const api = await startTestApi(t)
  const form = { 'content-type': 'application/x-www-form-urlencoded' }
  const asForm = await api.call('PUT', '/enqueue?type=noop', { headers: form, body: '{"payload":{"a":1}}' })
  t.match(asForm, { status: 415, body: { detail: /Content-Type: application\/json/ } })
  const bare = await api.call('PUT', '/enqueue?type=noop', { json: { text: 'x' } })
  t.match(bare, { status: 400, body: { detail: /Did you mean {"payload": {"text": …}}\?/ } })
})
