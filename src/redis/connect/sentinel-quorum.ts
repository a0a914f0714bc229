/**
 * The quorum check: asks the Sentinels whether a server is the primary and stays it for now. Each has a connection that
 * stays open, so that a question costs one round trip to the second slowest of them.
 *
 * Why: a write that one of two replicas has is safe only if the other one is not about to become primary. A
 * switch is seen here before it happens: an election needs a majority that sees the primary down, and the Sentinel that
 * leads a switch, a planned one too, says so before it promotes a replica.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { type ClientOptions, describeHost, type HostAndPort } from './address.ts'

const answerWithinMs = 500
/** A Sentinel that is late may lead a switch that no other knows of; one that is gone counts as late for this long. */
const absentAfterMs = 2000
/** A host that vanished is noticed by this, so that its Sentinel is absent by the time a switch is over. */
const pingEveryMs = 500
const pongWithinMs = 700

interface Answer {
  readonly address: string
  readonly flags: string
}

export class SentinelQuorum {
  readonly #sentinels: readonly QuestionedSentinel[]

  /** @param options how a Sentinel is reached: credentials and TLS */
  constructor(name: string, addresses: readonly HostAndPort[], options: ClientOptions) {
    this.#sentinels = addresses.map(address => new QuestionedSentinel(name, address, options))
  }

  /**
   * Whether most of the Sentinels answer within 0.5 s that this is the primary and that nothing is wrong with it, and
   * none knows another one or of a switch, or is late. All answers are given after the question: what was true before
   * it does not count.
   */
  async confirms(primary: HostAndPort): Promise<boolean> {
    const answers = await Promise.all(this.#sentinels.map(sentinel => sentinel.ask()))
    if (answers.includes('late')) return false
    const given = answers.filter(answer => typeof answer === 'object')
    const isDoubted = given.some(
      ({ address, flags }) => address !== describeHost(primary) || /failover_in_progress|o_down/.test(flags),
    )
    // A single one that sees it down (s_down) can have it replaced only with another that does.
    const content = given.filter(({ flags }) => flags === 'master')
    return !isDoubted && content.length * 2 > this.#sentinels.length
  }

  close(): void {
    for (const sentinel of this.#sentinels) sentinel.close()
  }
}

/** One Sentinel: connected, late (just lost, or not answering), or absent (refuses connections, or lost for long). */
class QuestionedSentinel {
  readonly #name: string
  readonly #client: Redis
  readonly #pings: NodeJS.Timeout
  #lostAt = performance.now()
  #refuses = false

  constructor(name: string, { host, port }: HostAndPort, options: ClientOptions) {
    this.#name = name
    this.#client = new Redis({
      ...options,
      host,
      port,
      lazyConnect: true,
      enableReadyCheck: false,
      enableOfflineQueue: false,
      maxRetriesPerRequest: 0,
      autoResendUnfulfilledCommands: false,
      retryStrategy: times => Math.min(50 * times, 1000) + Math.random() * 50,
    })
    let wasReady = false
    this.#client.on('error', (error: NodeJS.ErrnoException) => {
      // Nothing listens there: it leads nothing.
      this.#refuses = error.code === 'ECONNREFUSED'
    })
    this.#client.on('ready', () => {
      wasReady = true
      this.#refuses = false
    })
    this.#client.on('close', () => {
      if (wasReady) this.#lostAt = performance.now()
      wasReady = false
    })
    this.#client.connect().catch(() => undefined)
    this.#pings = setInterval(() => {
      if (this.#client.status === 'ready') void this.#within(pongWithinMs, this.#client.ping())
    }, pingEveryMs).unref()
  }

  async ask(): Promise<Answer | 'late' | 'absent'> {
    if (this.#client.status !== 'ready') return this.#absence()
    const flat = await this.#within(answerWithinMs, this.#client.call('SENTINEL', 'MASTER', this.#name))
    // It was connected a moment ago, so it may lead a switch.
    if (flat === undefined) return 'late'
    const facts = flat as string[]
    const fact = (key: string): string => facts[facts.findIndex((item, at) => at % 2 === 0 && item === key) + 1] ?? ''
    return { address: describeHost({ host: fact('ip'), port: Number(fact('port')) }), flags: fact('flags') }
  }

  close(): void {
    clearInterval(this.#pings)
    this.#client.disconnect()
  }

  /**
   * The reply; undefined when there was none in time, and then the connection is closed: a host that vanished never
   * closes it.
   */
  async #within(ms: number, reply: Promise<unknown>): Promise<unknown> {
    const { stream } = this.#client
    const late = new AbortController()
    const timeout = delay(ms, late, { ref: false, signal: late.signal }).catch(() => late)
    const outcome = await Promise.race([reply.catch(() => undefined), timeout]).finally(() => late.abort())
    if (outcome !== late) return outcome
    stream?.destroy()
    return undefined
  }

  #absence(): 'late' | 'absent' {
    return this.#refuses || performance.now() - this.#lostAt > absentAfterMs ? 'absent' : 'late'
  }
}
