/** Refusals are obeyed and counted; one that cannot be obeyed is a fault. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { Http } from './http.ts'

interface Answer {
  readonly status: number
  readonly retryAfter?: string
}

async function against(t: Test, answers: readonly Answer[]) {
  const left = [...answers]
  const asked: { at: number; body: string; key: string | undefined }[] = []
  const server = createServer(async (request, response) => {
    let body = ''
    for await (const chunk of request) body += chunk
    asked.push({ at: Date.now(), body, key: request.headers.authorization })
    const { status, retryAfter } = left.shift() ?? { status: 200 }
    response.writeHead(status, retryAfter === undefined ? {} : { 'retry-after': retryAfter })
    response.end(JSON.stringify({ code: status === 429 ? 'too_many_requests' : 'overloaded' }))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const wrong: string[] = []
  const onWrong = (sentence: string): void => void wrong.push(sentence)
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return { http: new Http([url], { onServerError: onWrong, onWrongRefusal: onWrong }), asked, wrong }
}

t.test('429 is obeyed and counted: the same request comes again, not before its time', async t => {
  const { http, asked, wrong } = await against(t, [{ status: 429, retryAfter: '1' }])
  t.match(await http.call('PUT', '/enqueue', { body: 'data' }), { status: 200 })
  t.strictSame(
    asked.map(({ body }) => body),
    ['data', 'data'],
  )
  // Timers may be early by a millisecond.
  t.ok((asked[1]?.at ?? 0) - (asked[0]?.at ?? 0) >= 990)
  t.strictSame([http.refusals, wrong], [{ too_many_requests: 1 }, []])
})

t.test('503 is handed on and counted', async t => {
  const { http, wrong } = await against(t, [{ status: 503, retryAfter: '10' }])
  t.match(await http.call('PUT', '/enqueue'), { status: 503 })
  t.strictSame([http.refusals, wrong], [{ overloaded: 1 }, []])
})

t.test('a refusal without Retry-After is a fault', async t => {
  for (const status of [429, 503]) {
    const { http, wrong } = await against(t, [{ status }])
    await http.call('GET', '/status')
    t.match(wrong, [/^GET \/status: \d+ \w+ for the 1th time, Retry-After: NaN/])
  }
})

t.test('each owner has a key', async t => {
  const { http, asked } = await against(t, [])
  t.equal(http.hasOther, false)
  http.useKeys('one', 'two')
  await http.call('GET', '/status')
  await http.call('GET', '/status', { asOther: true })
  t.strictSame(
    asked.map(({ key }) => key),
    ['Bearer one', 'Bearer two'],
  )
})
