/**
 * Lists jobs page by page. A cursor holds a place in one of the lists that BullMQ keeps (a segment): finished ones by
 * their time, newest first, so that a page is stable; waiting ones by their place in line, which moves as jobs are
 * taken.
 */
import { createHash } from 'node:crypto'
import { Problem } from '../../errors.ts'
import type { JobQueue } from '../bullmq/job-queue.ts'
import { sortWaiting } from '../bullmq/lanes.ts'
import { type JobState, type JobView, jobStates, viewCancelledJobs, viewJobs } from './inspect.ts'

export interface ListQuery {
  readonly state?: JobState
  readonly type?: string
  readonly limit: number
  readonly cursor?: string
}

export interface JobPage {
  readonly jobs: JobView[]
  /** Pass it to get the next page; absent on the last one. A page may be short and still have a next one. */
  readonly nextCursor?: string
}

interface Segment {
  readonly queue: JobQueue
  readonly state: JobState
  readonly key: string
  readonly order: 'list' | 'ascending' | 'newest-first' | 'lanes'
}

/** Place within a segment: entries passed over, at or below a score when the order is newest-first. */
interface Place {
  readonly segment: number
  readonly skip: number
  readonly score?: number
}

/** Entries looked at for one page: with a filter on the type most may not match. */
const maxLookedAt = 2000
const batch = 200

export async function listJobs(queues: readonly JobQueue[], query: ListQuery): Promise<JobPage> {
  // Before anything is looked at, so that all that is ready stands in its lane.
  await Promise.all(queues.map(sortWaiting))
  const segments = queues.flatMap(queue => segmentsOf(queue, query.state))
  const filters = createHash('sha256')
    .update(JSON.stringify([queues.map(queue => queue.name), query.state, query.type]))
    .digest('base64url')
    .slice(0, 8)
  let place =
    query.cursor === undefined ? { segment: 0, skip: 0 } : decodeCursor(query.cursor, filters, segments.length)
  const jobs: JobView[] = []
  let lookedAt = 0
  for (let segment = segments[place.segment]; segment !== undefined; segment = segments[place.segment]) {
    if (jobs.length >= query.limit || lookedAt >= maxLookedAt) return { jobs, nextCursor: encodeCursor(place, filters) }
    const wanted = query.type === undefined ? query.limit - jobs.length : batch
    const entries = await readSegment(segment, place, wanted, query.type)
    if (entries.length === 0) {
      place = { segment: place.segment + 1, skip: 0 }
      continue
    }
    lookedAt += entries.length
    const workIds = entries.map(entry => entry.workId)
    const views =
      segment.state === 'cancelled'
        ? await viewCancelledJobs(segment.queue, workIds)
        : await viewJobs(segment.queue, workIds)
    const byId = new Map(views.map(view => [view.workId, view]))
    for (const entry of entries) {
      const view = byId.get(entry.workId)
      place = advance(place, segment, entry.score)
      if (view === undefined || (query.type !== undefined && view.type !== query.type)) continue
      jobs.push(view)
      if (jobs.length >= query.limit) break
    }
  }
  return { jobs }
}

function segmentsOf(queue: JobQueue, only: JobState | undefined): Segment[] {
  const key = (name: string): string => queue.bull.toKey(name)
  const all: Segment[] = [
    { queue, state: 'running', key: key('active'), order: 'list' },
    { queue, state: 'waiting', key: queue.keys.lanes, order: 'lanes' },
    { queue, state: 'delayed', key: key('delayed'), order: 'ascending' },
    { queue, state: 'succeeded', key: key('completed'), order: 'newest-first' },
    { queue, state: 'dead', key: key('failed'), order: 'newest-first' },
    { queue, state: 'cancelled', key: queue.keys.cancelled, order: 'newest-first' },
  ]
  return only === undefined ? all : all.filter(segment => segment.state === only)
}

async function readSegment(
  segment: Segment,
  place: Place,
  count: number,
  type: string | undefined,
): Promise<{ workId: string; score?: number }[]> {
  const { redis } = segment.queue
  if (segment.order === 'lanes') return await readLanes(segment.queue, place.skip, count, type)
  if (segment.order === 'list') {
    // BullMQ pushes on the left and takes from the right: the next one to run is the last.
    const ids = await redis.lrange(segment.key, -(place.skip + count), -(place.skip + 1))
    const length = ids.length < count ? await redis.llen(segment.key) : Number.POSITIVE_INFINITY
    return place.skip >= length ? [] : ids.reverse().map(workId => ({ workId }))
  }
  if (segment.order === 'ascending') {
    return (await redis.zrange(segment.key, `${place.skip}`, `${place.skip + count - 1}`)).map(workId => ({ workId }))
  }
  const from = place.score ?? '+inf'
  const flat = await redis.zrevrangebyscore(segment.key, from, '-inf', 'WITHSCORES', 'LIMIT', place.skip, count)
  return Array.from({ length: flat.length / 2 }, (_, index) => ({
    workId: flat[index * 2] as string,
    score: Number(flat[index * 2 + 1]),
  }))
}

/** In the order in which a worker that runs all of these types would get them. */
async function readLanes(
  { redis, keys }: JobQueue,
  skip: number,
  count: number,
  type: string | undefined,
): Promise<{ workId: string }[]> {
  const types = type === undefined ? await redis.smembers(keys.lanes) : [type]
  const [only] = types
  if (types.length === 1 && only !== undefined)
    return (await redis.zrange(keys.lane(only), String(skip), String(skip + count - 1))).map(workId => ({ workId }))
  const lanes = await Promise.all(
    types.map(one => redis.zrange(keys.lane(one), '0', String(skip + count - 1), 'WITHSCORES')),
  )
  return lanes
    .flatMap(flat =>
      Array.from({ length: flat.length / 2 }, (_, index) => ({
        workId: flat[index * 2] as string,
        score: Number(flat[index * 2 + 1]),
      })),
    )
    .sort((a, b) => a.score - b.score)
    .slice(skip, skip + count)
    .map(({ workId }) => ({ workId }))
}

function advance(place: Place, segment: Segment, score: number | undefined): Place {
  if (segment.order !== 'newest-first' || score === undefined) return { ...place, skip: place.skip + 1 }
  return { segment: place.segment, score, skip: place.score === score ? place.skip + 1 : 1 }
}

const encodeCursor = (place: Place, filters: string): string =>
  Buffer.from(
    JSON.stringify([filters, place.segment, place.skip, ...(place.score === undefined ? [] : [place.score])]),
  ).toString('base64url')

function decodeCursor(cursor: string, filters: string, segmentCount: number): Place {
  let parts: unknown
  try {
    parts = JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8'))
  } catch {
    throw new Problem('cursor_invalid')
  }
  if (!Array.isArray(parts) || parts.length < 3 || parts.length > 4) throw new Problem('cursor_invalid')
  const [given, segment, skip, score] = parts as unknown[]
  if (given !== filters) throw new Problem('cursor_invalid', 'The cursor belongs to a list with other filters.')
  const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0
  if (!isCount(segment) || segment >= segmentCount || !isCount(skip) || (score !== undefined && !isCount(score)))
    throw new Problem('cursor_invalid')
  return score === undefined ? { segment, skip } : { segment, skip, score }
}

export const isJobState = (text: string): text is JobState => (jobStates as readonly string[]).includes(text)
