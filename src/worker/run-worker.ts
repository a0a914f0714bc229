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

/** 0: it ended as it should, and whoever runs it need not start it again (on EC2 the machine then powers off). */
const exitCodes: Record<StopReason, number> = { asked: 0, ordered: 0, interrupted: 0, orphaned: 0, refused: 1 }

/** Where an EC2 instance finds what is known of it; the SDKs of AWS know the same variable. */
const metadataUrl = (): string => process.env.AWS_EC2_METADATA_SERVICE_ENDPOINT || 'http://169.254.169.254'
const ec2InstancePattern = /^i-[0-9a-f]{8,17}$/

/**
 * Runs a worker. SIGTERM and SIGINT drain it; a second signal stops it at once. On EC2 it watches for the end of its machine.
 * @returns the exit code: 0 after a drain, an interruption, or when it reached no node for too long; 1 when the nodes do
 * not let it in
 * @throws StartupError when the handlers cannot be loaded
 */
export async function runWorker({ settings, queue, instanceId, log }: RunWorkerOptions): Promise<number> {
  const id = instanceId ?? process.env.MUSTER_INSTANCE_ID
  const worker = new Worker({
    settings,
    queue,
    log,
    ...(id === undefined || id === '' ? {} : { instanceId: id }),
    ...(id !== undefined && ec2InstancePattern.test(id) ? { metadataUrl: metadataUrl() } : {}),
  })
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
