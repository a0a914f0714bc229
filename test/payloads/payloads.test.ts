import { createHash, randomBytes } from 'node:crypto'
import { mkdir, readdir, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import t, { type Test } from 'tap'
import { checkedStream, PayloadDamagedError } from '../../src/payloads/checked-stream.ts'
import { FolderStore } from '../../src/payloads/folder-store.ts'
import { PayloadTooLargeError } from '../../src/payloads/payload-store.ts'
import { spool } from '../../src/payloads/spool.ts'
import { payloadStoreContract } from '../contracts/payload-store-contract.ts'
import { MemoryStore } from '../support/memory-store.ts'

const sha256 = (content: Uint8Array): string => createHash('sha256').update(content).digest('hex')
const filesBelow = async (folder: string): Promise<string[]> =>
  (await readdir(folder, { recursive: true, withFileTypes: true }))
    .filter(entry => entry.isFile())
    .map(entry => entry.name)

payloadStoreContract(t, 'FolderStore', async (t: Test) => new FolderStore(join(t.testdir({}), 'payloads')))
payloadStoreContract(t, 'MemoryStore', async () => new MemoryStore())

t.test('FolderStore keeps its files private and in shards, and survives a restart', async t => {
  const root = join(t.testdir({}), 'payloads')
  const store = new FolderStore(root)
  await store.start()
  await store.put('q/job', Buffer.from('hello'), { maxBytes: 100 })
  const shard = sha256(Buffer.from('q/job')).slice(0, 2)
  const file = join(root, shard, 'q%job')
  t.equal((await stat(file)).mode & 0o777, 0o600)
  t.equal((await stat(root)).mode & 0o777, 0o700)
  const again = new FolderStore(root)
  await again.start()
  const found = await again.get('q/job')
  t.equal(String(found && (await buffer(found.stream))), 'hello')
})

t.test('FolderStore leaves no temporary file after a failure, and sweeps those of a killed node', async t => {
  const root = join(t.testdir({}), 'payloads')
  const store = new FolderStore(root)
  await t.rejects(store.put('big', Buffer.alloc(500_000), { maxBytes: 1000 }), PayloadTooLargeError)
  t.same(await filesBelow(root), [])
  const [old, recent] = [join(root, 'tmp', 'old'), join(root, 'tmp', 'recent')]
  await mkdir(join(root, 'tmp'), { recursive: true })
  await writeFile(old, 'half')
  await writeFile(recent, 'half')
  const now = Date.now()
  await utimes(old, new Date(now - 3_700_000), new Date(now - 3_700_000))
  await store.start(now)
  t.same(await filesBelow(root), ['recent'])
})

t.test('spool keeps few bytes in memory and sends more to the store, exact at both limits', async t => {
  const store = new FolderStore(join(t.testdir({}), 'payloads'))
  const spoolBytes = (size: number, chunk: number) => {
    const content = randomBytes(size)
    const pieces = Array.from({ length: Math.ceil(size / chunk) }, (_, i) =>
      content.subarray(i * chunk, (i + 1) * chunk),
    )
    const source = (async function* () {
      yield* pieces
    })()
    return { content, outcome: spool(source, { inlineBytes: 1000, maxBytes: 200_000, store, key: `s/${size}` }) }
  }
  for (const size of [0, 1, 999, 1000]) {
    const { content, outcome } = spoolBytes(size, 300)
    t.same(await outcome, { inline: content }, `${size} inline`)
  }
  for (const size of [1001, 1300, 200_000]) {
    const { content, outcome } = spoolBytes(size, 300)
    t.same(await outcome, { blob: { key: `s/${size}`, bytes: size, sha256: sha256(content) } }, `${size} in the store`)
    const found = await store.get(`s/${size}`)
    t.ok(found && (await buffer(found.stream)).equals(content))
  }
  await t.rejects(spoolBytes(200_001, 300).outcome, PayloadTooLargeError)
  t.equal(await store.get('s/200001'), undefined)
  const small = Readable.from([Buffer.alloc(11)])
  await t.rejects(
    spool(small, { inlineBytes: 1000, maxBytes: 10, store, key: 'm' }),
    PayloadTooLargeError,
    'a limit below inlineBytes counts',
  )
})

t.test('spool: a client that goes away leaves nothing; one that sends too much can still be answered', async t => {
  const root = join(t.testdir({}), 'payloads')
  const store = new FolderStore(root)
  const gone = new PassThrough()
  const outcome = spool(gone, { inlineBytes: 10, maxBytes: 1_000_000, store, key: 'gone' })
  gone.write(Buffer.alloc(50_000))
  const halfWay = async (): Promise<boolean> => (await readdir(join(root, 'tmp')).catch(() => [])).length > 0
  while (!(await halfWay())) await new Promise(resolve => setImmediate(resolve))
  gone.destroy(new Error('aborted'))
  await t.rejects(outcome, { message: 'aborted' })
  t.same(await filesBelow(root), [])

  const large = new PassThrough()
  const tooLarge = spool(large, { inlineBytes: 10, maxBytes: 1000, store, key: 'large' })
  large.write(Buffer.alloc(2000))
  await t.rejects(tooLarge, PayloadTooLargeError)
  t.notOk(large.destroyed, 'the request stays open for its reply')
  large.resume()
  large.end(Buffer.alloc(100_000))
  await new Promise(resolve => large.once('end', resolve))
  t.same(await filesBelow(root), [], 'and can be read to its end')
})

t.test('spool holds the source back when the store is slow', async t => {
  let pulled = 0
  let release = (): void => undefined
  const slow = new MemoryStore()
  const put = slow.put.bind(slow)
  slow.put = async (key, content, limits) => {
    await new Promise<void>(resolve => {
      release = resolve
    })
    return put(key, content, limits)
  }
  const source = Readable.from(
    (function* () {
      for (let i = 0; i < 1000; i++) {
        pulled++
        yield Buffer.alloc(10_000)
      }
    })(),
    { objectMode: false },
  )
  const outcome = spool(source, { inlineBytes: 10, maxBytes: 20_000_000, store: slow, key: 'k' })
  for (let turn = 0; turn < 200; turn++) await new Promise(resolve => setImmediate(resolve))
  t.ok(pulled < 100, `${pulled} of 1000 chunks were read ahead`)
  release()
  t.match(await outcome, { blob: { bytes: 10_000_000 } })
})

t.test('checkedStream passes what is right and never hands out all of what is wrong', async t => {
  const content = randomBytes(300_000)
  const right = { bytes: content.byteLength, sha256: sha256(content) }
  const pass = async (bytes: Buffer, expected: typeof right): Promise<{ got: number; error: unknown }> => {
    let got = 0
    const source = Readable.from(
      [bytes.subarray(0, 100_000), bytes.subarray(100_000)].filter(part => part.byteLength > 0),
    )
    try {
      await pipeline(source, checkedStream(expected), async (chunks: AsyncIterable<Buffer>) => {
        for await (const chunk of chunks) got += chunk.byteLength
      })
      return { got, error: undefined }
    } catch (error) {
      return { got, error }
    }
  }
  t.same(await pass(content, right), { got: 300_000, error: undefined })
  t.same(await pass(Buffer.alloc(0), { bytes: 0, sha256: sha256(Buffer.alloc(0)) }), { got: 0, error: undefined })
  const flipped = Buffer.from(content)
  flipped[299_999] = (content[299_999] ?? 0) ^ 1
  for (const [what, wrong] of [
    ['one bit', flipped],
    ['too short', content.subarray(0, 299_999)],
    ['too long', Buffer.concat([content, Buffer.alloc(1)])],
    ['empty', Buffer.alloc(0)],
  ] as const) {
    const { got, error } = await pass(wrong, right)
    t.type(error, PayloadDamagedError, what)
    t.ok(got < 300_000, `${what}: ${got} bytes got through`)
  }
})
