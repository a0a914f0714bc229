/** A provider that tells which instances have ended: those that it was told to terminate, and those that went by themselves. */
import type { FastifyBaseLogger } from 'fastify'
import type { Action } from '../scaling/snapshot.ts'
import { within } from '../within.ts'
import type { Instance, Provider } from './provider.ts'

export interface TellEndsOptions {
  /** Told once an instance was told to terminate, or is not in the list any more. May be told twice. */
  readonly onEnded: (instanceIds: readonly string[]) => Promise<void>
  readonly log: FastifyBaseLogger
}

/** The same provider; what it does, and when, stays as it is. */
export function tellEnds(provider: Provider, { onEnded, log }: TellEndsOptions): Provider {
  let present = new Set<string>()
  /** Not told yet: the last try failed. */
  const untold = new Set<string>()

  const tell = async (): Promise<void> => {
    if (untold.size === 0) return
    const ids = [...untold]
    try {
      await onEnded(ids)
      for (const id of ids) untold.delete(id)
    } catch (error) {
      log.warn(
        { err: error, instanceIds: ids },
        'the end of instances could not be noted; their tokens are ended later',
      )
    }
  }

  return {
    get endsWithNode() {
      return provider.endsWithNode
    },
    launch: request => provider.launch(request),
    async list(): Promise<Instance[]> {
      const instances = await provider.list()
      const now = new Set(instances.map(({ id }) => id))
      for (const id of present) if (!now.has(id)) untold.add(id)
      present = now
      await tell()
      return instances
    },
    async terminate(ids, options) {
      await provider.terminate(ids, options)
      for (const id of ids) if (provider.manages(id)) untold.add(id)
      await tell()
    },
    manages: id => provider.manages(id),
    explainBoot: id => provider.explainBoot(id),
    sweepLeftovers: now => provider.sweepLeftovers(now),
    onChange: listener => provider.onChange(listener),
    close: options => provider.close(options),
    endNow: () => provider.endNow?.(),
  }
}

/** What instances said that never came up, to be kept with the decision that ends them. */
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
