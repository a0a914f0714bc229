/** The multipart form of a body: its part "data" is handed on as a stream, byte for byte. */

import { type EventEmitter, once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import type { Readable, Writable } from 'node:stream'
import { MIMEType } from 'node:util'
import { Busboy } from '@fastify/busboy'
import { Problem } from '../../errors.ts'
import type { StoredContent } from '../../jobs/job-data.ts'

export interface MultipartTarget {
  store(source: Readable): Promise<StoredContent>
  forget(content: StoredContent): Promise<unknown>
}

/** @throws Problem multipart_invalid, data_missing, parameter_unknown, and what the target throws */
export async function readMultipart(
  request: IncomingMessage,
  contentType: string,
  target: MultipartTarget,
): Promise<StoredContent> {
  const parser = openParser(contentType)
  let found: Promise<StoredContent> | undefined
  let part: Readable | undefined
  let fault: Problem | undefined
  listen(parser, 'file', (_name: unknown, stream: Readable) => {
    if (found !== undefined)
      fault = new Problem('multipart_invalid', 'The multipart body has more than one part named "data".')
    if (found !== undefined) return void stream.resume()
    stream.on('error', () => undefined)
    part = stream
    found = target.store(stream)
    // A fault of this part ends the parsing; it is awaited below.
    found.catch(error => parser.destroy(error as Error))
  })
  listen(parser, 'field', (name: unknown) => {
    fault =
      typeof name === 'string'
        ? new Problem(
            'parameter_unknown',
            `The multipart body has a part named "${name.slice(0, 100)}"; only "data" is known.`,
          )
        : new Problem('multipart_invalid', 'The multipart body has a part without a name; only "data" is known.')
  })
  const finished = finishOf(parser)
  const gone = (): void => {
    if (request.complete) return
    // A part that is being stored would wait for its end for ever.
    const error = new Error('the client went away')
    part?.destroy(error)
    parser.destroy(error)
  }
  request.once('close', gone)
  const stopFeeding = feed(request, parser, watchDelimiters(contentType))
  try {
    await finished
    const content = await found
    if (fault !== undefined) throw fault
    if (content === undefined) throw new Problem('data_missing', 'The multipart body has no part named "data".')
    return content
  } catch (error) {
    // What is being stored comes to its end, and nothing of it stays.
    part?.destroy(error as Error)
    const content = await found?.catch(() => undefined)
    if (content !== undefined) await target.forget(content)
    if (error instanceof Problem) throw error
    throw new Problem('multipart_invalid', `The multipart body is broken: ${(error as Error).message}.`, {
      cause: error,
    })
  } finally {
    stopFeeding()
  }
}

function openParser(contentType: string): InstanceType<typeof Busboy> {
  try {
    return new Busboy({
      headers: { 'content-type': contentType as `multipart/${string}` },
      // A part named "data" counts as a file also without a file name, so that its bytes are not decoded as text.
      isPartAFile: name => name === 'data',
      limits: { files: 2, fields: 1, parts: 3, fieldSize: 1024 },
    })
  } catch (error) {
    throw new Problem('multipart_invalid', `The multipart body cannot be read: ${(error as Error).message}.`, {
      cause: error,
    })
  }
}

/**
 * What pipe() does, except that what the parser throws ends the parser: out of pipe() it would end the process.
 * @returns lets go of the request, which is then read no further
 */
function feed(
  request: IncomingMessage,
  parser: InstanceType<typeof Busboy>,
  isDelimited: (chunk: Buffer) => boolean,
): () => void {
  const write = (chunk: Buffer): void => {
    if (!isDelimited(chunk))
      throw new Problem(
        'multipart_invalid',
        'The data holds the boundary of its own form. Choose a boundary that does not occur in it, or send the bytes raw.',
      )
    if (!parser.write(chunk)) request.pause()
  }
  const offs = [
    listen(request, 'data', write, parser),
    listen(request, 'end', () => parser.end(), parser),
    listen(parser, 'drain', () => request.resume()),
  ]
  return () => {
    for (const off of offs) off()
  }
}

/**
 * Sees that a multipart body holds its own delimiter where no part ends: a parser would cut the data there and say
 * nothing.
 */
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

/** Listeners of body parsers. A throw inside an emitter is outside of every promise and would end the process. */

/**
 * Like on(), except that what the listener throws ends the parser with that error.
 * @param parser the emitter itself when left out
 * @returns takes the listener away
 */
export function listen<Arguments extends unknown[]>(
  emitter: EventEmitter,
  event: string,
  listener: (...args: Arguments) => void,
  parser: Writable = emitter as Writable,
): () => void {
  const guarded = (...args: unknown[]): void => {
    try {
      listener(...(args as Arguments))
    } catch (error) {
      parser.destroy(error instanceof Error ? error : new Error(String(error)))
    }
  }
  emitter.on(event, guarded)
  return () => emitter.off(event, guarded)
}

/** Resolves when the parser has read all, rejects with its first fault. Later faults are ignored. */
export function finishOf(parser: Writable): Promise<unknown> {
  parser.on('error', () => undefined)
  const finished = once(parser, 'finish')
  // It may be awaited late.
  finished.catch(() => undefined)
  return finished
}
