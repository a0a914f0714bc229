/** What the nodes say of accepted jobs whose result nobody was handed. */
import type { Found } from './checker.ts'
import type { Deployment } from './deployment.ts'

export async function lookUp(deployment: Deployment, workIds: readonly string[]): Promise<Map<string, Found>> {
  const found = new Map<string, Found>()
  for (const workId of workIds) {
    const one = await lookUpOne(deployment, workId).catch((error: Error) => ({ missing: error.message }))
    found.set(workId, one)
  }
  return found
}

async function lookUpOne(deployment: Deployment, workId: string): Promise<Found> {
  const job = await deployment.ask(`/jobs/${workId}`)
  if (job.status !== 200) return { missing: `GET /jobs answers ${job.status}` }
  const { state, collection } = JSON.parse(job.text) as { state: string; collection?: string }
  if (state !== 'succeeded') return { missing: `it is ${state}` }
  // Only what counts as collected may be left to be read: the reply to its pull got lost.
  if (collection !== 'acked') return { missing: `its result is ${collection}, and was not handed out` }
  const result = await deployment.ask(`/jobs/${workId}/result`)
  if (result.status !== 200) return { missing: `GET /jobs/…/result answers ${result.status}` }
  return { value: (JSON.parse(result.text) as { value: unknown }).value }
}
