/** What `muster worker` does: runs one worker until it is told to go, by a signal or by a node. */
import type { Logger } from 'pino'
import type { Settings } from '../settings.ts'
import { type StopReason, Worker } from './agent.ts'

export interface RunWorkerOptions {
  readonly settings: Settings
  readonly queue: string
  readonly instanceId?: string
  readonly log: Logger
}

const exitCodes: Record<StopReason, number> = { asked: 0, ordered: 0, refused: 1, orphaned: 3 }

/**
 * Runs a worker. SIGTERM and SIGINT drain it; a second signal stops it at once.
 * @returns the exit code: 0 after a drain, 1 when the nodes do not let it in, 3 when it reached no node for too long
 * @throws StartupError when the handlers cannot be loaded
 */
export async function runWorker({ settings, queue, instanceId, log }: RunWorkerOptions): Promise<number> {
  const id = instanceId ?? process.env.MUSTER_INSTANCE_ID
  const worker = new Worker({ settings, queue, log, ...(id === undefined || id === '' ? {} : { instanceId: id }) })
  let signalCount = 0
  const onSignal = (signal: NodeJS.Signals): void => {
    signalCount += 1
    log.info(
      { signal },
      signalCount === 1 ? 'signal: draining; a second one stops at once' : 'signal: stopping at once',
    )
    void (signalCount === 1 ? worker.drain() : worker.stopNow())
  }
  process.on('SIGTERM', onSignal)
  process.on('SIGINT', onSignal)
  try {
    await worker.start()
    return exitCodes[await worker.stopped]
  } finally {
    process.off('SIGTERM', onSignal)
    process.off('SIGINT', onSignal)
  }
}
