/** What is known of BullMQ's layout in Redis, against jobs that its public API makes. */
import { Queue, type QueueOptions, Worker } from 'bullmq'
import { pino } from 'pino'
import t from 'tap'
import {
  bullFields,
  bullKeys,
  delayedUnit,
  dueTimeOf,
  lockSuffix,
  priorityUnit,
} from '../../src/jobs/bullmq/bull-layout.ts'
import { takeMany } from '../../src/jobs/bullmq/claim-batch.ts'
import { JobQueue } from '../../src/jobs/bullmq/job-queue.ts'
import { countByType, sortWaiting } from '../../src/jobs/bullmq/lanes.ts'
import { closeRedis, connectRedis } from '../../src/redis/connect/connection.ts'
import { prefixOf } from '../../src/redis/keys.ts'
import { startTestRedis } from '../support/redis.ts'

t.test('what BullMQ writes is what is read here', async t => {
  const { socketPath } = await startTestRedis(t)
  const redis = await connectRedis({ socketPath, purpose: 'commands', log: pino({ level: 'silent' }) })
  t.teardown(() => closeRedis(redis))
  const connection = redis as unknown as QueueOptions['connection']
  const bull = new Queue('q', { connection, prefix: prefixOf('q') })
  t.teardown(() => bull.close())
  const first = await bull.add('plain', {}, { jobId: 'first' })
  await bull.add('plain', {}, { jobId: 'second' })
  await bull.add('ranked', {}, { jobId: 'ranked', priority: 3 })
  const before = Date.now()
  await bull.add('later', {}, { jobId: 'later', delay: 60_000 })
  const key = (name: string): string => bull.toKey(name)

  t.same(await redis.lrange(key(bullKeys.wait), 0, -1), ['second', 'first'], 'the next one is the last')
  t.equal(Math.floor(Number(await redis.zscore(key(bullKeys.prioritized), 'ranked')) / priorityUnit), 3)
  const score = Number(await redis.zscore(key(bullKeys.delayed), 'later'))
  t.ok(dueTimeOf(score) >= before + 60_000 && dueTimeOf(score) <= Date.now() + 60_000)
  t.ok(score >= (before + 60_000) * delayedUnit)
  t.equal(await redis.hget(key('ranked'), bullFields.type), 'ranked')
  t.equal(await redis.hget(key('ranked'), bullFields.priority), '3')

  const worker = new Worker('q', null, { connection, prefix: prefixOf('q'), name: 'w', autorun: false })
  t.teardown(() => worker.close(true))
  const taken = await worker.getNextJob('token')
  t.equal(taken?.id, first.id)
  t.equal(await redis.get(`${key('first')}${lockSuffix}`), 'token')
  t.same(await redis.lrange(key(bullKeys.active), 0, -1), ['first'])
  const [starts, attempts, startedAt, by] = await redis.hmget(
    key('first'),
    bullFields.starts,
    bullFields.attempts,
    bullFields.startedAt,
    bullFields.worker,
  )
  t.same([starts, attempts, by], ['1', null, 'w'])
  t.ok(Number(startedAt) >= before)
  t.equal(bull.keys.stalled, key(bullKeys.stalled))
  await taken?.moveToCompleted('done', 'token', false)
  t.equal(await redis.hget(key('first'), bullFields.attempts), '1')
  t.ok(await redis.zscore(key(bullKeys.completed), 'first'))
  await bull.pause()
  t.equal(await redis.hexists(key(bullKeys.meta), 'paused'), 1)
  await bull.resume()

  // What stands in BullMQ's own lists is how an older version has left it.
  const queue = new JobQueue('q', redis, 30_000)
  t.teardown(() => queue.close())
  await queue.bull.waitUntilReady()
  await sortWaiting(queue)
  await sortWaiting(queue)
  t.same(new Map([...(await countByType(queue))].sort()), new Map([['plain', 1], ['ranked', 1]])) // biome-ignore format: one line
  const none = await takeMany(queue, { workerId: 'w', types: ['later', 'other'] }, ['w/1'])
  t.same(none.jobs, [])
  t.equal(Math.floor(none.nextDelayedAt ?? 0), dueTimeOf(score))
  const all = await takeMany(queue, { workerId: 'w', types: ['ranked', 'plain'] }, ['w/2', 'w/3', 'w/4'])
  t.same(all.jobs.map(({ job, token }) => [job.id, token]), [['second', 'w/2'], ['ranked', 'w/3']]) // biome-ignore format: one line
  t.equal(await redis.get(`${key('ranked')}${lockSuffix}`), 'w/3')
})
