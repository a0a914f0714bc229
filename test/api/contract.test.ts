import { createHash, randomBytes } from 'node:crypto'
import t from 'tap'
import { startTestApi } from '../support/api.ts'

const octets = { 'content-type': 'application/octet-stream' }

t.test('the contract of the three calls', async t => {
  const api = await startTestApi(t)
  const worker = api.worker()
  await worker.heartbeat()

  await t.test('PUT /enqueue takes the data byte for byte in all body forms', async t => {
    const samples = [
      Buffer.alloc(0),
      Buffer.from('hello world & more = 100 %+'),
      Buffer.from('Grüße ☃\r\n'),
      randomBytes(1000),
      Buffer.from([...Array(256).keys()]),
    ]
    const urlencode = (data: Buffer): string => [...data].map(byte => `%${byte.toString(16).padStart(2, '0')}`).join('')
    const part = (data: Buffer, disposition: string): Buffer =>
      Buffer.concat([
        Buffer.from(`--xyz\r\nContent-Disposition: form-data; ${disposition}\r\n\r\n`),
        data,
        Buffer.from('\r\n--xyz--\r\n'),
      ])
    const forms: [string, (data: Buffer) => { headers: Record<string, string>; body: Buffer | string }][] = [
      ['raw', data => ({ headers: octets, body: data })],
      [
        'base64',
        data => ({
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ data: data.toString('base64') }),
        }),
      ],
      [
        'form',
        data => ({ headers: { 'content-type': 'application/x-www-form-urlencoded' }, body: `data=${urlencode(data)}` }),
      ],
      [
        'form with charset',
        data => ({
          headers: { 'content-type': 'application/x-www-form-urlencoded; charset=utf-8' },
          body: `data=${urlencode(data)}`,
        }),
      ],
      [
        'multipart file',
        data => ({
          headers: { 'content-type': 'multipart/form-data; boundary=xyz' },
          body: part(data, 'name="data"; filename="f.bin"'),
        }),
      ],
      [
        'multipart field',
        data => ({ headers: { 'content-type': 'multipart/form-data; boundary=xyz' }, body: part(data, 'name="data"') }),
      ],
    ]
    for (const [form, make] of forms) {
      for (const data of samples) {
        const put = await api.call('PUT', '/enqueue?iterations=7', make(data))
        t.equal(put.status, 200, `${form}, ${data.length} bytes: ${JSON.stringify(put.body)}`)
        t.strictSame(Object.keys(put.body), ['Work ID'])
        const [lease] = await worker.claim()
        t.equal(lease?.workId, put.body['Work ID'])
        t.equal(lease?.type, 'sha512')
        t.strictSame(lease?.params, { iterations: 7 })
        t.strictSame(lease?.payload, { base64: data.toString('base64') }, `${form}: the bytes arrive`)
        if (lease) await worker.complete(lease, { value: { json: 'x' } })
      }
    }
    await api.call('POST', '/pullCompleted?top=1000')
  })

  await t.test('POST /pullCompleted hands out each value once, oldest first, at most top', async t => {
    t.strictSame((await api.call('POST', '/pullCompleted?top=5')).body, [])
    const ids: string[] = []
    for (let index = 0; index < 5; index += 1) {
      const { body } = await api.call('PUT', '/enqueue?iterations=1', { headers: octets, body: `${index}` })
      ids.push(body['Work ID'])
      const [lease] = await worker.claim()
      if (lease)
        await worker.complete(lease, { value: { json: createHash('sha512').update(`${index}`).digest('hex') } })
    }
    const first = (await api.call('POST', '/pullCompleted?top=3')).body
    const second = (await api.call('POST', '/pullCompleted?top=3')).body
    t.strictSame(
      [...first, ...second].map((entry: Record<string, string>) => entry['Work ID']),
      ids,
    )
    t.strictSame(first[1], { 'Work ID': ids[1], Value: createHash('sha512').update('1').digest('hex') })
    t.strictSame((await api.call('POST', '/pullCompleted?top=3')).body, [])
    const read = await api.call('GET', `/jobs/${ids[0]}/result`)
    t.equal(read.body.value, first[0].Value, 'a collected result stays readable')
    t.equal((await api.call('GET', `/jobs/${ids[0]}`)).body.collection, 'acked')
  })

  await t.test('GET /status counts what waits and who works', async t => {
    t.match((await api.call('GET', '/status')).body, { Jobs: 0, Workers: 1, Running: 0 })
    await api.call('PUT', '/enqueue?iterations=1', { headers: octets, body: 'a' })
    await api.call('PUT', '/enqueue?iterations=1&delayMs=60000', { headers: octets, body: 'a' })
    const [lease] = await worker.claim()
    await api.call('PUT', '/enqueue?iterations=1&priority=3', { headers: octets, body: 'a' })
    t.match((await api.call('GET', '/status')).body, {
      Jobs: 1,
      Workers: 1,
      Running: 1,
      Delayed: 1,
      Uncollected: 0,
      Dead: 0,
    })
    if (lease) await worker.complete(lease, { value: { json: 1 } })
    t.match((await api.call('GET', '/status')).body, { Jobs: 1, Running: 0, Uncollected: 1 })
  })
})

