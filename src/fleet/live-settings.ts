/**
 * The settings of the fleet while a node runs. Their file is looked at again and again, whoever writes it and however: what has
 * changed counts from the next decision on. A file that cannot be used is told of once, and what counted before goes on.
 */
import { readFileSync } from 'node:fs'
import type { Logger } from 'pino'
import { livePlacementFields, livePoolFields } from '../settings/fleet-settings-file.ts'
import type { Settings } from '../settings/settings.ts'

type Queues = Pick<Settings, 'pools' | 'placements'>

export interface LiveSettingsOptions {
  /** Those of the node. The records in them are replaced in place: whoever holds them sees the new ones. */
  readonly settings: Queues & Pick<Settings, 'fleetSettingsFile'>
  /** All settings as a node that started now would have them. @throws StartupError when they are invalid */
  readonly reread: () => Queues
  readonly log: Pick<Logger, 'info' | 'error'>
  /** Between two looks at the file (default 2,000). */
  readonly everyMs?: number
}

export interface Change {
  readonly queue: string
  readonly setting: string
  readonly old: unknown
  readonly new: unknown
}

export class LiveSettings {
  readonly #options: LiveSettingsOptions
  /** What the file said last, good or not: it is told of once. At first unknown: it may have changed while the node started. */
  #seen: string | undefined
  #timer: NodeJS.Timeout | undefined

  constructor(options: LiveSettingsOptions) {
    this.#options = options
  }

  /** From now on the settings follow the file. Calling twice is safe. */
  start(): void {
    this.#timer ??= setInterval(() => this.look(), this.#options.everyMs ?? 2000).unref()
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  /** One look. @returns what has changed in the settings. Never throws. */
  look(): Change[] {
    const content = this.#content()
    if (content === this.#seen) return []
    this.#seen = content
    const { settings, reread, log } = this.#options
    const file = settings.fleetSettingsFile
    try {
      const changes = takeOver(settings, reread())
      for (const change of changes)
        log.info(
          { file, ...change },
          `${change.setting} of the queue ${change.queue}: ${String(change.old)} -> ${String(change.new)}`,
        )
      return changes
    } catch (error) {
      log.error(
        { file, reason: (error as Error).message },
        'the settings of the fleet cannot be used; those before stay',
      )
      return []
    }
  }

  #content(): string {
    try {
      return readFileSync(this.#options.settings.fleetSettingsFile, 'utf8')
    } catch (error) {
      return `cannot be read: ${(error as NodeJS.ErrnoException).code}`
    }
  }
}

/** Queues themselves stay: one that is new or gone counts from the next start on. */
function takeOver({ pools, placements }: Queues, next: Queues): Change[] {
  return Object.keys(pools).flatMap(queue => [
    ...replace(pools, next.pools, queue, livePoolFields),
    ...replace(placements, next.placements, queue, livePlacementFields),
  ])
}

function replace<T extends object>(
  all: Readonly<Record<string, T>>,
  next: Readonly<Record<string, T>>,
  queue: string,
  live: readonly (keyof T & string)[],
): Change[] {
  const [before, after] = [all[queue], next[queue]]
  if (before === undefined || after === undefined) return []
  const changed = live.filter(setting => String(before[setting]) !== String(after[setting]))
  if (changed.length === 0) return []
  const values = Object.fromEntries(changed.map(setting => [setting, after[setting]]))
  ;(all as Record<string, T>)[queue] = { ...before, ...values }
  return changed.map(setting => ({ queue, setting, old: before[setting], new: after[setting] }))
}
