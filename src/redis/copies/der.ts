/** As much of DER, the encoding of certificates, as it takes to write one. */

const tlv = (tag: number, ...parts: readonly Buffer[]): Buffer => {
  const content = Buffer.concat(parts)
  return Buffer.concat([Buffer.from([tag]), lengthOf(content.length), content])
}

function lengthOf(bytes: number): Buffer {
  if (bytes < 0x80) return Buffer.from([bytes])
  const digits = Buffer.from(bytes.toString(16).padStart(bytes > 0xff ? 4 : 2, '0'), 'hex')
  return Buffer.concat([Buffer.from([0x80 | digits.length]), digits])
}

export const sequence = (...parts: readonly Buffer[]): Buffer => tlv(0x30, ...parts)
export const set = (...parts: readonly Buffer[]): Buffer => tlv(0x31, ...parts)
export const octets = (...parts: readonly Buffer[]): Buffer => tlv(0x04, ...parts)
export const text = (value: string): Buffer => tlv(0x0c, Buffer.from(value))
export const boolean = (value: boolean): Buffer => tlv(0x01, Buffer.from([value ? 0xff : 0]))

/** Context-specific; `explicit` ones hold a whole element, others only its content. */
export const context = (number: number, explicit: boolean, ...parts: readonly Buffer[]): Buffer =>
  tlv((explicit ? 0xa0 : 0x80) | number, ...parts)

/** A number without sign, big-endian. */
export function integer(bytes: Buffer): Buffer {
  const start = bytes.findIndex(byte => byte !== 0)
  const digits = start === -1 ? Buffer.from([0]) : bytes.subarray(start)
  return tlv(0x02, ...((digits[0] ?? 0) >= 0x80 ? [Buffer.from([0])] : []), digits)
}

/** `unused`: bits at the end that do not count. */
export const bits = (bytes: Buffer, unused = 0): Buffer => tlv(0x03, Buffer.from([unused]), bytes)

/** An object identifier, `2.5.29.17`. */
export function oid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number)
  return tlv(0x06, ...[first * 40 + second, ...rest].map(base128))
}

function base128(value: number): Buffer {
  const digits = [value & 0x7f]
  for (let left = value >> 7; left > 0; left >>= 7) digits.unshift((left & 0x7f) | 0x80)
  return Buffer.from(digits)
}

/** To the second; from 2050 on certificates write the year with four digits. */
export function time(atMs: number): Buffer {
  const digits = new Date(atMs).toISOString().replace(/\.\d+Z$|[-:T]/g, '')
  return Number(digits.slice(0, 4)) >= 2050
    ? tlv(0x18, Buffer.from(`${digits}Z`))
    : tlv(0x17, Buffer.from(`${digits.slice(2)}Z`))
}
