/** Sees that a multipart body holds its own delimiter where no part ends: a parser would cut the data there and say nothing. */
import { MIMEType } from 'node:util'

const [tab, lineFeed, carriageReturn, space, dash] = [9, 10, 13, 32, 45]
const mostBlanks = 1024

/**
 * After a delimiter come two dashes, or blanks and the end of the line (RFC 2046, 5.1.1).
 * @param contentType the header with the boundary; when it has none that can be read, nothing is seen
 * @returns to be called with each piece of the body in order; false when a delimiter goes on in another way
 */
export function watchDelimiters(contentType: string): (piece: Buffer) => boolean {
  const boundary = boundaryOf(contentType)
  if (boundary === undefined) return () => true
  const delimiter = Buffer.from(`\r\n--${boundary}`, 'latin1')
  // The first one may stand at the very start.
  let rest: Buffer = Buffer.from('\r\n')
  let isOver = false
  return piece => {
    if (isOver) return true
    const bytes = Buffer.concat([rest, piece])
    let from = 0
    for (;;) {
      const at = bytes.indexOf(delimiter, from)
      if (at === -1) {
        rest = bytes.subarray(Math.max(from, bytes.length - delimiter.length + 1))
        return true
      }
      const follows = whatFollows(bytes, at + delimiter.length)
      if (follows === 'data') return false
      if (follows === 'unknown') rest = bytes.subarray(at)
      if (follows === 'end') isOver = true
      if (follows !== 'part') return true
      from = at + delimiter.length
    }
  }
}

function whatFollows(bytes: Buffer, start: number): 'part' | 'end' | 'data' | 'unknown' {
  let at = start
  while (bytes[at] === space || bytes[at] === tab) at += 1
  if (at - start > mostBlanks) return 'data'
  const [first, second] = [bytes[at], bytes[at + 1]]
  if (first === undefined) return 'unknown'
  const isEnd = first === dash && at === start
  if (!isEnd && first !== carriageReturn) return 'data'
  if (second === undefined) return 'unknown'
  if (second !== (isEnd ? dash : lineFeed)) return 'data'
  return isEnd ? 'end' : 'part'
}

function boundaryOf(contentType: string): string | undefined {
  try {
    return new MIMEType(contentType).params.get('boundary') ?? undefined
  } catch {
    return undefined
  }
}
