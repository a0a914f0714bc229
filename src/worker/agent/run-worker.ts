/** What `muster worker` does: runs one worker until it is told to go, by a signal or by a node. */
import { constants } from 'node:os'
import type { Logger } from 'pino'
import { bundleHandlers, canBundle } from '../../handlers/bundle-handlers.ts'
import type { Settings } from '../../settings/settings.ts'
import { type BundleFile, describeBundle, writeBundle } from '../slots/load-bundle.ts'
import { Worker } from './agent.ts'
import { fetchHandlers } from './handlers-updates.ts'
import { removeLeftovers } from './remove-leftovers.ts'
import type { StopReason } from './worker-options.ts'

export interface RunWorkerOptions {
  readonly settings: Settings
  readonly queue: string
  readonly instanceId?: string
  readonly log: Logger
}

/** 0: it ended as it should, and its supervisor need not start it again (on EC2 the machine then powers off). */
const exitCodes: Record<StopReason, number> = { asked: 0, ordered: 0, interrupted: 0, orphaned: 0, refused: 1 }

/** Where an EC2 instance finds what is known of it; the SDKs of AWS know the same variable. */
const metadataUrl = (): string => process.env.AWS_EC2_METADATA_SERVICE_ENDPOINT || 'http://169.254.169.254'
const ec2InstancePattern = /^i-[0-9a-f]{8,17}$/

/**
 * Runs a worker. SIGTERM and SIGINT drain it; a second signal stops it at once. On EC2 it watches for the end of its
 * machine.
 * @returns the exit code: 0 after a drain, an interruption, or when it reached no node for too long; 1 when the nodes
 * do not let it in
 * @throws StartupError when the handlers cannot be loaded
 */
export async function runWorker({ settings, queue, instanceId, log }: RunWorkerOptions): Promise<number> {
  const id = instanceId ?? process.env.MUSTER_INSTANCE_ID
  removeLeftovers()
  // Nothing is to be drained yet. An exit removes what was made so far, the death by a signal does not.
  const leave = (signal: NodeJS.Signals): void => process.exit(128 + constants.signals[signal])
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, leave)
  const { file, ...found } = await findHandlers(settings, log).finally(() => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.off(signal, leave)
  })
  const worker = new Worker({
    settings: { ...settings, handlers: file?.path ?? '' },
    queue,
    log,
    ...found,
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
  const onContinue = (): void => worker.resumed()
  process.on('SIGCONT', onContinue)
  try {
    await worker.start()
    return exitCodes[await worker.stopped]
  } finally {
    process.off('SIGTERM', onSignal)
    process.off('SIGINT', onSignal)
    process.off('SIGCONT', onContinue)
    await file?.remove()
  }
}

interface FoundHandlers {
  /** undefined: only the built-in ones. */
  readonly file?: BundleFile
  /** They came from the nodes, and change with them. */
  readonly follows?: { readonly digest: string | undefined }
}

/** Its own file, else what the nodes have. */
async function findHandlers(settings: Settings, log: Logger): Promise<FoundHandlers> {
  if (settings.handlers === '') {
    const bundle = await fetchHandlers(settings, log)
    const follows = { digest: bundle?.digest }
    return bundle === undefined ? { follows } : { file: await writeBundle(bundle), follows }
  }
  // A file beside the bare code of a worker, in an image say: it is loaded as it is.
  if (!canBundle()) return { file: { path: settings.handlers, remove: async () => undefined } }
  const bundle = await bundleHandlers(settings.handlers)
  await describeBundle(bundle, settings.handlers)
  return { file: await writeBundle(bundle) }
}
