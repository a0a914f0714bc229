/** Bodies in all four forms, damaged at random (the same way in every run): each gets its answer, and the node lives. */
import t from 'tap'
import { startTestApi } from '../support/api.ts'

/** Mulberry32: the same numbers in every run. */
function random(seed: number): (below: number) => number {
  let state = seed
  return below => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

const part = (header: string): string => `--b\r\nContent-Disposition: form-data; ${header}\r\n\r\nhi\r\n`
const forms: readonly { type: string; body: string }[] = [
  { type: 'application/octet-stream', body: 'some bytes' },
  { type: 'multipart/form-data; boundary=b', body: `${part('name="data"; filename="a.bin"')}--b--\r\n` },
  { type: 'multipart/form-data; boundary=b', body: `${part('name="data"')}${part('name="x"; filename="y"')}--b--\r\n` },
  { type: 'application/json', body: '{"payload":{"a":[1,2.5,-0,1e400,"x\\u0041"],"b":null}}' },
  { type: 'application/json', body: '{"data":"aGVsbG8="}' },
  { type: 'application/x-www-form-urlencoded', body: 'data=a%20b%ff&other=1' },
]
const snippets = ['\0', '"', '\\', '\r\n', '--b', '--b--', ';', '=', '%', '%f', 'name=', '{', '[', '\u00ff', 'e9']

function damage(text: string, next: (below: number) => number): Buffer {
  let bytes = Buffer.from(text, 'latin1')
  for (let times = 1 + next(3); times > 0; times -= 1) {
    const at = next(bytes.length + 1)
    const [before, after] = [bytes.subarray(0, at), bytes.subarray(at)]
    const snippet = Buffer.from(snippets[next(snippets.length)] as string, 'latin1')
    const ways = [
      () => before,
      () => Buffer.concat([before, after.subarray(1 + next(12))]),
      () => Buffer.concat([before, snippet, after]),
      () => Buffer.concat([before, Buffer.from([next(256)]), after.subarray(1)]),
      () => Buffer.concat([before, after.subarray(0, 20), after]),
    ] as const
    bytes = (ways[next(ways.length)] as () => Buffer<ArrayBuffer>)() as Buffer<ArrayBuffer>
  }
  return bytes
}

t.test('a part without a name is refused, however its header is broken', async t => {
  const api = await startTestApi(t)
  const headers = { 'content-type': 'multipart/form-data; boundary=b' }
  for (const header of ['filename="a.bin"', '', 'nam="data"', 'name', 'name*=UTF-8', 'filename="a"; name*=x']) {
    const reply = await api.call('PUT', '/enqueue?iterations=1', { headers, body: `${part(header)}--b--\r\n` })
    t.match(reply, { status: 400, body: { code: /multipart_invalid|parameter_unknown|data_missing/ } }, header)
  }
  t.equal((await api.call('GET', '/health/ready')).status, 200)
})

t.test('data that holds the boundary of its own form is refused, and is never cut', async t => {
  const api = await startTestApi(t, { MUSTER_INLINE_BYTES: '16' })
  const headers = { 'content-type': 'multipart/form-data; boundary=b' }
  const put = async (data: string) => {
    const body = `--b\r\nContent-Disposition: form-data; name="data"\r\n\r\n${data}\r\n--b--\r\n`
    return await api.call('PUT', '/enqueue?type=noop', { headers, body })
  }
  for (const goesOn of ['x', ' x', '-x', '\rx', '-', '\0'])
    for (const before of ['', 'a', 'a'.repeat(100), 'a'.repeat(300_000)]) {
      const reply = await put(`${before}\r\n--b${goesOn} and more`)
      t.match(
        reply,
        { status: 400, body: { code: 'multipart_invalid' } },
        `${before.length}, ${JSON.stringify(goesOn)}`,
      )
    }
  t.equal((await api.call('GET', '/status')).body.Jobs, 0, 'nothing was put in')
  for (const data of ['\r\n--', '\r\n--a', '\n--b', '--b', '\r--b--', '\r\n-b']) {
    const { body } = await put(`a${data}z`)
    const job = await api.call('GET', `/jobs/${body['Work ID']}?include=payload`)
    t.equal(Buffer.from(job.body.payload.base64, 'base64').toString(), `a${data}z`, JSON.stringify(data))
  }
})

t.test('500 damaged bodies: a 4xx or a 200 each', async t => {
  const api = await startTestApi(t, { MUSTER_INLINE_BYTES: '16' })
  const next = random(20_261_126)
  for (let index = 0; index < 500; index += 1) {
    const { type, body } = forms[index % forms.length] as (typeof forms)[number]
    const damaged = damage(body, next)
    const headers = { 'content-type': next(8) === 0 ? `${type};${'"='[next(2)]}` : type }
    const query = next(2) === 0 ? 'iterations=1' : 'type=noop'
    const { status, body: reply } = await api.call('PUT', `/enqueue?${query}`, { headers, body: damaged })
    const isFine = status === 200 || (status >= 400 && status < 500 && typeof reply.code === 'string')
    if (!isFine) t.fail(`${status} for ${type}: ${JSON.stringify(damaged.toString('latin1'))}`)
  }
  t.equal((await api.call('GET', '/health/ready')).status, 200)
})
