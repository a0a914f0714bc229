/**
 * A file system in memory whose size is changed while it is used: that fills it, to the byte, and frees it again, without
 * a file of its own on it. Mounting takes root on Linux.
 */
import { execFileSync } from 'node:child_process'
import { mkdir, statfs } from 'node:fs/promises'

/** More than any drive writes; memory is taken as it is written to. */
const wideMib = 8192
const mebibyte = 1 << 20
const growthBytes = mebibyte / 16
const mostTries = 40

export class SmallDisk {
  readonly folder: string

  private constructor(folder: string) {
    this.folder = folder
  }

  /** @throws Error with the reason why it cannot be */
  static async mount(folder: string): Promise<SmallDisk> {
    await mkdir(folder, { recursive: true })
    mount(['-t', 'tmpfs', '-o', `size=${wideMib}m,mode=755`, 'tmpfs', folder])
    return new SmallDisk(folder)
  }

  async freeBytes(): Promise<number> {
    const { bavail, bsize } = await statfs(this.folder)
    return bavail * bsize
  }

  /** Leaves so many bytes, in whole pages; what is written at the same moment comes off. */
  async fill(leftBytes: number): Promise<void> {
    for (let tries = 0; ; tries += 1) {
      const { blocks, bfree, bsize } = await statfs(this.folder)
      // A size below what is used by then is refused: the faster it is written to, the more is left at first.
      const pages = Math.max(1, blocks - bfree + Math.floor((leftBytes + tries ** 2 * growthBytes) / bsize))
      try {
        this.#resize(String(pages * bsize))
        return
      } catch (error) {
        if (tries === mostTries) throw error
      }
    }
  }

  free(): void {
    this.#resize(`${wideMib * mebibyte}`)
  }

  /** Lazily: what is ending may have files open yet. */
  unmount(): void {
    execFileSync('umount', ['-l', this.folder], { stdio: 'pipe' })
  }

  #resize(size: string): void {
    mount(['-o', `remount,size=${size}`, this.folder])
  }
}

function mount(args: readonly string[]): void {
  execFileSync('mount', args, { stdio: 'pipe', encoding: 'utf8' })
}
