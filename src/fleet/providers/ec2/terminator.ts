/** Ends instances, in batches. EC2 refuses a whole batch for one id that it does not know: then the halves are tried. */
import { codeOf } from './aws-errors.ts'
import type { Ec2Api } from './ec2-api.ts'

const batchSize = 100
const unknownIdCodes = new Set(['InvalidInstanceID.NotFound', 'InvalidInstanceID.Malformed'])

/**
 * @param options.skipShutdown does not wait for the operating system to shut down
 * @returns the ids that EC2 ends now; the others are unknown to it
 * @throws the last error, after all batches were tried
 */
export async function terminateInstances(
  api: Ec2Api,
  ids: readonly string[],
  { skipShutdown }: { readonly skipShutdown: boolean },
): Promise<string[]> {
  const ended: string[] = []
  let failure: { readonly error: unknown } | undefined
  for (let from = 0; from < ids.length; from += batchSize) {
    try {
      ended.push(...(await terminateBatch(api, ids.slice(from, from + batchSize), skipShutdown)))
    } catch (error) {
      failure = { error }
    }
  }
  if (failure !== undefined) throw failure.error
  return ended
}

async function terminateBatch(api: Ec2Api, ids: readonly string[], skipShutdown: boolean): Promise<string[]> {
  const input = { InstanceIds: [...ids], ...(skipShutdown && { SkipOsShutdown: true }) }
  try {
    await api.retried((client, options) => client.terminateInstances(input, options))
    return [...ids]
  } catch (error) {
    if (!unknownIdCodes.has(codeOf(error))) throw error
    if (ids.length === 1) return []
    const middle = Math.ceil(ids.length / 2)
    return [
      ...(await terminateBatch(api, ids.slice(0, middle), skipShutdown)),
      ...(await terminateBatch(api, ids.slice(middle), skipShutdown)),
    ]
  }
}
