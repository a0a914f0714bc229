/**
 * Something that is the same for everybody who asks: made once, compressed once, and sent piece by piece as it is read.
 * An answer costs no more than its headers, and a reader who stops reading holds one piece.
 */
import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { promisify } from 'node:util'
import { brotliCompress, constants, gzip } from 'node:zlib'
import type { FastifyReply, FastifyRequest } from 'fastify'

export interface AssetContent {
  readonly type: string
  readonly body: Buffer | string
  /** For pages with scripts of their own. */
  readonly contentSecurityPolicy?: string
}

interface Made {
  readonly content: AssetContent
  readonly etag: string
  readonly bodies: Readonly<Record<Encoding, Buffer>>
}

type Encoding = 'br' | 'gzip' | 'identity'

const pieceBytes = 16 * 1024
/** Of brotli: higher ones take seconds for the script of the page. */
const quality = 5

/** Takes what makes the content; it is called once, at the first request, or again after a failure. */
export class Asset {
  readonly #make: () => Promise<AssetContent> | AssetContent
  #made: Promise<Made> | undefined

  constructor(make: () => Promise<AssetContent> | AssetContent) {
    this.#make = make
  }

  async send(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    this.#made ??= this.#prepare().catch(error => {
      this.#made = undefined
      throw error
    })
    const { content, etag, bodies } = await this.#made
    const encoding = chooseEncoding(request.headers['accept-encoding'])
    const tag = `"${etag}-${encoding}"`
    void reply.headers({ etag: tag, 'cache-control': 'public, max-age=300', vary: 'accept-encoding' })
    if (content.contentSecurityPolicy !== undefined)
      void reply.header('content-security-policy', content.contentSecurityPolicy)
    if (request.headers['if-none-match']?.includes(tag)) return reply.code(304).send()
    const body = bodies[encoding]
    if (encoding !== 'identity') void reply.header('content-encoding', encoding)
    return reply.type(content.type).header('content-length', body.length).send(piecesOf(body))
  }

  async #prepare(): Promise<Made> {
    const content = await this.#make()
    const identity = Buffer.from(content.body)
    const [br, gz] = await Promise.all([
      promisify(brotliCompress)(identity, { params: { [constants.BROTLI_PARAM_QUALITY]: quality } }),
      promisify(gzip)(identity),
    ])
    const etag = createHash('sha256').update(identity).digest('base64url').slice(0, 22)
    return { content, etag, bodies: { br, gzip: gz, identity } }
  }
}

/** Views of the one buffer: nothing is copied, however many read it. */
function piecesOf(body: Buffer): Readable {
  function* pieces(): Generator<Buffer> {
    for (let at = 0; at < body.length; at += pieceBytes) yield body.subarray(at, at + pieceBytes)
  }
  return Readable.from(pieces(), { objectMode: false, highWaterMark: pieceBytes })
}

function chooseEncoding(accepted: string | string[] | undefined): Encoding {
  const offers = String(accepted ?? '')
    .toLowerCase()
    .split(',')
    .map(offer => offer.trim().split(/\s*;\s*/))
    .filter(([, weight = 'q=1']) => !/^q=0(?:\.0*)?$/.test(weight))
    .map(([name]) => name)
  return offers.includes('br') ? 'br' : offers.includes('gzip') ? 'gzip' : 'identity'
}
