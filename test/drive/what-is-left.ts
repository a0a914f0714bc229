/** When all was collected, the node is restarted with times that forget it at once: then nothing may be left of any job. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Deployment } from './deployment.ts'
import type { Stage } from './move.ts'
import { payloadFiles } from './oracle.ts'

const forgetting = { MUSTER_RESULT_TTL_MS: '1000', MUSTER_UNCOLLECTED_TTL_MS: '1000', MUSTER_DEAD_TTL_MS: '1000' }

/** Keys that a deployment has without any job, or that Redis lets go by itself. */
const constantKeys = [
  ...[
    /^\{muster\}:/,
    /^\{muster:[^}]*\}:(sequence|stats|control|watchdog|mark|abandoned|lane-arrivals|lane-firsts|lost-by:.*)$/,
  ],
  /^\{muster:[^}]*\}:[^:]*:(meta|id|events|marker|metrics:.*|stalled-check|pc)$/,
]

export async function whatIsLeft(
  stage: Stage,
  deployment: Deployment,
  slackMs: number,
  checksFiles: boolean,
): Promise<void> {
  const { model } = stage
  // What was held in doubt is collected by its time; until then it may stay.
  if (model.faults.length > 0 || deployment.isTwoNodes) return
  model.history.around(Date.now(), 'restarted with times that forget all jobs')
  for (const name of deployment.nodes) await deployment.restart(name, 'SIGTERM', forgetting)
  await deployment.untilReady()
  const left = async (): Promise<string[]> => [
    ...(await stage.http.insist('GET', '/jobs?limit=1000'))
      .json()
      .jobs.map(({ workId }: { workId: string }) => `job ${workId}`),
    ...keysOf(deployment)
      .filter(key => !constantKeys.some(pattern => pattern.test(key)))
      .map(key => `key ${key}`),
  ]
  let now = await left()
  for (const deadline = Date.now() + slackMs + 60_000; now.length > 0 && Date.now() < deadline; now = await left())
    await delay(1000)
  if (now.length > 0) model.fault('leaked', Date.now(), `${now.length} are left: ${now.slice(0, 12).join(', ')}`)
  if (!checksFiles) return
  const files = (await Promise.all(deployment.dataDirs.map(payloadFiles))).flat()
  // What was on its way when a process was killed belongs to no job, and is swept when it is an hour old.
  const ownerless = 10 + model.doubtfulSubmissions + 8 * model.disturbanceCount
  if (files.length > ownerless)
    model.fault('leaked', Date.now(), `${files.length} files are left, ${files.slice(0, 5).join(', ')}`)
}

function keysOf(deployment: Deployment): string[] {
  const socket = join(deployment.dataDirs[0] as string, 'redis/redis.sock')
  const { stdout, status, stderr } = spawnSync('redis-cli', ['-s', socket, '--scan'], {
    encoding: 'utf8',
    timeout: 20_000,
  })
  if (status !== 0) throw new Error(`redis-cli: ${stderr}`)
  return stdout.split('\n').filter(key => key !== '')
}
