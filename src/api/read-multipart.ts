/** The multipart form of a body: its part "data" is handed on as a stream, byte for byte. */
import type { IncomingMessage } from 'node:http'
import type { Readable } from 'node:stream'
import { Busboy } from '@fastify/busboy'
import { Problem } from '../errors.ts'
import type { StoredContent } from '../jobs/job-data.ts'
import { watchDelimiters } from './delimiter-watch.ts'
import { finishOf, listen } from './parser-events.ts'

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
