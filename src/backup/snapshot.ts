/**
 * A consistent picture of all that a Redis holds, as its own file format (RDB): asked for in the way of a replica, so
 * Redis goes on serving meanwhile, and the picture is that of one instant. `redis-cli --rdb` does the same, but over
 * TLS it takes the certificate of any host of the authority, has no limit of time, and writes the mark at the end to
 * standard output too.
 *
 *   greeting ──SYNC──▶ waiting (Redis forks) ──$length or $EOF:mark──▶ reading ──all bytes or the mark──▶ done
 */
import { once } from 'node:events'
import { createConnection, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { StartupError } from '../errors.ts'
import { addressOf, type RedisTarget, tlsOptionsOf } from '../redis/connect/address.ts'
import { within } from '../within.ts'

const connectMs = 10_000
const replyMs = 10_000
/**
 * Redis sends a sign of life every second or so while it prepares; a pause this long means that nothing comes any more.
 */
const stalledMs = 60_000
const markBytes = 40

/**
 * Streams the snapshot of one server. Read it at once: Redis drops a reader that is slow for some seconds.
 * @throws StartupError when the server refuses, or the target is none that can be asked; Error when it breaks off
 */
export async function* readSnapshot(target: RedisTarget): AsyncGenerator<Buffer> {
  const { socket, login } = await dial(target)
  const reader = new Reader(socket)
  try {
    if (login !== undefined) await reader.expectOk(socket, login)
    // What an older server does not know of these it refuses, and that is no harm.
    for (const option of [
      ['capa', 'eof'],
      ['rdb-only', '1'],
    ])
      await reader.ask(socket, ['REPLCONF', ...option])
    socket.write(command(['SYNC']))
    const head = await reader.untilHead()
    if (!head.startsWith('$')) throw new StartupError(refusal(head))
    const mark = head.startsWith('$EOF:') ? Buffer.from(head.slice(5), 'latin1') : undefined
    if (mark === undefined) yield* reader.exactly(Number(head.slice(1)))
    else yield* reader.untilMark(mark)
  } finally {
    socket.destroy()
  }
}

const refusal = (said: string): string =>
  /NOPERM|unknown command/i.test(said)
    ? `This Redis hands no snapshot out (${said.slice(0, 120)}). With the three servers use --dir; a managed Redis has snapshots of its own.`
    : `Redis refuses to hand a snapshot out: ${said.slice(0, 120)}`

async function dial(target: RedisTarget): Promise<{ socket: Socket; login: string[] | undefined }> {
  const address = addressOf(target)
  if (address.kind === 'sentinel' || address.kind === 'cluster')
    throw new StartupError(
      'A snapshot is that of one server: name the folder of a server (--dir), or the URL of one Redis.',
    )
  const tls = await tlsOptionsOf(target)
  const place = address.kind === 'socket' ? { path: address.path } : { host: address.host, port: address.port }
  const socket = tls === undefined ? createConnection(place) : connectTls({ ...place, ...tls })
  const connected = once(socket, tls === undefined ? 'connect' : 'secureConnect')
  try {
    await within(connectMs, 'Redis', connected)
  } catch (error) {
    connected.catch(() => undefined)
    socket.on('error', () => undefined).destroy()
    throw new StartupError(`Redis cannot be reached: ${(error as Error).message}`, { cause: error })
  }
  if (address.kind === 'socket' || address.password === undefined) return { socket, login: undefined }
  const user = address.username === undefined ? [] : [address.username]
  return { socket, login: ['AUTH', ...user, address.password] }
}

const command = (words: readonly string[]): string =>
  `*${words.length}\r\n${words.map(word => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join('')}`

class Reader {
  readonly #chunks: AsyncIterator<Buffer>
  #rest: Buffer = Buffer.alloc(0)

  constructor(socket: Socket) {
    this.#chunks = socket[Symbol.asyncIterator]() as AsyncIterator<Buffer>
  }

  /** @throws StartupError with the refusal, which repeats no password */
  async expectOk(socket: Socket, words: readonly string[]): Promise<void> {
    const said = await this.ask(socket, words)
    if (!said.startsWith('+')) throw new StartupError(`Redis does not let us in: ${said.slice(0, 120)}`)
  }

  async ask(socket: Socket, words: readonly string[]): Promise<string> {
    socket.write(command(words))
    return await this.#line(replyMs)
  }

  /** Past the empty lines that only say that it still lives. */
  async untilHead(): Promise<string> {
    for (;;) {
      const line = await this.#line(stalledMs)
      if (line !== '') return line
    }
  }

  async *exactly(bytes: number): AsyncGenerator<Buffer> {
    let left = bytes
    while (left > 0) {
      const chunk = this.#rest.length > 0 ? this.#rest : await this.#more(stalledMs)
      this.#rest = chunk.subarray(left)
      left -= Math.min(left, chunk.length)
      yield chunk.subarray(0, chunk.length - this.#rest.length)
    }
  }

  /** Nothing follows the mark until the reader has acknowledged, which this one never does. */
  async *untilMark(mark: Buffer): AsyncGenerator<Buffer> {
    let held: Buffer = this.#rest
    for (;;) {
      if (held.length >= markBytes && held.subarray(-markBytes).equals(mark)) {
        yield held.subarray(0, -markBytes)
        return
      }
      if (held.length > markBytes) {
        yield held.subarray(0, -markBytes)
        held = held.subarray(-markBytes)
      }
      held = Buffer.concat([held, await this.#more(stalledMs)])
    }
  }

  async #line(withinMs: number): Promise<string> {
    for (;;) {
      const end = this.#rest.indexOf('\n')
      if (end >= 0) {
        const line = this.#rest.subarray(0, end).toString('latin1').replace(/\r$/, '')
        this.#rest = this.#rest.subarray(end + 1)
        return line
      }
      this.#rest = Buffer.concat([this.#rest, await this.#more(withinMs)])
    }
  }

  async #more(withinMs: number): Promise<Buffer> {
    const chunk = await within(withinMs, 'Redis', this.#chunks.next())
    if (chunk.done === true) throw new Error('Redis hung up before its snapshot was complete')
    return chunk.value
  }
}
