/**
 * The Sentinels that watch one primary: asks them where it is, and listens to them for a switch.
 *
 * All are asked at once, and the youngest answer counts: after a switch some tell the old primary for seconds, and the
 * host of one may be gone without a word. No error here ends the process: each connection has a
 * listener for errors, and each promise is handled.
 */
import { EventEmitter } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { type ClientOptions, describeHost, type HostAndPort, type SentinelAddress, type TlsOptions } from './address.ts'
import { SentinelQuorum } from './sentinel-quorum.ts'

const switchChannel = '+switch-master'
const answerWithinMs = 500
/** Once one has answered, how long the others are waited for. */
const graceMs = 50
const pingEveryMs = 1000
const pongWithinMs = 2000

interface Answer {
  readonly primary: HostAndPort
  /** Grows with every switch. */
  readonly age: number
  readonly facts: ReadonlyMap<string, string>
}

type Reply = readonly [error: Error | null, result: unknown]

/** What the Sentinels say of themselves. */
export interface SentinelFacts {
  /** How many watch this primary, as far as those that answered know. */
  readonly knownCount: number
  /** How many of those in the address answered. */
  readonly answeredCount: number
}

/** Those that are in use, by address and credentials. */
const shared = new Map<string, Sentinels>()

export class Sentinels {
  readonly name: string
  readonly #addresses: readonly HostAndPort[]
  readonly #options: ClientOptions
  readonly #emitter = new EventEmitter()
  readonly #listening: Redis[] = []
  #pings: NodeJS.Timeout | undefined
  #quorum: SentinelQuorum | undefined
  #userCount = 0

  /**
   * One object, and so one set of connections, for all users of the same Sentinels: a node has many clients of Redis.
   * @param user aborted when this user needs them no more; the last one closes them
   */
  static share(address: SentinelAddress, tls: TlsOptions | undefined, user: AbortSignal): Sentinels {
    const key = JSON.stringify([address.name, address.sentinels, address.sentinelCredentials, tls])
    const sentinels = shared.get(key) ?? new Sentinels(address, tls)
    shared.set(key, sentinels)
    sentinels.#userCount += 1
    user.addEventListener('abort', () => {
      sentinels.#userCount -= 1
      if (sentinels.#userCount > 0) return
      shared.delete(key)
      sentinels.#close()
    })
    return sentinels
  }

  private constructor({ name, sentinels, sentinelCredentials }: SentinelAddress, tls: TlsOptions | undefined) {
    this.name = name
    this.#emitter.setMaxListeners(0)
    this.#addresses = sentinels
    this.#options = {
      ...sentinelCredentials,
      ...(tls && { tls }),
      lazyConnect: true,
      connectTimeout: 1000,
      disconnectTimeout: 100,
      enableReadyCheck: false,
    }
  }

  /** How many Sentinels the address names. */
  get addressCount(): number {
    return this.#addresses.length
  }

  /**
   * Where the primary is now; answers within 0.5 s.
   * @throws Error when none of them can tell; its `cause` is the most telling of their errors
   */
  async primary(): Promise<HostAndPort> {
    const answers = await this.#ask(graceMs)
    const [youngest] = answers.sort((a, b) => b.age - a.age)
    return (youngest as Answer).primary
  }

  /** @throws Error when none of them answers */
  async facts(): Promise<SentinelFacts> {
    const answers = await this.#ask(answerWithinMs)
    const known = answers.map(({ facts }) => Number(facts.get('num-other-sentinels') ?? Number.NaN) + 1)
    return {
      knownCount: Math.max(answers.length, ...known.filter(count => !Number.isNaN(count))),
      answeredCount: answers.length,
    }
  }

  /** Whether this server is the primary and no switch to another is under way; see SentinelQuorum. */
  async confirmsPrimary(primary: HostAndPort): Promise<boolean> {
    return await this.#openQuorum().confirms(primary)
  }

  /** Connects for `confirmsPrimary`, so that the first question finds the connections open. */
  openQuorumCheck(): void {
    this.#openQuorum()
  }

