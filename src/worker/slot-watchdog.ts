/**
 * Runs as a thread of its own in each slot. When the agent is gone, it kills the slot's whole process group: the main thread
 * may be in an endless loop then and hear nothing. When the agent was stopped by a signal, which any handler can send it, it
 * makes it go on: a worker that stands still loses its leases, and its jobs would run twice.
 */
import { workerData } from 'node:worker_threads'
import { isStopped } from '../stopped-process.ts'
import { removeAttemptFolderNow } from './attempt-folder.ts'
import { endMarked, slotMark } from './end-marked.ts'

const lookEveryMs = 250

const { agentPid } = workerData as { agentPid: number }

setInterval(() => {
  if (process.ppid === agentPid) {
    if (isStopped(agentPid)) process.kill(agentPid, 'SIGCONT')
    return
  }
  endMarked(process.env[slotMark] ?? '')
  removeAttemptFolderNow(process.env[slotMark] ?? '')
  try {
    // The slot leads its group: what the handler started goes with it.
    process.kill(-process.pid, 'SIGKILL')
  } catch {
    process.kill(process.pid, 'SIGKILL')
  }
}, lookEveryMs)
