/** A primary with a replica, both real; the replica can be stopped and made the primary. */
import type { Redis } from 'ioredis'
import type { Test } from 'tap'
import { startTestRedis, type TestRedis } from './redis.ts'
import { until } from './until.ts'

export interface RedisPair {
  readonly primary: TestRedis
  readonly replica: TestRedis
  readonly url: string
  /** Clients that are no part of what is tested. */
  readonly onPrimary: Redis
  readonly onReplica: Redis
  /** SIGSTOP: the replica is there, and takes nothing. */
  freezeReplica(): void
  /** SIGCONT, and waits until it has all that there is. */
  thawReplica(): Promise<void>
}

export async function startRedisPair(t: Pick<Test, 'teardown'>): Promise<RedisPair> {
  const primary = await startTestRedis(t, { tcp: true, config: { 'repl-diskless-sync-delay': '0' } })
  const url = primary.url as string
  const { port } = new URL(url)
  const replica = await startTestRedis(t, { tcp: true, config: { replicaof: ['127.0.0.1', port] } })
  const onPrimary = await primary.client()
  const onReplica = await replica.client()
  const inStep = async (): Promise<boolean> => (await onPrimary.wait(1, 100)) >= 1
  await onPrimary.set('first', '1')
  await until(inStep)
  return {
    primary,
    replica,
    url,
    onPrimary,
    onReplica,
    freezeReplica: () => void process.kill(replica.pid, 'SIGSTOP'),
    async thawReplica() {
      process.kill(replica.pid, 'SIGCONT')
      await onPrimary.incr('first')
      await until(inStep)
    },
  }
}
