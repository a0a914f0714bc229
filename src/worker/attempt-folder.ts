/**
 * The folder for temporary files of an isolated attempt. The slot makes it, as the attempt starts; the agent removes it when the
 * slot has ended, or the slot's watchdog when the agent has. Both know its name by the mark of the slot.
 */
import { mkdirSync, rmSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { slotMark } from './end-marked.ts'

const folderOf = (mark: string): string => join(tmpdir(), `muster-attempt-${mark}`)

/** In the slot: from now on `os.tmpdir()` is this folder, here and in child processes. */
export function enterAttemptFolder(): void {
  const folder = folderOf(process.env[slotMark] ?? '')
  mkdirSync(folder, { mode: 0o700 })
  for (const name of ['TMPDIR', 'TMP', 'TEMP']) process.env[name] = folder
}

/** In the agent. Never rejects: what cannot be removed stays. */
export async function removeAttemptFolder(mark: string): Promise<void> {
  await rm(folderOf(mark), { recursive: true, force: true }).catch(() => undefined)
}

/** In the watchdog of a slot whose agent is gone. Never throws. */
export function removeAttemptFolderNow(mark: string): void {
  try {
    rmSync(folderOf(mark), { recursive: true, force: true })
  } catch {
    // The slot may still be writing into it.
  }
}
