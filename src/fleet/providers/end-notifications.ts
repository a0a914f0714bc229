/** End notifications of a provider: which instances were terminated or ended by themselves. And boot diagnostics. */
import type { FastifyBaseLogger } from 'fastify'
import { within } from '../../within.ts'
import type { Action } from '../scaling/snapshot.ts'
import type { Instance, Provider } from './provider.ts'

export interface EndNotificationOptions {
  /** Called after an instance was told to terminate or has left the list. The same end may come twice. */
  readonly onEnded: (instanceIds: readonly string[]) => Promise<void>
  readonly log: FastifyBaseLogger
}

/** The same provider; what it does, and when, stays as it is. */
export function withEndNotifications(provider: Provider, { onEnded, log }: EndNotificationOptions): Provider {
  let present = new Set<string>()
  /** Not notified yet: the last try failed. */
  const pending = new Set<string>()

  const notify = async (): Promise<void> => {
    if (pending.size === 0) return
    const ids = [...pending]
    try {
      await onEnded(ids)
      for (const id of ids) pending.delete(id)
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
      for (const id of present) if (!now.has(id)) pending.add(id)
      present = now
      await notify()
      return instances
    },
    async terminate(ids, options) {
      await provider.terminate(ids, options)
      for (const id of ids) if (provider.manages(id)) pending.add(id)
      await notify()
    },
    manages: id => provider.manages(id),
    explainBoot: id => provider.explainBoot(id),
    sweepLeftovers: now => provider.sweepLeftovers(now),
    onChange: listener => provider.onChange(listener),
    close: options => provider.close(options),
    endNow: () => provider.endNow?.(),
  }
}

const explainTimeoutMs = 10_000
/** When many fail at once they fail alike. */
const askedCount = 3
const longest = 4096

/**
 * Boot diagnostics: what instances that never came up said while they booted, kept with the decision that ends them.
 * Asks for the first few. Never fails: without an answer there are none.
 */
export async function readBootDiagnostics(
  provider: Pick<Provider, 'explainBoot'>,
  actions: readonly Action[],
  log: FastifyBaseLogger,
): Promise<{ bootDiagnostics?: Record<string, string> }> {
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
  return said.flat().length === 0 ? {} : { bootDiagnostics: Object.fromEntries(said.flat()) }
}
