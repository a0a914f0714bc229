/**
 * Short of memory, the kernel of Linux ends processes of its own choice. Slots come first there, before agent, node and Redis.
 * Nothing here throws: where there is no /proc, nothing is changed and nothing is known.
 */
import { readFileSync, writeFileSync } from 'node:fs'

/** Of 1000: half of the memory of the machine is added to what the process has. */
const slotScore = 500

/** A process may always be made to go earlier, whoever runs it. What it starts has its score. */
export function goFirst(pid: number | undefined): void {
  if (pid === undefined) return
  try {
    const own = Number(readFileSync('/proc/self/oom_score_adj', 'latin1'))
    writeFileSync(`/proc/${pid}/oom_score_adj`, String(Math.max(own, slotScore)))
  } catch {
    // No Linux, or it has ended already.
  }
}

/** How many processes this machine's kernel has killed for lack of memory, of the whole machine or of a cgroup; 0 when unknown. */
export function countOomKills(): number {
  try {
    return Number(/^oom_kill (\d+)$/m.exec(readFileSync('/proc/vmstat', 'latin1'))?.[1] ?? 0)
  } catch {
    return 0
  }
}
