/**
 * Work IDs: opaque to clients, but they carry the name of their queue so that any node finds a job without an index.
 * `<22 letters and digits>` in the queue `default`, `<queue>.<22 letters and digits>` elsewhere.
 */
import { createHmac } from 'node:crypto'
import { customAlphabet } from 'nanoid'

const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
/** 62²¹ ids (125 bits) after the letter that keeps BullMQ from taking one for a number. */
const randomPart = customAlphabet(alphabet, 21)

const pattern = /^(?:([a-z0-9_-]{1,64})\.)?([A-Za-z][A-Za-z0-9]{20,63})$/

const inQueue = (queue: string, id: string): string => (queue === 'default' ? id : `${queue}.${id}`)

export const newWorkId = (queue: string): string => inQueue(queue, `w${randomPart()}`)

/** What names a job beside its queue: two callers may use the same key for two jobs. */
export interface IdempotencyKey {
  readonly key: string
  /** Whose it is. */
  readonly owner: string
  /** Of the deployment: nobody else can compute the Work ID. */
  readonly secret: Buffer
}

/** The Work ID that an Idempotency-Key stands for: the same on every node, without a look-up. */
export function workIdOfKey(queue: string, { key, owner, secret }: IdempotencyKey): string {
  const mac = createHmac('sha256', secret).update(JSON.stringify([queue, owner, key]))
  return inQueue(queue, `k${mac.digest('hex').slice(0, 32)}`)
}

/** The queue that a Work ID names, or undefined when it is not a Work ID at all. */
export function queueOfWorkId(workId: string): string | undefined {
  const match = pattern.exec(workId)
  return match === null ? undefined : (match[1] ?? 'default')
}
