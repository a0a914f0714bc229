/** Counts every request while it is here, and refuses those of a caller that has too much under way (admission.ts). */

import type { Server } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyRequest } from 'fastify'
import { Problem } from '../../errors.ts'
import type { Settings } from '../../settings/settings.ts'
import type { App } from '../api.ts'
import { Pace } from './pace.ts'

declare module 'fastify' {
  interface FastifyRequest {
    stay: AdmittedRequest
  }
}

/** Bodies in other forms are streamed: this is about what is in memory of one at a time. */
const streamBytes = 64 * 1024
/** Smaller replies are not counted: the number of requests bounds them. */
const countedReplyBytes = 64 * 1024

/** Probes: O(1), with a small reply. A flood from the same address must not make the node look dead. */
const probes = new Set(['/health/live', '/health/ready', '/livez', '/healthz', '/readyz'])

/** To be added after access, whose callers it counts. */
export function addAdmission(app: App, settings: Settings): void {
  const admission = new Admission({ maxRequests: settings.maxRequestsPerCaller, maxBytes: settings.maxPendingBytes })
  const pace = new Pace()
  app.decorateRequest('stay')
  limitConnections(app.server, settings.maxConnections)
  app.addHook('onReady', async () => pace.start())
  app.addHook('onClose', async () => pace.stop())

  app.addHook('onRequest', (request, reply, done) => {
    try {
      const stay = admission.enter(visitorOf(request), bytesOf(request, settings.maxJsonBytes))
      request.stay = stay
      const forget = pace.watch(request.raw, reply.raw)
      const end = (): void => {
        forget()
        stay.end()
      }
      if (reply.raw.destroyed) end()
      else reply.raw.once('close', end)
      done()
    } catch (error) {
      done(error as Error)
    }
  })

  app.addHook('onSend', (request, _reply, payload, done) => {
    const bytes = typeof payload === 'string' || Buffer.isBuffer(payload) ? payload.length : 0
    // The body of the request is done with. A reply that was refused before it came in has no stay.
    request.stay?.hold(bytes > countedReplyBytes ? bytes : 0)
    done(null, payload)
  })
}

function visitorOf(request: FastifyRequest): Visitor {
  const { caller, ip, routeOptions } = request
  const { rule } = routeOptions.config
  if (probes.has(routeOptions.url ?? '')) return { key: 'probes', isFirst: true, isStranger: false }
  if (rule === undefined) return { key: `open ${ip}`, isFirst: false, isStranger: true }
  const isForFew = rule.roles.every(role => role === 'work' || role === 'operate')
  const isFirst = isForFew || caller.kind === 'operator' || caller.kind === 'worker'
  const key = caller.kind === 'anyone' ? `address ${ip}` : `${caller.kind} ${caller.id}`
  return { key: isFirst ? `first ${key}` : key, isFirst, isStranger: false }
}

function bytesOf({ headers }: FastifyRequest, maxJsonBytes: number): number {
  const length = headers['transfer-encoding'] === undefined ? Number(headers['content-length'] ?? 0) : maxJsonBytes
  const isBuffered = /^application\/(?:json|x-www-form-urlencoded)/i.test(headers['content-type'] ?? '')
  return Math.min(length, isBuffered ? maxJsonBytes : streamBytes)
}

/**
 * Who may still come in: a caller (a key, a worker, or an address) has a number of requests and of bytes under way, and
 * all callers together have bytes. Workers and operators are counted and never refused: what they ask for frees room.
 */
export interface AdmissionLimits {
  /** Requests of one caller. */
  readonly maxRequests: number
  /** Bytes that wait here, of requests and of replies: of all callers; one may have half of it. */
  readonly maxBytes: number
}

export interface Visitor {
  /** Whose requests count together. */
  readonly key: string
  /** Workers and operators. */
  readonly isFirst: boolean
  /** An unknown caller gets a few requests at once. */
  readonly isStranger: boolean
}

interface Count {
  requests: number
  bytes: number
}

/** Of one address that shows no key: enough for probes of load balancers and for a browser. */
export const strangersRequests = 64
/** Less is not worth an answer. */
const leastRoom = 64 * 1024
const retryAfterMs = 1000

