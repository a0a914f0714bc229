/** What instances said that never came up, to be kept with the decision that ends them. */
import type { FastifyBaseLogger } from 'fastify'
import type { Provider } from './providers/provider.ts'
import type { Action } from './snapshot.ts'
import { within } from './within.ts'

const explainTimeoutMs = 10_000
/** When many fail at once they fail alike. */
const askedCount = 3
const longest = 4096

/** Asks for the first few. Never fails: without an answer there is no evidence. */
export async function readEvidence(
  provider: Pick<Provider, 'explainBoot'>,
  actions: readonly Action[],
  log: FastifyBaseLogger,
): Promise<{ evidence?: Record<string, string> }> {
  const ids = actions.flatMap(action =>
    action.kind === 'terminate' && action.reason === 'boot-timeout' ? [action.instanceId] : [],
  )
  const said = await Promise.all(
    ids.slice(0, askedCount).map(async id => {
      try {
        const text = await within(explainTimeoutMs, 'The provider (explain boot)', provider.explainBoot(id))
        return text === undefined ? [] : [[id, text.slice(-longest)] as const]
      } catch (error) {
        log.warn({ instanceId: id, err: error }, 'what an instance said while it booted cannot be read')
        return []
      }
    }),
  )
  return said.flat().length === 0 ? {} : { evidence: Object.fromEntries(said.flat()) }
}
