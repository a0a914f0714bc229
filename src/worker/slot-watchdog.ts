/**
 * Runs as a thread of its own in each slot: when the agent is gone, it kills the slot's whole process group. The main thread
 * may be in an endless loop then and hear nothing.
 */
import { workerData } from 'node:worker_threads'
import { removeAttemptFolderNow } from './attempt-folder.ts'
import { endMarked, slotMark } from './end-marked.ts'

const lookEveryMs = 250

const { agentPid } = workerData as { agentPid: number }

setInterval(() => {
  if (process.ppid === agentPid) return
  endMarked(process.env[slotMark] ?? '')
  removeAttemptFolderNow(process.env[slotMark] ?? '')
  try {
    // The slot leads its group: what the handler started goes with it.
    process.kill(-process.pid, 'SIGKILL')
  } catch {
    process.kill(process.pid, 'SIGKILL')
  }
}, lookEveryMs)
