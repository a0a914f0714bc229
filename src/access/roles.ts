/** Who calls, and what they may do: five roles, each for one kind of work with Muster. */

export const roles = ['submit', 'collect', 'work', 'read', 'operate'] as const
export type Role = (typeof roles)[number]

export const isRole = (word: string): word is Role => (roles as readonly string[]).includes(word)

/** Who sent a request. */
export interface Caller {
  /** anyone: on loopback, as long as there are no keys. operator: the key of the settings. worker: a worker token. */
  readonly kind: 'anyone' | 'key' | 'operator' | 'worker'
  /** Of the key; the instance of a worker token. */
  readonly id: string
  readonly name: string
  readonly roles: ReadonlySet<Role>
  /** The queues that it is bound to; undefined: all. */
  readonly queues: ReadonlySet<string> | undefined
  /** Of a worker token: whom it names. The first token of an instance names no worker yet. */
  readonly worker?: { readonly instanceId: string; readonly workerId: string | undefined; readonly expiresAt: number }
}

export const anyone: Caller = { kind: 'anyone', id: '-', name: 'anyone', roles: new Set(roles), queues: undefined }

export const mayUseQueue = ({ queues }: Pick<Caller, 'queues'>, queue: string): boolean =>
  queues === undefined || queues.has(queue)
