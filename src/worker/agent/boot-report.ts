/**
 * What a worker knows of the boot of its machine: when its kernel came up, what the user data noted on the way
 * (MUSTER_BOOT_STAGES), when its own process began. All of it is only for people to look at.
 */
import { uptime } from 'node:os'
import type { WorkerDescription } from '../../contract/worker-protocol.ts'

export type BootReport = NonNullable<WorkerDescription['boot']>

/** Names in MUSTER_BOOT_STAGES, and where they stand in the report. */
const noted = { userData: 'userDataAt', installed: 'installedAt' } as const

/** @param stages `name=<ms since the epoch>`, separated by commas; what cannot be read is left out */
export function bootReport(
  stages: string,
  times: { readonly kernelAt: number; readonly processAt: number },
): BootReport {
  const report: BootReport = { bootedAt: iso(times.kernelAt), agentAt: iso(times.processAt) }
  for (const stage of stages.split(',')) {
    const [, name, time] = /^(userData|installed)=(\d{13})$/.exec(stage.trim()) ?? []
    if (name === 'userData' || name === 'installed') report[noted[name]] = iso(Number(time))
  }
  return report
}

/** The same for this process, now. */
export const ownBootReport = (): BootReport =>
  bootReport(process.env.MUSTER_BOOT_STAGES ?? '', {
    kernelAt: Date.now() - uptime() * 1000,
    processAt: performance.timeOrigin,
  })

const iso = (ms: number): string => new Date(Math.round(ms)).toISOString()
