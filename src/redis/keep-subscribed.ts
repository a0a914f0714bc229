/**
 * Keeps the subscriptions of a client over outages. ioredis subscribes again by itself, but without looking at the
 * outcome, and on a Cluster it forgets to after all servers were away.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { Cluster, type Redis } from 'ioredis'

type Subscribe = (...channels: string[]) => Promise<unknown>

const againEveryMs = 1000
const answerWithinMs = 2000
const missesUntilReconnect = 3

/** Attends to a client that subscribes; the returned function ends that. */
export function keepSubscribed(client: Redis | Cluster): () => void {
  const subscribe = client.subscribe.bind(client) as Subscribe
  const channels = new Set<string>()
  Reflect.set(client, 'subscribe', (...wanted: string[]) => {
    for (const channel of wanted.flat()) channels.add(channel)
    const outcome = subscribe(...wanted)
    // ioredis calls this itself at a reconnect; a close in that moment must not end the process.
    outcome.catch(() => undefined)
    return outcome
  })
  return client instanceof Cluster ? repeat(client, subscribe, channels) : () => undefined
}

/** Subscribing twice is harmless, so it is done each second; who does not answer to it is left. */
function repeat(cluster: Cluster, subscribe: Subscribe, channels: ReadonlySet<string>): () => void {
  let misses = 0
  let busy = false
  const timer = setInterval(async () => {
    if (busy || channels.size === 0 || cluster.status !== 'ready') return
    busy = true
    const outcome = subscribe(...channels).then(
      () => true,
      () => false,
    )
    const answered = await Promise.race([outcome, delay(answerWithinMs, false, { ref: false })])
    misses = answered ? 0 : misses + 1
    if (misses >= missesUntilReconnect && cluster.status === 'ready') {
      misses = 0
      cluster.disconnect(true)
    }
    busy = false
  }, againEveryMs).unref()
  return () => clearInterval(timer)
}
