/**
 * A file system of a few megabytes in memory, for tests of a full disk. It needs root on Linux: elsewhere the test is
 * skipped, and in CI it fails instead.
 */
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { mkdtemp, rm, statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'

export interface SmallDisk {
  readonly folder: string
  /** Takes all but so many bytes of what is free. */
  fill(leftBytes?: number): Promise<void>
  /** Gives back what fill() took. */
  free(): Promise<void>
  resize(size: string): void
}

/** @returns undefined, the test being skipped, where no file system can be mounted */
export async function mountSmallDisk(t: Test, size: string): Promise<SmallDisk | undefined> {
  const folder = await mkdtemp(join(tmpdir(), 'muster-disk-'))
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size},mode=700`, 'tmpfs', folder], { stdio: 'pipe' })
  } catch (error) {
    await rm(folder, { recursive: true, force: true })
    if (process.env.CI !== undefined) throw error
    t.comment('skipped: a small file system cannot be mounted here (it takes root on Linux)')
    return undefined
  }
  t.teardown(async () => {
    // Lazily: what is ending may have files open yet.
    execFileSync('umount', ['-l', folder])
    await rm(folder, { recursive: true, force: true })
  })
  const fillers: string[] = []
  return {
    folder,
    async fill(leftBytes = 0) {
      for (let chunk = 1024 * 1024; chunk >= 4096; ) {
        const { bavail, bsize } = await statfs(folder)
        if (bavail * bsize - leftBytes < chunk) {
          chunk /= 2
          continue
        }
        const file = join(folder, `filler-${fillers.length}`)
        fillers.push(file)
        writeFileSync(file, Buffer.alloc(chunk))
      }
    },
    async free() {
      for (const file of fillers.splice(0)) await rm(file, { force: true })
    },
    resize(newSize) {
      execFileSync('mount', ['-o', `remount,size=${newSize}`, folder])
    },
  }
}
