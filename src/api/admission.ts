/**
 * Who may still come in: a caller (a key, a worker, or an address) has a number of requests and of bytes under way, and all
 * callers together have bytes. Workers and operators are counted and never refused: what they ask for frees room.
 */
import { Problem } from '../errors.ts'

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
  /** Nobody knows who it is: a few requests must do. */
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
  enter(visitor: Visitor, bytes: number): Stay {
    const count = this.#counts.get(visitor.key) ?? { requests: 0, bytes: 0 }
    if (!visitor.isFirst) this.#refuse(visitor, count, bytes)
    count.requests += 1
    this.#counts.set(visitor.key, count)
    const stay = new Stay({
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
export class Stay {
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
