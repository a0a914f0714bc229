/**
 * Who may do what on this node. A request shows a bearer token: an API key, the operator key of the settings or a
 * worker token. On loopback a node is open as long as there is no key at all; the first one closes it, and beyond
 * loopback (or behind a proxy) it is always closed.
 */
import { Problem, StartupError } from '../errors.ts'
import type { Notifier } from '../notifier.ts'
import type { RedisClient } from '../redis/connect/connection.ts'
import { Script } from '../redis/script.ts'
import { type DurableWrites, LocalWrites } from '../redis/writes/durable-writes.ts'
import type { Settings } from '../settings/settings.ts'
import { AccessRecords } from './access-records.ts'
import { isSame, judge, parseKey } from './api-key.ts'
import { AuditLog } from './audit-log.ts'
import type { JoinProofs } from './join-proofs.ts'
import { KeyStore } from './key-store.ts'
import { keys, topic } from './redis-keys.ts'
import { anyone, type Caller, roles } from './roles.ts'
import { isWorkerToken, rotateSigningSecret, signToken, verifyToken } from './worker-token.ts'

export interface AccessOptions {
  readonly redis: RedisClient
  readonly notifier: Notifier
  /** '' for none. */
  readonly operatorKey: string
  /** '' for none. */
  readonly joinSecret: string
  readonly workerTokenTtlMs: number
  /** Only who is on this machine can reach the node: then it may be open. */
  readonly isPrivate: boolean
  /** How changes are kept; left out: in the primary. */
  readonly writes?: DurableWrites
  readonly joinProofs?: JoinProofs
  readonly clock?: () => number
}

/** Everybody who holds it may do everything but be a worker. */
const operator: Caller = {
  kind: 'operator',
  id: 'operator',
  name: 'the operator key of the settings',
  roles: new Set(roles.filter(role => role !== 'work')),
  queues: undefined,
}

/**
 * KEYS: ended instances. ARGV: until when to forget, then score and id of each. Also in a full Redis: it ends
 * something.
 */
const endScript = new Script<number>(
  'endInstances',
  `
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
for i = 2, #ARGV, 2 do redis.call('ZADD', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1`,
  { whenFull: true },
)

type Known = { readonly caller: Caller } | { readonly refusal: string; readonly mayBeNew: boolean }

export class Access {
  readonly keys: KeyStore
  readonly audit: AuditLog
  readonly #options: AccessOptions
  readonly #writes: DurableWrites
  readonly #records: AccessRecords
  readonly #clock: () => number
  #stopListening = (): void => undefined

