/**
 * Runs as a thread of its own in each slot. When the agent is gone, it ends the slot with all that it started: the main
 * thread may be in an endless loop then and hear nothing. When the agent was stopped by a signal, which any handler can
 * send it, it makes it go on: a worker that stands still loses its leases, and its jobs would run twice.
 */
import { workerData } from 'node:worker_threads'
import { isStopped } from '../../process-identity.ts'
import { endWithAgent } from './end-with-agent.ts'

const lookEveryMs = 250

const { agentPid } = workerData as { agentPid: number }

setInterval(() => {
  if (process.ppid === agentPid) {
    if (isStopped(agentPid)) process.kill(agentPid, 'SIGCONT')
    return
  }
  endWithAgent()
}, lookEveryMs)
