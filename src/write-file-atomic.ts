/** Replaces a file as a whole: readers, and a machine after a power loss, see the old text or the new one. */
import { rename, rm, writeFile } from 'node:fs/promises'

/** Only this user can read the file. @throws what the file system says; the old file then stays */
export async function writeFileAtomic(file: string, text: string): Promise<void> {
  const temporary = `${file}.${process.pid}.new`
  await rm(temporary, { force: true })
  try {
    // "wx" follows no link that another user has put there.
    await writeFile(temporary, text, { mode: 0o600, flag: 'wx', flush: true })
    await rename(temporary, file)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
}