  /**
   * Calls `listener` with the new primary each time one of them says that there was a switch: more than once for each.
   * @param user as in share(): aborted, it hears no more
   */
  onSwitch(user: AbortSignal, listener: (primary: HostAndPort) => void): void {
    this.#emitter.on('switch', listener)
    user.addEventListener('abort', () => this.#emitter.off('switch', listener))
    if (this.#listening.length === 0) this.#listen()
  }

  /** Stops listening. A question under way still gets its answer. */
  #close(): void {
    clearInterval(this.#pings)
    for (const client of this.#listening) client.disconnect()
    this.#quorum?.close()
  }

  #openQuorum(): SentinelQuorum {
    this.#quorum ??= new SentinelQuorum(this.name, this.#addresses, this.#options)
    return this.#quorum
  }

  #listen(): void {
    for (const address of this.#addresses) {
      const client = this.#connectTo(address, {
        maxRetriesPerRequest: 0,
        autoResubscribe: false,
        retryStrategy: times => Math.min(50 * times, 1000) + Math.random() * 50,
      })
      client.on('message', (_channel: string, message: string) => {
        const [name, , , host, port] = message.split(' ')
        if (name === this.name && host !== undefined) this.#emitter.emit('switch', { host, port: Number(port) })
      })
      // At each connection, and by us: ioredis would subscribe again only where the first time went well.
      client.on('ready', () => void client.subscribe(switchChannel).catch(() => undefined))
      client.connect().catch(() => undefined)
      this.#listening.push(client)
    }
    // A host that vanished never ends the connection, and its Sentinel would be missed when it is back.
    this.#pings = setInterval(() => {
      for (const client of this.#listening) if (client.status === 'ready') void disconnectUnlessPong(client)
    }, pingEveryMs).unref()
  }

  #connectTo({ host, port }: HostAndPort, options: ClientOptions): Redis {
    const client = new Redis({ ...this.#options, ...options, host, port })
    client.on('error', () => undefined)
    return client
  }

  /** @returns at least one answer */
  async #ask(waitMs: number): Promise<Answer[]> {
    const answers: Answer[] = []
    const errors: Error[] = []
    const questions = this.#addresses.map(async address => {
      try {
        answers.push(await this.#askOne(address))
      } catch (error) {
        errors.push(new Error(`${(error as Error).message} (Sentinel ${describeHost(address)})`))
        // Only a failure of all counts: any() waits for the others.
        throw error
      }
    })
    await Promise.any(questions).then(
      () => Promise.race([Promise.allSettled(questions), delay(waitMs, undefined, { ref: false })]),
      () => undefined,
    )
    if (answers.length > 0) return answers
    const telling = errors.find(({ message }) => /^[A-Z]{4,} /.test(message)) ?? errors[0]
    throw new Error(telling?.message ?? 'no Sentinel answered', { cause: telling })
  }

  async #askOne(address: HostAndPort): Promise<Answer> {
    const client = this.#connectTo(address, {
      retryStrategy: null,
      maxRetriesPerRequest: 0,
      connectTimeout: answerWithinMs,
    })
    let lastError: Error | undefined
    client.on('error', error => {
      lastError = error
    })
    try {
      const late = new AbortController()
      const timeout = delay(answerWithinMs, undefined, { ref: false, signal: late.signal }).then(() => {
        throw lastError ?? new Error('no answer')
      })
      // In one pipeline: the address leads while a switch is under way, the rest says how old it is.
      const question = client
        .pipeline()
        .call('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', this.name)
        .call('SENTINEL', 'MASTER', this.name)
        .exec()
      question.catch(() => undefined)
      timeout.catch(() => undefined)
      const replies = await Promise.race([question, timeout]).finally(() => late.abort())
      return this.#toAnswer((replies ?? []) as readonly Reply[])
    } catch (error) {
      // "Connection is closed." says less than what closed it.
      throw lastError ?? error
    } finally {
      client.disconnect()
    }
  }

  #toAnswer([where, about]: readonly Reply[]): Answer {
    if (where?.[0]) throw where[0]
    if (!Array.isArray(where?.[1])) throw new Error(`knows no primary with the name "${this.name}"`)
    const [host, port] = where[1] as [string, string]
    const flat = Array.isArray(about?.[1]) ? (about[1] as string[]) : []
    const facts = new Map<string, string>()
    for (let at = 0; at + 1 < flat.length; at += 2) facts.set(flat[at] as string, flat[at + 1] as string)
    // The Sentinel that leads a switch tells the new address before it counts the switch.
    const leads = facts.has('ip') && (facts.get('ip') !== host || facts.get('port') !== port)
    return {
      primary: { host, port: Number(port) },
      age: Number(facts.get('config-epoch') ?? -1) + (leads ? 0.5 : 0),
      facts,
    }
  }
}

async function disconnectUnlessPong(client: Redis): Promise<void> {
  const ping = client.ping().then(
    () => true,
    () => false,
  )
  const answered = await Promise.race([ping, delay(pongWithinMs, false, { ref: false })])
  if (!answered && client.status === 'ready') client.disconnect(true)
}