t.test('leases on results', async t => {
  const api = await startTestApi(t)
  const worker = api.worker()
  await worker.heartbeat()
  const make = async (count: number): Promise<string[]> => {
    const ids: string[] = []
    for (let index = 0; index < count; index += 1) {
      ids.push((await api.call('PUT', '/enqueue?iterations=1', { headers: octets, body: 'a' })).body['Work ID'])
      const [lease] = await worker.claim()
      if (lease) await worker.complete(lease, { value: { json: index } })
    }
    return ids
  }
  const pull = async (query: string) => await api.call('POST', `/pullCompleted?${query}`)

  await t.test('what is leased goes to nobody else until it is acked or its time is up', async t => {
    const ids = await make(3)
    const leased = await pull('top=2&leaseMs=4000')
    t.equal(leased.body.length, 2)
    t.strictSame(
      (await pull('top=9&leaseMs=60000')).body.map((entry: Record<string, string>) => entry['Work ID']),
      ids.slice(2),
    )
    const acked = await api.call('POST', '/pullCompleted/ack', {
      json: { leaseId: leased.headers.get('muster-lease-id'), workIds: [ids[0], 'nonsense'] },
    })
    t.strictSame(acked.body, { acked: 1, notHeld: ['nonsense'] })
    const again = await pull('top=9&waitMs=30000&leaseMs=60000')
    t.strictSame(
      again.body.map((entry: Record<string, string>) => entry['Work ID']),
      [ids[1]],
      'the one not acked comes back when its time is up',
    )
    const late = await api.call('POST', '/pullCompleted/ack', {
      json: { leaseId: leased.headers.get('muster-lease-id'), workIds: [ids[1]] },
    })
    t.strictSame(late.body, { acked: 0, notHeld: [ids[1]] }, 'the old holder cannot ack it any more')
    t.strictSame((await api.call('POST', '/pullCompleted/ack', { json: { workIds: [ids[1], ids[2]] } })).body, {
      acked: 2,
      notHeld: [],
    })
    t.equal(
      (await api.call('POST', '/pullCompleted/ack', { json: { leaseId: again.headers.get('muster-lease-id') } })).body
        .code,
      'lease_not_found',
    )
  })

  await t.test('a whole lease is acked by its id', async t => {
    await make(3)
    const leased = await pull('top=9&leaseMs=60000')
    t.strictSame(
      (await api.call('POST', '/pullCompleted/ack', { json: { leaseId: leased.headers.get('muster-lease-id') } })).body,
      { acked: 3, notHeld: [] },
    )
    t.strictSame((await pull('top=9')).body, [])
  })

  await t.test('a long poll ends when a result comes, and a client that goes away takes nothing along', async t => {
    const gone = new AbortController()
    const lost = pull('top=1&waitMs=30000').catch(() => undefined)
    const aborted = api.call('POST', '/pullCompleted?top=1&waitMs=30000', { signal: gone.signal }).catch(() => 'gone')
    gone.abort()
    t.equal(await aborted, 'gone')
    const [id] = await make(1)
    t.equal((await lost)?.body[0]['Work ID'], id)
  })

  await t.test('maxBytes bounds a reply, but the first result always comes', async t => {
    for (let index = 0; index < 3; index += 1) {
      await api.call('PUT', '/enqueue?iterations=1', { headers: octets, body: 'a' })
      const [lease] = await worker.claim()
      if (lease) await worker.complete(lease, { value: { json: 'x'.repeat(1000) } })
    }
    t.equal((await pull('top=9&maxBytes=1500')).body.length, 1)
    t.equal((await pull('top=9&maxBytes=10')).body.length, 1)
    t.equal((await pull('top=9')).body.length, 1)
  })
})
