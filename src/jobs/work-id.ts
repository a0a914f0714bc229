/**
 * Work IDs: opaque to clients, but they carry the name of their queue so that any node finds a job without an index.
 * `<22 letters and digits>` in the queue `default`, `<queue>.<22 letters and digits>` elsewhere.
 */
import { createHash } from 'node:crypto'
import { customAlphabet } from 'nanoid'

const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
/** 62²¹ ids (125 bits) after the letter that keeps BullMQ from taking one for a number. */
const randomPart = customAlphabet(alphabet, 21)

const pattern = /^(?:([a-z0-9_-]{1,64})\.)?([A-Za-z][A-Za-z0-9]{20,63})$/

const inQueue = (queue: string, id: string): string => (queue === 'default' ? id : `${queue}.${id}`)

export const newWorkId = (queue: string): string => inQueue(queue, `w${randomPart()}`)

/** The Work ID that an Idempotency-Key stands for: the same on every node, without a look-up. */
export const workIdOfKey = (queue: string, idempotencyKey: string): string =>
  inQueue(queue, `k${createHash('sha256').update(idempotencyKey).digest('hex').slice(0, 32)}`)

/** The queue that a Work ID names, or undefined when it is not a Work ID at all. */
export function queueOfWorkId(workId: string): string | undefined {
  const match = pattern.exec(workId)
  return match === null ? undefined : (match[1] ?? 'default')
}
