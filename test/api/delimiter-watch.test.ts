import t from 'tap'
import { watchDelimiters } from '../../src/api/bodies/multipart.ts'

const type = 'multipart/form-data; boundary="x y"'

/** In pieces of this many bytes. */
function isDelimited(body: string, size: number): boolean {
  const watch = watchDelimiters(type)
  const bytes = Buffer.from(body, 'latin1')
  for (let at = 0; at < bytes.length; at += size) if (!watch(bytes.subarray(at, at + size))) return false
  return true
}

t.test('a delimiter is followed by two dashes or the end of the line, however the body is cut', async t => {
  const head = '--x y\r\nContent-Disposition: form-data; name="data"\r\n\r\n'
  const fine = [
    `${head}hi\r\n--x y--\r\n`,
    `${head}hi\r\n--x y \t\r\nContent-Disposition: form-data; name="b"\r\n\r\n\r\n--x y--`,
    `${head}hi\r\n--x y--\r\n\r\n--x yz: what comes after the end is nobody's`,
    `${head}\r\n--x\r\n--x \r\n\r\n--x y--`,
    `${head}never ends`,
  ]
  const bad = ['z', '-z', ' z', '\rz', '\n', ' --', '\0', ' '.repeat(2000)].map(
    goesOn => `${head}hi\r\n--x y${goesOn}more\r\n--x y--\r\n`,
  )
  for (let size = 1; size < 90; size += 1) {
    t.same(
      fine.map(body => isDelimited(body, size)),
      fine.map(() => true),
      `pieces of ${size}`,
    )
    t.same(
      bad.map(body => isDelimited(body, size)),
      bad.map(() => false),
      `pieces of ${size}`,
    )
  }
})

t.test('a header without a boundary is for the parser to refuse', async t => {
  for (const header of ['multipart/form-data', 'nonsense', 'multipart/form-data; boundary='])
    t.equal(watchDelimiters(header)(Buffer.from('\r\n--x')), true, header)
})