  constructor(options: AccessOptions) {
    this.#options = options
    const { redis, writes = new LocalWrites(redis), clock = Date.now } = options
    this.#clock = clock
    this.#writes = writes
    this.#records = new AccessRecords(redis, writes, clock)
    this.keys = new KeyStore({ redis, writes, clock, announce: () => this.#announce() })
    this.audit = new AuditLog(redis)
  }

  /** Reads what there is, and hears of changes from now on. @throws what Redis says */
  async start(): Promise<void> {
    const { notifier } = this.#options
    this.#stopListening = notifier.on(topic, () => this.#records.expire())
    await this.#records.read()
  }

  stop(): void {
    this.#stopListening()
  }

  /** @throws StartupError when the node would listen for others, and nobody could ever get in */
  requireKeys({ host, redisUrl, dataDir }: Pick<Settings, 'host' | 'redisUrl' | 'dataDir'>): void {
    if (this.#options.isPrivate || this.#records.known.hasKeys || this.#options.operatorKey !== '') return
    throw new StartupError(
      `MUSTER_HOST is "${host}": others can reach this node, and there is no key that would keep them out. Make the first one with\n\n` +
        `  muster keys create --name admin --role operate --role submit --role collect${redisUrl === '' ? ` --data-dir ${dataDir}` : ''}\n\n` +
        `${redisUrl === '' ? 'Or' : 'with the same MUSTER_REDIS_URL as this node; or'} set MUSTER_OPERATOR_KEY_FILE; or keep it on loopback with MUSTER_HOST=127.0.0.1 and without MUSTER_TRUSTED_PROXIES.`,
    )
  }

  /** Whether everybody may do everything: only on loopback, and only until there is a key. */
  get isOpen(): boolean {
    return this.#options.isPrivate && this.#options.operatorKey === '' && !this.#records.known.hasKeys
  }

  /** @returns undefined when what is known is good; a promise to wait for before asking who calls, else */
  freshen(): Promise<void> | undefined {
    return this.#records.freshen()
  }

  /**
   * Who shows this header. To be asked when what is known is fresh.
   * @throws Problem unauthenticated
   */
  identify(authorization: string | undefined): Caller | Promise<Caller> {
    const known = this.#look(authorization)
    if ('caller' in known) return known.caller
    // A key made a moment ago on another node, whose notification is still on its way.
    return known.mayBeNew ? this.#lookAgain(authorization) : this.#orRefuse(known)
  }

  /**
   * To be asked again before a request that has waited is given anything: its key may have been revoked meanwhile, or
   * has run out. Not of worker tokens: other requests renew them, and what ends a worker ends its claims.
   * @throws Problem unauthenticated
   */
  async requireStill({ kind, id }: Caller, authorization: string | undefined): Promise<void> {
    if (kind !== 'key' && kind !== 'anyone') return
    await this.freshen()
    const now = await this.identify(authorization)
    if (now.kind !== kind || now.id !== id) throw new Problem('unauthenticated', 'This key is not known any more.')
  }

  /** What nobody outside of the deployment can compute with. @throws Problem redis_unavailable */
  get deploymentSecret(): Buffer {
    const { deployment } = this.#records.known
    if (deployment === undefined) throw new Problem('redis_unavailable', 'The secret of the deployment is not known.')
    return deployment
  }

  /** The first token of an instance. */
  mintFirstToken(instanceId: string, queue: string): { token: string; expiresAt: number } {
    return this.#mint({ instanceId, queue })
  }

  /** A token for this very worker, when its own is the first one, or half over. */
  renew({ worker, queues }: Caller, workerId: string): string | undefined {
    const [queue] = queues ?? []
    if (worker === undefined || queue === undefined) return undefined
    const leftMs = worker.expiresAt - this.#clock()
    if (worker.workerId !== undefined && leftMs > this.#options.workerTokenTtlMs / 2) return undefined
    return this.#mint({ instanceId: worker.instanceId, queue, workerId }).token
  }

  /** Whether this is the join secret of the settings; compared in constant time. */
  isJoinSecret(authorization: string | undefined): boolean {
    const { joinSecret } = this.#options
    const token = tokenOf(authorization) ?? ''
    return isSame(token, joinSecret) && joinSecret !== ''
  }

  /** What an instance shows beside the join secret; undefined where nothing more is asked for. */
  get joinProofs(): JoinProofs | undefined {
    return this.#options.joinProofs
  }

  hasEnded(instanceId: string): boolean {
    return this.#records.known.ended.has(instanceId)
  }

  /** From now on nothing that this instance was given is good any more, on any node. */
  async endInstances(instanceIds: readonly string[]): Promise<void> {
    if (instanceIds.length === 0) return
    const { redis, workerTokenTtlMs } = this.#options
    const now = this.#clock()
    // Written again also for one that is known here: the last write may have failed.
    for (const id of instanceIds) this.#records.addEnded(id)
    // Longer than any token lives, also one from a node with another setting.
    const forgetBefore = now - Math.max(2 * workerTokenTtlMs, longestTokenMs)
    await endScript.run(redis, [keys.ended], [forgetBefore, ...instanceIds.flatMap(id => [now, id])])
    this.#announce()
  }

  /** From now on a new secret signs worker tokens. @param graceMs how long the tokens before stay good */
  async rotateSigning(graceMs: number): Promise<void> {
    const { redis } = this.#options
    await this.#writes.confirm(keys.signing, () => rotateSigningSecret(redis, graceMs, this.#clock()))
    this.#announce()
  }

  async #lookAgain(authorization: string | undefined): Promise<Caller> {
    await this.#records.lookAgain()
    const known = this.#look(authorization)
    return 'caller' in known ? known.caller : this.#orRefuse(known)
  }

  #orRefuse({ refusal }: { readonly refusal: string }): Caller {
    // Also with a token that is good for nothing: a worker of yesterday may work on while the node is open to all.
    if (this.isOpen) return anyone
    throw new Problem('unauthenticated', refusal)
  }

  #look(authorization: string | undefined): Known {
    if (authorization === undefined)
      return { refusal: 'This node asks for a key: send Authorization: Bearer muster_….', mayBeNew: false }
    const token = tokenOf(authorization)
    if (token === undefined) return { refusal: 'Authorization must be "Bearer" and a key.', mayBeNew: false }
    if (isWorkerToken(token)) return this.#lookAtWorkerToken(token)
    const parts = parseKey(token)
    if (parts !== undefined) {
      const record = this.#records.known.apiKeys.get(parts.id)
      const verdict = judge(record, parts.secret, this.#clock())
      if (record !== undefined && verdict === 'good') {
        const { id, name, roles, queues } = record
        return { caller: { kind: 'key', id, name, roles: new Set(roles), queues: queues && new Set(queues) } }
      }
      if (verdict === 'expired') return { refusal: 'This key has expired.', mayBeNew: false }
    }
    const { operatorKey } = this.#options
    if (isSame(token, operatorKey) && operatorKey !== '') return { caller: operator }
    return { refusal: 'This key is not known here, or it was revoked.', mayBeNew: parts !== undefined }
  }

  #lookAtWorkerToken(token: string): Known {
    const { signing, ended } = this.#records.known
    const result = verifyToken(token, signing, this.#clock())
    if (result.verdict !== 'good') {
      const refusal =
        result.verdict === 'expired' ? 'This worker token has expired.' : 'This worker token is not good here.'
      return { refusal, mayBeNew: result.verdict === 'unknown-secret' }
    }
    const { instanceId, queue, workerId, expiresAt } = result.claims
    if (ended.has(instanceId)) return { refusal: `The instance ${instanceId} has ended.`, mayBeNew: false }
    return {
      caller: {
        kind: 'worker',
        id: instanceId,
        name: `worker on ${instanceId}`,
        roles: workerRoles,
        queues: new Set([queue]),
        worker: { instanceId, workerId, expiresAt },
      },
    }
  }

  #mint(whose: { instanceId: string; queue: string; workerId?: string }): { token: string; expiresAt: number } {
    const [secret] = this.#records.known.signing
    if (secret === undefined)
      throw new Problem('redis_unavailable', 'The secret that signs worker tokens is not known.')
    const expiresAt = this.#clock() + this.#options.workerTokenTtlMs
    return { token: signToken({ ...whose, expiresAt }, secret), expiresAt }
  }

  #announce(): void {
    this.#records.expire()
    this.#options.notifier.notify(topic)
  }
}

const workerRoles: Caller['roles'] = new Set(['work'] as const)
const longestTokenMs = 2 * 3_600_000

const tokenOf = (authorization: string | undefined): string | undefined =>
  /^bearer +([\x21-\x7e]{1,1024}) *$/i.exec(authorization ?? '')?.[1]