export class Admission {
  readonly #limits: AdmissionLimits
  readonly #counts = new Map<string, Count>()
  #bytes = 0

  constructor(limits: AdmissionLimits) {
    this.#limits = limits
  }

  /** Bytes that are held now, of all callers. */
  get heldBytes(): number {
    return this.#bytes
  }

  /**
   * @param bytes that the request will hold
   * @returns the stay, to be ended when the reply has left
   * @throws Problem too_many_requests
   */
  enter(visitor: Visitor, bytes: number): AdmittedRequest {
    const count = this.#counts.get(visitor.key) ?? { requests: 0, bytes: 0 }
    if (!visitor.isFirst) this.#refuse(visitor, count, bytes)
    count.requests += 1
    this.#counts.set(visitor.key, count)
    const stay = new AdmittedRequest({
      room: () => (visitor.isFirst ? Number.POSITIVE_INFINITY : this.#room(count)),
      hold: more => {
        count.bytes += more
        this.#bytes += more
      },
      end: () => {
        count.requests -= 1
        if (count.requests === 0) this.#counts.delete(visitor.key)
      },
    })
    stay.hold(bytes)
    return stay
  }

  #refuse({ isStranger }: Visitor, count: Count, bytes: number): void {
    const limit = isStranger ? Math.min(strangersRequests, this.#limits.maxRequests) : this.#limits.maxRequests
    if (count.requests >= limit)
      throw new Problem('too_many_requests', `${limit} requests of this caller are under way.`, { retryAfterMs })
    if (bytes + (count.bytes > 0 ? leastRoom : 0) > this.#room(count)) throw tooManyBytes()
  }

  #room({ bytes }: Count): number {
    const { maxBytes } = this.#limits
    return Math.min(maxBytes / 2 - bytes, maxBytes - this.#bytes)
  }
}

interface StayParts {
  readonly room: () => number
  readonly hold: (bytes: number) => void
  readonly end: () => void
}

/** One request, from its first byte to the last one of its reply. */
export class AdmittedRequest {
  readonly #parts: StayParts
  #held = 0
  #hasEnded = false

  constructor(parts: StayParts) {
    this.#parts = parts
  }

  /** From now on it holds so many bytes, instead of what it held before. */
  hold(bytes: number): void {
    if (this.#hasEnded) return
    this.#parts.hold(bytes - this.#held)
    this.#held = bytes
  }

  /**
   * Room for a reply of up to so many bytes, which it holds from now on.
   * @returns how many there are, at most `wanted`
   * @throws Problem too_many_requests
   */
  reserve(wanted: number): number {
    const least = Math.min(wanted, leastRoom)
    const room = this.#parts.room()
    if (room < least) throw tooManyBytes()
    // Not all that there is: many ask at the same moment, and most of them find little.
    const granted = Math.max(least, Math.floor(Math.min(wanted, room / 4)))
    this.hold(granted)
    return granted
  }

  end(): void {
    if (this.#hasEnded) return
    this.hold(0)
    this.#hasEnded = true
    this.#parts.end()
  }
}

const tooManyBytes = (): Problem =>
  new Problem('too_many_requests', 'Too many bytes wait here to be read or to be sent.', { retryAfterMs })

/** Limits the connections that a node holds: each takes memory before its client is known. */

/** The time for the head of a request: the first from the connection on, each later one from its first byte. */
export const headWithinMs = 20_000

/** One address may have half of the connections, so that the others stay reachable. The node closes those beyond. */
export function limitConnections(server: Server, most: number): void {
  const mostOfOne = Math.ceil(most / 2)
  const counts = new Map<string, number>()
  server.maxConnections = most
  server.prependListener('connection', (socket: Socket) => {
    const { remoteAddress: address } = socket
    if (address === undefined) return
    const count = counts.get(address) ?? 0
    // Later: others are still to hear of it, and TLS takes no socket that is gone.
    if (count >= mostOfOne) return void setImmediate(() => socket.destroy())
    counts.set(address, count + 1)
    socket.once('close', () => {
      const left = (counts.get(address) ?? 1) - 1
      if (left === 0) counts.delete(address)
      else counts.set(address, left)
    })
  })
}
