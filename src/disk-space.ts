/** How much room a disk has, and how much of it is kept for work that is under way. */
import { statfsSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import { within } from './within.ts'

export interface DiskSpace {
  readonly freeBytes: number
  readonly totalBytes: number
}

const mebibyte = 1024 ** 2
const gibibyte = 1024 ** 3
/** A shared folder whose server is away answers never. */
const lookWithinMs = 2000

/**
 * Kept free, unless a setting says how much: 5 % or 1 GiB, whichever is more, but of a small disk no more than a fifth.
 */
export const defaultReserveBytes = (totalBytes: number): number =>
  Math.max(totalBytes * 0.05, Math.min(gibibyte, totalBytes * 0.2))

/** Undefined when it cannot be looked at. */
export async function readDisk(folder: string): Promise<DiskSpace | undefined> {
  const found = await within(lookWithinMs, 'The disk', statfs(folder)).catch(() => undefined)
  return found && toSpace(found)
}

/** The same, synchronously. */
export function readDiskNow(folder: string): DiskSpace | undefined {
  try {
    return toSpace(statfsSync(folder))
  } catch {
    return undefined
  }
}

/** So little is left that what is written now fails, or soon will. */
export const isDiskFull = ({ freeBytes }: DiskSpace): boolean => freeBytes < mebibyte / 4

/** Like "12 MiB". */
export function inWords(bytes: number): string {
  if (bytes >= gibibyte) return `${(bytes / gibibyte).toFixed(1)} GiB`
  return bytes >= mebibyte ? `${Math.floor(bytes / mebibyte)} MiB` : `${Math.floor(bytes / 1024)} KiB`
}

const toSpace = ({ bavail, blocks, bsize }: { bavail: number; blocks: number; bsize: number }): DiskSpace => ({
  freeBytes: bavail * bsize,
  totalBytes: blocks * bsize,
})
