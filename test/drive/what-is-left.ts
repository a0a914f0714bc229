/** When all was collected, the nodes are restarted with times that forget it at once: then nothing may be left of any job. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Deployment } from './deployment.ts'
import { leaked, ofJobs } from './left.ts'
import type { Stage } from './move.ts'
import { payloadFiles } from './oracle.ts'
import { allKeys } from './redis-keys.ts'

const forgetting = { MUSTER_RESULT_TTL_MS: '1000', MUSTER_UNCOLLECTED_TTL_MS: '1000', MUSTER_DEAD_TTL_MS: '1000' }

export async function whatIsLeft(
  stage: Stage,
  deployment: Deployment,
  slackMs: number,
  checksFiles: boolean,
): Promise<void> {
  const { model } = stage
  // What is wrong already may leave something behind, which would tell nothing new.
  if (model.faults.length > 0) return
  model.history.around(Date.now(), 'restarted with times that forget all jobs')
  for (const name of deployment.nodes) await deployment.restart(name, 'SIGTERM', forgetting)
  await deployment.untilReady()
  const look = async (): Promise<{ jobs: string[]; keys: string[] }> => ({
    jobs: (await stage.http.insist('GET', '/jobs?limit=1000'))
      .json()
      .jobs.map(({ workId }: { workId: string }) => workId),
    keys: await allKeys(deployment.redis),
  })
  // What was held in doubt is collected by its time; until then it may stay.
  let now = await look()
  for (const deadline = Date.now() + slackMs + 60_000; ofJobs(now).length > 0 && Date.now() < deadline; )
    now = await delay(1000).then(look)
  const files = checksFiles ? (await Promise.all(deployment.payloadDirs.map(payloadFiles))).flat() : []
  const ownerless = 10 + model.doubtfulSubmissionCount + 8 * model.disturbanceCount
  for (const sentence of leaked({ ...now, files }, ownerless)) model.fault('leaked', Date.now(), sentence)
}
