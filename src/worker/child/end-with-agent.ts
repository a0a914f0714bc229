/** How a slot ends whose agent is gone: in its main thread, or in its watchdog where that hears nothing. */
import { endMarked, slotMark } from '../../marked-processes.ts'
import { attemptFolder, removeAttemptFolderNow } from '../protocol/attempt-folder.ts'

// As the slot was started: handlers can change both later.
const mark = process.env[slotMark] ?? ''
const folder = attemptFolder(mark)

/** Ends all that the slot's handlers started, wherever it is, and then the slot itself. */
export function endWithAgent(): void {
  endMarked(mark)
  removeAttemptFolderNow(folder)
  try {
    // The slot leads its group: what the handler started goes with it.
    process.kill(-process.pid, 'SIGKILL')
  } catch {
    process.kill(process.pid, 'SIGKILL')
  }
}
