/**
 * The handlers of the deployment: one record in Redis, of which every node has a copy.
 *
 *   a node starts with --handlers ──publish──▶ record ◀──deploy── PUT /handlers
 *                                               └── the notifier, or a look each second ──▶ the copy of each node
 *
 * The last one counts, but a node that starts does not bring back what was replaced by PUT /handlers: a file on one
 * machine may well be older than what was deployed.
 */
import { createHash } from 'node:crypto'
import type { Logger } from 'pino'
import type { HandlersBundle } from '../handlers/bundle-handlers.ts'
import { Loop } from '../loop.ts'
import type { Notifier } from '../notifier.ts'
import type { RedisClient } from '../redis/connect/connection.ts'
import { globalKey } from '../redis/keys.ts'
import { Script } from '../redis/script.ts'
import type { DurableWrites } from '../redis/writes/durable-writes.ts'

/** A type as its handler declares it. */
export interface DeclaredType {
  readonly type: string
  readonly description?: string
  readonly payload?: object
  readonly isolation?: 'process'
}

export interface DeployedHandlersOptions {
  readonly redis: RedisClient
  readonly writes: DurableWrites
  readonly notifier: Notifier
  readonly log: Logger
  /** Called with the types of each version, before anybody gets its code. */
  readonly onTypes: (types: readonly DeclaredType[]) => void
}

const topic = 'handlers'
const lookEveryMs = 1000
/** Of the digests that were replaced, so many characters are remembered: the newest hundred. */
const rememberedChars = 6500

const key = globalKey('handlers')

/** @returns 1 when it is the current version now, 0 when it was replaced before and stays so */
const put = new Script<number>(
  'put_handlers',
  `local digest, origin = ARGV[1], ARGV[2]
local current = redis.call('HGET', KEYS[1], 'digest')
local before = redis.call('HGET', KEYS[1], 'before') or ''
if origin == 'node' then
  if current == digest then return 1 end
  if redis.call('HGET', KEYS[1], 'origin') == 'deployed' and string.find(before, digest, 1, true) then return 0 end
end
if current and current ~= digest then before = string.sub(current .. ' ' .. before, 1, ${rememberedChars}) end
redis.call('HSET', KEYS[1], 'digest', digest, 'origin', origin, 'types', ARGV[3], 'code', ARGV[4], 'before', before)
return 1`,
)

export class DeployedHandlers {
  readonly #options: DeployedHandlersOptions
  readonly #loop: Loop
  readonly #listeners = new Set<() => void>()
  #stopListening: (() => void) | undefined
  #current: HandlersBundle | undefined

  constructor(options: DeployedHandlersOptions) {
    this.#options = options
    this.#loop = new Loop({ name: 'handlers', intervalMs: lookEveryMs, run: () => this.#look(), log: options.log })
  }

  /** undefined: there are none but the built-in ones. */
  get current(): HandlersBundle | undefined {
    return this.#current
  }

  async start(): Promise<void> {
    await this.#look()
    this.#stopListening = this.#options.notifier.on(topic, () => void this.#lookAfresh())
    this.#loop.start()
  }

  async stop(): Promise<void> {
    this.#stopListening?.()
    await this.#loop.stop()
  }

  /** Calls `listener` each time when this node has another version; the returned function ends that. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => {
      this.#listeners.delete(listener)
    }
  }

  /** What a node was started with. @returns false when a later deployment stays in its place */
  async publish(bundle: HandlersBundle, types: readonly DeclaredType[]): Promise<boolean> {
    return await this.#put(bundle, types, 'node')
  }

  /** Takes the place of all others, for good. It was checked. */
  async deploy(bundle: HandlersBundle, types: readonly DeclaredType[]): Promise<void> {
    await this.#put(bundle, types, 'deployed')
  }

  async #put({ code, digest }: HandlersBundle, types: readonly DeclaredType[], origin: string): Promise<boolean> {
    const { writes, notifier } = this.#options
    const isCurrent = (await writes.run(put, [key], [digest, origin, JSON.stringify(types), code])) === 1
    notifier.notify(topic)
    await this.#lookAfresh()
    return isCurrent
  }

  /** Never rejects: a look that fails is logged and taken again. */
  async #lookAfresh(): Promise<void> {
    await this.#loop.runAfresh().catch(() => undefined)
  }

  async #look(): Promise<void> {
    const { redis, onTypes, log } = this.#options
    const digest = await redis.hget(key, 'digest')
    if (digest === null || digest === this.#current?.digest) return
    const [code, types] = await redis.hmgetBuffer(key, 'code', 'types')
    if (code === null || types === null || code === undefined || types === undefined) return
    // Between the two reads there may have come others, whose digest is found at the next look.
    if (createHash('sha256').update(code).digest('hex') !== digest)
      throw new Error('The handlers are not those of their digest.')
    onTypes(JSON.parse(types.toString()))
    const isFirst = this.#current === undefined
    this.#current = { code, digest }
    log.info({ digest }, isFirst ? 'handlers' : 'handlers were replaced')
    for (const listener of this.#listeners) listener()
  }
}
