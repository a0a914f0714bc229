/**
 * The folder for temporary files of an isolated attempt. The slot makes it, as the attempt starts; the agent removes it
 * when the slot has ended, or the slot itself when the agent has. Both know its name by the mark of the slot.
 */
import { mkdirSync, rmSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { slotMark } from '../../marked-processes.ts'

export const attemptFolders = 'muster-attempt-'

/** In the slot: before an attempt begins, which may change what os.tmpdir() is. */
export const attemptFolder = (mark: string): string => join(tmpdir(), attemptFolders + mark)

/** In the slot: from now on `os.tmpdir()` is this folder, here and in child processes. */
export function enterAttemptFolder(): void {
  const folder = attemptFolder(process.env[slotMark] ?? '')
  mkdirSync(folder, { mode: 0o700 })
  for (const name of ['TMPDIR', 'TMP', 'TEMP']) process.env[name] = folder
}

/** In the agent. Never rejects: what cannot be removed stays. */
export async function removeAttemptFolder(mark: string): Promise<void> {
  await rm(attemptFolder(mark), { recursive: true, force: true }).catch(() => undefined)
}

/** In a slot whose agent is gone. Never throws. */
export function removeAttemptFolderNow(folder: string): void {
  try {
    rmSync(folder, { recursive: true, force: true })
  } catch {
    // The slot may still be writing into it.
  }
}
