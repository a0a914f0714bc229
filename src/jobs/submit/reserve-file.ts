/**
 * A file that takes room on the disk while there is some, and is given up when there is none: then Redis can write
 * again what ends jobs and takes them away, which is the way out.
 *
 *   absent ──room above the reserve──▶ held ──disk full──▶ absent
 */
import { open, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { DiskSpace } from '../../disk-space.ts'

const largestBytes = 16 * 1024 * 1024
const chunk = Buffer.alloc(1024 * 1024)

export class ReserveFile {
  readonly #file: string
  #isHeld: boolean | undefined

  constructor(dataDir: string) {
    this.#file = join(dataDir, 'reserve')
  }

  /** Gives the file up, or makes it, as the disk has room. @returns what was done */
  async keep({ freeBytes, totalBytes }: DiskSpace, keptBytes: number): Promise<'given up' | 'made' | undefined> {
    const bytes = Math.floor(Math.min(largestBytes, totalBytes / 50))
    this.#isHeld ??= (await stat(this.#file).catch(() => undefined)) !== undefined
    if (this.#isHeld && freeBytes < Math.min(bytes / 2, chunk.length)) {
      await rm(this.#file, { force: true })
      this.#isHeld = false
      return 'given up'
    }
    if (this.#isHeld || freeBytes < keptBytes + bytes) return undefined
    await this.#make(bytes)
    this.#isHeld = true
    return 'made'
  }

  async #make(bytes: number): Promise<void> {
    const file = await open(this.#file, 'w', 0o600)
    try {
      for (let left = bytes; left > 0; left -= chunk.length) await file.write(chunk, 0, Math.min(left, chunk.length))
    } catch (error) {
      await rm(this.#file, { force: true })
      throw error
    } finally {
      await file.close()
    }
  }
}
