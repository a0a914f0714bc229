import { runInNewContext } from 'node:vm'
import t from 'tap'
import { encodeFrame, encodeFrameHead, FrameReader } from '../../../src/worker/protocol/frames.ts'

t.test('frames survive any cut', async t => {
  const large = Buffer.alloc(200_000, 'xyz')
  const stream = Buffer.concat([
    encodeFrame({ k: 'a' }),
    encodeFrame({ k: 'ü' }, 'grün'),
    encodeFrameHead({ k: 'large' }, large.length),
    large,
    encodeFrame({ k: 'b' }, Buffer.from([0, 1, 2])),
  ])
  const expected = [
    ['a', ''],
    ['ü', Buffer.from('grün').toString('hex')],
    ['large', large.toString('hex')],
    ['b', '000102'],
  ]
  for (const size of [3, 7, 8, 9, 1000, 65_536, stream.length]) {
    const seen: string[][] = []
    const reader = new FrameReader<{ k: string }>((header, body) => seen.push([header.k, body.toString('hex')]))
    for (let start = 0; start < stream.length; start += size) reader.push(stream.subarray(start, start + size))
    t.ok(JSON.stringify(seen) === JSON.stringify(expected), `in pieces of ${size}`)
  }
})

t.test('a body is bytes of any realm, text, or several parts', t => {
  const seen: string[] = []
  const reader = new FrameReader<{ k: string }>((header, body) => seen.push(`${header.k} ${body.toString('hex')}`))
  reader.push(encodeFrame({ k: 'vm' }, runInNewContext('new Uint8Array([1, 2, 3])') as Uint8Array))
  reader.push(encodeFrame({ k: 'parts' }, [Buffer.from([1]), Buffer.alloc(0), Buffer.from([2, 3])]))
  reader.push(encodeFrame({ k: 'none' }, []))
  t.same(seen, ['vm 010203', 'parts 010203', 'none '])
  t.end()
})
