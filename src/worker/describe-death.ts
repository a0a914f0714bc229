/** Says how a slot ended, in words for the log of the job that it took down. Pure. */

export interface SlotEnd {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly heapMb: number
  /** Processes that the kernel killed for lack of memory while the slot lived: this one, or others. */
  readonly oomKills: number
  /** The last lines that it wrote to stderr by other ways than the handler's own. */
  readonly stderrTail: readonly string[]
}

const abortedExitCode = 134

/** @returns the error of the attempt: out_of_memory when V8 gave up or, as far as one can tell, the kernel; else crash */
export function describeDeath({ code, signal, heapMb, oomKills, stderrTail }: SlotEnd): {
  code: string
  message: string
} {
  const aborted = signal === 'SIGABRT' || code === abortedExitCode
  if (aborted && stderrTail.some(line => line.includes('heap out of memory'))) {
    return {
      code: 'out_of_memory',
      message: `The attempt needed more than the ${heapMb} MB heap of its slot (MUSTER_WORKER_HEAP_MB)`,
    }
  }
  if (signal === 'SIGKILL' && oomKills > 0) {
    return {
      code: 'out_of_memory',
      message:
        "The slot's process was killed by SIGKILL, not by its worker: most likely by the kernel, since the machine or its cgroup had no memory left " +
        '(its count of such kills has grown). Give the worker fewer slots or more memory, or set MUSTER_SLOT_MEMORY_MB',
    }
  }
  const said = stderrTail.filter(line => line.trim() !== '').join('\n')
  return {
    code: 'crash',
    message: `The slot's process ${describeEnd(code, signal)}${said === '' ? '' : `; its last words:\n${said}`}`,
  }
}

function describeEnd(code: number | null, signal: NodeJS.Signals | null): string {
  if (signal === 'SIGKILL')
    return 'was killed by SIGKILL, not by its worker: by the system for lack of memory, or by somebody on the machine'
  if (signal !== null) return `was killed by ${signal}`
  return `ended with exit code ${code ?? 'unknown'}`
}
