/** Moves on single jobs: look, read, cancel, replay. */
import type { JobLook } from '../facts.ts'
import type { Move, Stage } from '../move.ts'

export const jobMoves: readonly Move[] = [
  {
    ...{ name: 'look', group: 'jobs', weight: 10, stream: 'users' },
    async run(stage, random) {
      const job = stage.openJob(random)
      if (job !== undefined) await look(stage, job.workId)
    },
  },
  {
    ...{ name: 'read logs', group: 'jobs', weight: 3, stream: 'users' },
    async run(stage, random) {
      const job = stage.openJob(random)
      if (job !== undefined) await stage.http.insist('GET', `/jobs/${job.workId}/logs?limit=100`)
    },
  },
  {
    ...{ name: 'cancel', group: 'jobs', weight: 3, stream: 'users' },
    async run(stage, random) {
      const job = stage.openJob(random)
      if (job === undefined) return
      // Some are cancelled by two at once, by the same node or by another.
      const count = random.pick([1, 1, 1, 2])
      await Promise.all(Array.from({ length: count }, async () => await cancel(stage, job.workId)))
    },
  },
  {
    ...{ name: 'replay', group: 'jobs', weight: 2, stream: 'users' },
    async run(stage, random) {
      const { http, model } = stage
      const dead = [...model.jobs.values()].filter(({ state, spec }) => state === 'dead' && !spec.killsWorkers)
      if (dead.length === 0) return
      const { workId } = random.pick(dead)
      model.replayAsked(workId, Date.now())
      try {
        const reply = await http.call('POST', `/jobs/${workId}/retry`)
        const answer = reply.status === 200 ? 'waiting' : reply.status === 503 ? undefined : 'refused'
        model.replayAnswered(workId, answer, reply.at)
      } catch (error) {
        model.replayAnswered(workId, undefined, Date.now())
        throw error
      }
    },
  },
  {
    ...{ name: 'list', group: 'jobs', weight: 2, stream: 'users' },
    async run({ http, model }, random) {
      const state = random.pick(['', '&state=running', '&state=waiting', '&state=dead', '&state=succeeded'])
      const reply = await http.insist('GET', `/jobs?limit=${random.pick([1, 10, 1000])}${state}`)
      if (reply.status !== 200)
        model.fault('wrong answer', reply.at, `GET /jobs: ${reply.status} ${reply.bytes.toString().slice(0, 300)}`)
      else for (const job of reply.json().jobs as JobLook[]) model.looked(job, reply.askedAt, reply.at)
    },
  },
]

/** Cancels a job, and tells the model. @returns what was answered; undefined: neither, so that it may be asked again */
export async function cancel(
  { http, model }: Stage,
  workId: string,
): Promise<'cancelled' | 'succeeded' | 'failed' | undefined> {
  const askedAt = Date.now()
  model.cancelAsked(workId, askedAt)
  try {
    const reply = await http.call('DELETE', `/jobs/${workId}`)
    const ended = /has succeeded/.test(String(reply.json().detail)) ? 'succeeded' : 'failed'
    const answer = reply.status === 200 ? 'cancelled' : reply.code() === 'job_finished' ? ended : undefined
    model.cancelAnswered(workId, answer, askedAt, reply.at)
    if (answer === undefined && reply.status !== 503)
      model.fault('wrong answer', reply.at, `its cancel was answered ${reply.status} ${reply.code()}`, workId)
    return answer
  } catch (error) {
    model.cancelAnswered(workId, undefined, askedAt, Date.now())
    throw error
  }
}

/** Looks at a job, and tells the model. */
export async function look({ http, model }: Stage, workId: string): Promise<void> {
  const reply = await http.insist('GET', `/jobs/${workId}`)
  if (reply.status === 200) model.looked(reply.json() as JobLook, reply.askedAt, reply.at)
  else if (reply.code() === 'job_not_found') model.missing(workId, reply.askedAt, reply.at)
  else if (reply.status !== 503)
    model.fault('wrong answer', reply.at, `GET of it: ${reply.status} ${reply.bytes.toString().slice(0, 300)}`, workId)
}
