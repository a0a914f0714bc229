/**
 * What an error from Redis means to a caller: it is away (try again soon), it is full, or it is a mistake of ours.
 */

const lostConnection =
  /^Connection is closed|^Stream isn't writeable|^Cluster isn't ready|^Cluster is ended|^Failed to refresh slots cache|^None of startup nodes is available|^Too many Cluster redirections|^Command aborted due to connection close|^Reached the max retries per request|^Command timed out|^Ready check failed|^Socket timeout/

// Redis 6 wraps the refusal of a command inside a script: "ERR Error running script …: -READONLY You can't …".
const passingRefusal =
  /(?:^|[\s:]-)(?:LOADING|READONLY|MASTERDOWN|NOREPLICAS|MISCONF|CLUSTERDOWN|TRYAGAIN|BUSY|UNBLOCKED) /

const memoryRefusal = /(?:^|[\s:]-?)OOM command not allowed/

/** Socket errors count only while connecting: a reset of some other socket says nothing about Redis. */
const connectCalls = new Set(['connect', 'getaddrinfo'])

/**
 * A write that is not known to be kept as it was asked for: no replica took it in time, or the connection was lost.
 * Passes like an outage; the message is one for callers.
 */
export class NotDurableError extends Error {
  override readonly name = 'NotDurableError'
  /** False: nothing was written. */
  readonly mayHaveHappened: boolean

  constructor(message: string, { mayHaveHappened, cause }: { mayHaveHappened: boolean; cause?: unknown }) {
    super(message, cause === undefined ? undefined : { cause })
    this.mayHaveHappened = mayHaveHappened
  }
}

/**
 * True when Redis cannot be reached now, or refuses for a reason that passes (loading, a replica, a full disk).
 * The command may have been carried out nevertheless: the reply may be what got lost.
 */
export const isRedisAway = (error: unknown): boolean =>
  someCause(error, cause => {
    if (cause instanceof NotDurableError) return true
    const { message, syscall } = cause
    if (syscall !== undefined && connectCalls.has(syscall)) return true
    return lostConnection.test(message) || passingRefusal.test(message)
  })

/** True when Redis refused a write because it is at its memory limit. */
export const isRedisFull = (error: unknown): boolean => someCause(error, ({ message }) => memoryRefusal.test(message))

function someCause(error: unknown, test: (error: Error & { syscall?: string }) => boolean): boolean {
  let current = error
  for (let depth = 0; depth < 5 && current instanceof Error; depth++) {
    if (test(current)) return true
    // A transaction that is refused tells why in the commands before it.
    const { previousErrors } = current as { previousErrors?: unknown }
    if (Array.isArray(previousErrors) && previousErrors.some(inner => inner instanceof Error && test(inner)))
      return true
    if (current instanceof AggregateError && current.errors.some(inner => inner instanceof Error && test(inner)))
      return true
    current = current.cause
  }
  return false
}
