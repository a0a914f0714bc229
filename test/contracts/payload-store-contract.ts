/** What every PayloadStore promises; each test gets an empty store of its own. */
import { createHash, randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import type { Test } from 'tap'
import { InvalidPayloadKeyError, type PayloadStore, PayloadTooLargeError } from '../../src/payloads/payload-store.ts'

const sha256 = (content: Uint8Array): string => createHash('sha256').update(content).digest('hex')
const plenty = { maxBytes: 64 * 1024 * 1024 }

export function payloadStoreContract(t: Test, name: string, makeStore: (t: Test) => Promise<PayloadStore>): void {
  const read = async (store: PayloadStore, key: string): Promise<Buffer | undefined> => {
    const found = await store.get(key)
    if (found === undefined) return undefined
    const content = await buffer(found.stream)
    t.equal(found.bytes, content.byteLength, 'bytes says how many there are')
    return content
  }
  const keysOf = async (store: PayloadStore, olderThanMs = 0, now = Date.now() + 60_000): Promise<string[]> => {
    const keys: string[] = []
    for await (const key of store.list(olderThanMs, now)) keys.push(key)
    return keys.sort()
  }

  t.test(`${name}: what was put is got back, from a buffer or a stream of any size`, async t => {
    const store = await makeStore(t)
    for (const size of [0, 1, 65_536, 3_000_001]) {
      const content = randomBytes(size)
      const key = `sizes/${size}`
      t.same(await store.put(key, content, plenty), { bytes: size, sha256: sha256(content) }, `${size} as a buffer`)
      t.ok((await read(store, key))?.equals(content))
      const pieces = Array.from({ length: Math.ceil(size / 10_000) }, (_, i) =>
        content.subarray(i * 10_000, (i + 1) * 10_000),
      )
      const streamed = await store.put(`${key}/s`, Readable.from(pieces, { objectMode: false }), plenty)
      t.same(streamed, { bytes: size, sha256: sha256(content) }, `${size} as a stream`)
      t.ok((await read(store, `${key}/s`))?.equals(content))
    }
  })

  t.test(`${name}: absent keys, replacing and deleting`, async t => {
    const store = await makeStore(t)
    t.equal(await store.get('none'), undefined)
    await store.put('a', Buffer.from('first'), plenty)
    await store.put('a', Buffer.from('second'), plenty)
    t.equal(String(await read(store, 'a')), 'second')
    await store.put('a/b', Buffer.from('below'), plenty)
    t.equal(String(await read(store, 'a')), 'second', 'a key may be the start of another')
    const open = await store.get('a')
    await store.delete(['a', 'none'])
    t.equal(String(open && (await buffer(open.stream))), 'second', 'a read that has begun is not disturbed')
    t.equal(await store.get('a'), undefined)
    t.equal(String(await read(store, 'a/b')), 'below')
    await store.delete([])
    await store.delete(Array.from({ length: 50 }, (_, i) => `none/${i}`))
  })

  t.test(`${name}: the limit is exact, and nothing is left when it is passed`, async t => {
    const store = await makeStore(t)
    await store.put('at', Buffer.alloc(1000), { maxBytes: 1000 })
    await t.rejects(store.put('over', Buffer.alloc(1001), { maxBytes: 1000 }), PayloadTooLargeError)
    let pulled = 0
    const endless = Readable.from(
      (function* () {
        for (;;) {
          pulled++
          yield Buffer.alloc(1000)
        }
      })(),
      { objectMode: false, highWaterMark: 4000 },
    )
    await t.rejects(store.put('over', endless, { maxBytes: 100_000 }), PayloadTooLargeError)
    t.ok(pulled < 200, 'an endless stream is not read on')
    t.ok(endless.destroyed)
    t.same(await keysOf(store), ['at'])
  })

  t.test(`${name}: a source that breaks leaves nothing, and never disturbs what was there`, async t => {
    const store = await makeStore(t)
    await store.put('kept', Buffer.from('old'), plenty)
    const broken = (): Readable =>
      Readable.from(
        (async function* () {
          yield Buffer.alloc(100_000, 1)
          t.equal(String(await read(store, 'kept')), 'old', 'no reader sees a part')
          throw new Error('client gone')
        })(),
        { objectMode: false },
      )
    await t.rejects(store.put('kept', broken(), plenty), { message: 'client gone' })
    await t.rejects(store.put('fresh', broken(), plenty), { message: 'client gone' })
    t.equal(String(await read(store, 'kept')), 'old')
    t.same(await keysOf(store), ['kept'])
    const destroyed = new Readable({ read() {} })
    const put = store.put('fresh', destroyed, plenty)
    destroyed.destroy()
    await t.rejects(put)
    t.same(await keysOf(store), ['kept'])
  })

  t.test(`${name}: writes at once to many keys and to one`, async t => {
    const store = await makeStore(t)
    const contents = Array.from({ length: 40 }, (_, i) => Buffer.alloc(1000 + i, i))
    await Promise.all(contents.map((content, i) => store.put(`many/${i}`, content, plenty)))
    for (const [i, content] of contents.entries()) t.ok((await read(store, `many/${i}`))?.equals(content))
    await Promise.all(contents.map(content => store.put('one', content, plenty)))
    const winner = await read(store, 'one')
    t.ok(
      contents.some(content => winner?.equals(content)),
      'one of them, whole',
    )
  })

  t.test(`${name}: keys that could lead elsewhere are refused`, async t => {
    const store = await makeStore(t)
    for (const key of [
      '',
      '/a',
      'a/',
      'a//b',
      '..',
      'a/../b',
      '../../etc/passwd',
      'a b',
      'ä',
      'a\0',
      'a%2fb',
      'a\\b',
      'k'.repeat(241),
    ]) {
      await t.rejects(store.put(key, Buffer.from('x'), plenty), InvalidPayloadKeyError, `put ${JSON.stringify(key)}`)
      await t.rejects(store.get(key), InvalidPayloadKeyError)
      await t.rejects(store.delete(['fine', key]), InvalidPayloadKeyError)
    }
    for (const key of ['a', 'A', 'a.b', '~x', '-', '.hidden', 'q/V1StGXR8_Z5jdHi6B-myT/payload', 'k'.repeat(240)]) {
      await store.put(key, Buffer.from(key), plenty)
      t.equal(String(await read(store, key)), key)
    }
  })

  t.test(`${name}: list tells the keys by age`, async t => {
    const store = await makeStore(t)
    t.same(await keysOf(store), [], 'none in an empty store')
    const keys = Array.from({ length: 30 }, (_, i) => `age/${i}`).sort()
    for (const key of keys) await store.put(key, Buffer.from(key), plenty)
    const now = Date.now()
    t.same(await keysOf(store, 60_000, now), [], 'all too young')
    t.same(await keysOf(store, 60_000, now + 61_000), keys)
    await store.delete(keys.slice(1))
    t.same(await keysOf(store, 60_000, now + 61_000), keys.slice(0, 1))
  })
}
