/**
 * Ends requests whose other side does not keep pace: a body of which nothing comes for 20 s, or that is slower than 500
 * B/s after 30 s; a reply of which nothing is read for 60 s. There is no other limit on how long a body may take.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { Problem } from '../../errors.ts'

export interface PaceLimits {
  /** Longest time without a byte of the body. */
  readonly silentMs: number
  /** Least rate of a body, and from when on it counts. */
  readonly leastBytesPerSecond: number
  readonly slowAfterMs: number
  /** Longest time in which nothing of the reply is read. */
  readonly unreadMs: number
  readonly everyMs: number
}

const usual: PaceLimits = {
  silentMs: 20_000,
  leastBytesPerSecond: 500,
  slowAfterMs: 30_000,
  unreadMs: 60_000,
  everyMs: 5000,
}

interface Watched {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly socket: Socket
  readonly startedAt: number
  readonly startedBytes: number
  /** Of the body. */
  readBytes: number
  readAt: number
  /** Of the reply. */
  sentBytes: number
  sentAt: number
}

export class Pace {
  readonly #limits: PaceLimits
  readonly #clock: () => number
  readonly #watched = new Set<Watched>()
  #timer: NodeJS.Timeout | undefined

  /** @param clock in ms */
  constructor(limits: Partial<PaceLimits> = {}, clock: () => number = () => performance.now()) {
    this.#limits = { ...usual, ...limits }
    this.#clock = clock
  }

  start(): void {
    this.#timer ??= setInterval(() => this.look(), this.#limits.everyMs).unref()
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  /** @returns ends the watch */
  watch(request: IncomingMessage, response: ServerResponse): () => void {
    const { socket } = request
    const now = this.#clock()
    const watched: Watched = {
      ...{ request, response, socket, startedAt: now, startedBytes: socket.bytesRead },
      ...{ readBytes: socket.bytesRead, readAt: now, sentBytes: sentBy(socket), sentAt: now },
    }
    this.#watched.add(watched)
    return () => this.#watched.delete(watched)
  }

  look(): void {
    for (const watched of this.#watched) {
      if (!watched.request.complete && this.#isSlow(watched)) endSlow(watched)
      else if (this.#isUnread(watched)) watched.socket.destroy()
    }
  }

  #isSlow(watched: Watched): boolean {
    const { request, socket } = watched
    const { silentMs, leastBytesPerSecond, slowAfterMs } = this.#limits
    const now = this.#clock()
    // What has come and was not read yet is our own slowness.
    if (socket.bytesRead !== watched.readBytes || request.readableLength > 0) {
      watched.readBytes = socket.bytesRead
      watched.readAt = now
    }
    if (now - watched.readAt > silentMs) return true
    const tookMs = now - watched.startedAt
    if (tookMs <= slowAfterMs || request.readableLength > 0) return false
    return (socket.bytesRead - watched.startedBytes) / (tookMs / 1000) < leastBytesPerSecond
  }

  #isUnread(watched: Watched): boolean {
    const { socket } = watched
    const now = this.#clock()
    const sent = sentBy(socket)
    if (sent !== watched.sentBytes || socket.writableLength === 0) {
      watched.sentBytes = sent
      watched.sentAt = now
    }
    return now - watched.sentAt > this.#limits.unreadMs
  }
}

const sentBy = (socket: Socket): number => (socket.bytesWritten ?? 0) - socket.writableLength

/** Who still listens is told why. */
function endSlow({ response, socket }: Watched): void {
  if (response.headersSent) return void socket.destroy()
  const problem = new Problem('body_too_slow')
  const body = JSON.stringify(problem.toBody())
  const head = `HTTP/1.1 ${problem.status} Request Timeout\r\nConnection: close\r\nContent-Type: application/problem+json`
  socket.write(`${head}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`)
  socket.destroySoon()
}
