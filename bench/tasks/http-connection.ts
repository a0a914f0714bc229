/**
 * One keep-alive connection that sends prepared requests, one at a time: the cheapest client there is, since it shares the
 * machine with what it measures. It knows replies with a Content-Length only, which is what a node sends.
 */
import { connect, type Socket } from 'node:net'

export interface Reply {
  readonly status: number
  readonly body: string
}

const answerWithinMs = 30_000
const headEnd = Buffer.from('\r\n\r\n')

export class HttpConnection {
  readonly #socket: Socket
  #received: Buffer = Buffer.alloc(0)
  #settle: { resolve: (reply: Reply) => void; reject: (error: Error) => void } | undefined

  constructor(socket: Socket) {
    this.#socket = socket
    socket.setNoDelay(true)
    socket.on('data', chunk => this.#receive(chunk))
    socket.on('error', error => this.#fail(error))
    socket.on('close', () => this.#fail(new Error('The node closed the connection')))
    socket.setTimeout(answerWithinMs, () => {
      if (this.#settle !== undefined) this.#socket.destroy(new Error(`No answer within ${answerWithinMs} ms`))
    })
  }

  /** @throws Error when nobody listens there */
  static async open(url: string): Promise<HttpConnection> {
    const { hostname, port } = new URL(url)
    const socket = connect({ host: hostname, port: Number(port) })
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    return new HttpConnection(socket)
  }

  /**
   * Sends a request and resolves with its reply. One at a time.
   * @throws Error when the connection ends, or nothing comes for 30 s
   */
  send(request: Buffer): Promise<Reply> {
    return new Promise((resolve, reject) => {
      if (this.#socket.destroyed) return reject(new Error('The connection is closed'))
      this.#settle = { resolve, reject }
      this.#socket.write(request)
    })
  }

  /** As `send`, for replies that must be 200. */
  async must(request: Buffer): Promise<string> {
    const { status, body } = await this.send(request)
    if (status !== 200) throw new Error(`The node answered ${status}: ${body.slice(0, 500)}`)
    return body
  }

  close(): void {
    this.#socket.destroy()
  }

  #receive(chunk: Buffer): void {
    this.#received = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk])
    const headBytes = this.#received.indexOf(headEnd)
    if (headBytes === -1) return
    const head = this.#received.toString('latin1', 0, headBytes)
    const bodyBytes = Number(/\r\ncontent-length: (\d+)/i.exec(head)?.[1] ?? Number.NaN)
    if (Number.isNaN(bodyBytes)) return void this.#socket.destroy(new Error(`A reply without Content-Length: ${head}`))
    const start = headBytes + headEnd.length
    if (this.#received.length < start + bodyBytes) return
    const reply = { status: Number(head.slice(9, 12)), body: this.#received.toString('utf8', start, start + bodyBytes) }
    this.#received = Buffer.alloc(0)
    const settle = this.#settle
    this.#settle = undefined
    settle?.resolve(reply)
  }

  #fail(error: Error): void {
    this.#settle?.reject(error)
    this.#settle = undefined
  }
}

/** A request as it goes over the wire. A node answers to names of its own only; on loopback this is one. */
export function requestBytes(method: string, path: string, body: Buffer = Buffer.alloc(0)): Buffer {
  const head = [`${method} ${path} HTTP/1.1`, 'Host: localhost', `Content-Length: ${body.length}`]
  if (body.length > 0) head.push('Content-Type: application/octet-stream')
  return Buffer.concat([Buffer.from(`${head.join('\r\n')}\r\n\r\n`), body])
}
