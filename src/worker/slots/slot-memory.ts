/**
 * The memory of slots, each with all that it started, as /proc tells it (Linux only). One that is beyond the limit is
 * ended. It is looked at now and then, so what grows fast gets further before it is seen.
 */
import { readdirSync, readFileSync } from 'node:fs'
import type { Logger } from 'pino'
import type { AttemptError } from '../../contract/worker-protocol.ts'

const lookEveryMs = 250
const mebibyte = 1024 * 1024

export interface WatchedSlot {
  readonly pid: number | undefined
  /** Kills it. @param death what is to be said of the attempt in it */
  kill(death?: AttemptError): void
}

export interface MemoryUse {
  readonly bytes: number
  readonly processes: number
}

export interface MemoryWatchOptions {
  /** 0: nothing is watched. */
  readonly limitMb: number
  readonly slots: () => Iterable<WatchedSlot>
  readonly log: Logger
}

export class MemoryWatch {
  readonly #options: MemoryWatchOptions
  #timer: NodeJS.Timeout | undefined

  constructor(options: MemoryWatchOptions) {
    this.#options = options
  }

  start(): void {
    const { limitMb, log } = this.#options
    if (limitMb === 0 || this.#timer !== undefined) return
    if (process.platform !== 'linux') log.warn('MUSTER_SLOT_MEMORY_MB has no effect here: it needs /proc of Linux')
    else this.#timer = setInterval(() => this.#look(), lookEveryMs)
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #look(): void {
    const slots = [...this.#options.slots()]
    const uses = memoryOf(slots.flatMap(({ pid }) => pid ?? []))
    const { limitMb } = this.#options
    const isBeyond = (use: MemoryUse | undefined): use is MemoryUse =>
      use !== undefined && use.bytes > limitMb * mebibyte
    for (const slot of slots) {
      if (slot.pid === undefined || !isBeyond(uses.get(slot.pid))) continue
      // The cheap look counts what processes share once for each of them.
      const use = memoryOf([slot.pid], shareOf).get(slot.pid)
      if (isBeyond(use)) slot.kill(beyondLimit(use, limitMb))
    }
  }
}

/** Pure. */
export function beyondLimit({ bytes, processes }: MemoryUse, limitMb: number): AttemptError {
  const children = processes === 1 ? '' : `, in ${processes} processes`
  return {
    code: 'out_of_memory',
    message: `The slot used ${Math.ceil(bytes / mebibyte)} MiB of memory${children}, limit ${limitMb} MiB (MUSTER_SLOT_MEMORY_MB); its worker ended it`,
  }
}

/**
 * What these processes have, each with those of its group and those that descend from it.
 * @param bytesOf how much one process has
 * @returns by process id; without those that have ended
 */
export function memoryOf(leaders: readonly number[], bytesOf = residentOf): Map<number, MemoryUse> {
  const known = new Map(listProcesses().map(entry => [entry.pid, entry]))
  const uses = new Map<number, MemoryUse>()
  for (const { pid, group } of known.values()) {
    const leader = leaders.includes(group) ? group : ancestorAmong(leaders, pid, known)
    const bytes = leader === undefined ? undefined : bytesOf(pid)
    if (leader === undefined || bytes === undefined) continue
    const before = uses.get(leader) ?? { bytes: 0, processes: 0 }
    uses.set(leader, { bytes: before.bytes + bytes, processes: before.processes + 1 })
  }
  return uses
}

interface ProcessEntry {
  readonly pid: number
  readonly parent: number
  readonly group: number
}

function listProcesses(): ProcessEntry[] {
  return readdirSync('/proc').flatMap(name => {
    const pid = Number(name)
    const stat = Number.isInteger(pid) ? read(`/proc/${name}/stat`) : undefined
    // The name of the program, in parentheses, may hold anything.
    const [, parent, group] = stat?.slice(stat.lastIndexOf(')') + 2).split(' ', 3) ?? []
    return parent === undefined ? [] : [{ pid, parent: Number(parent), group: Number(group) }]
  })
}

function ancestorAmong(
  leaders: readonly number[],
  pid: number,
  known: ReadonlyMap<number, ProcessEntry>,
): number | undefined {
  const seen = new Set<number>()
  for (let at = known.get(pid); at !== undefined && !seen.has(at.pid); at = known.get(at.parent)) {
    if (leaders.includes(at.pid)) return at.pid
    seen.add(at.pid)
  }
  return undefined
}

/** All that it has in memory. */
function residentOf(pid: number): number | undefined {
  const found = /^VmRSS:\s+(\d+) kB/m.exec(read(`/proc/${pid}/status`) ?? '')
  return found === null ? undefined : Number(found[1]) * 1024
}

/** Likewise, but pages that several processes have in common count once among them. Takes longer. */
function shareOf(pid: number): number | undefined {
  const found = /^Pss:\s+(\d+) kB/m.exec(read(`/proc/${pid}/smaps_rollup`) ?? '')
  return found === null ? residentOf(pid) : Number(found[1]) * 1024
}

function read(file: string): string | undefined {
  try {
    return readFileSync(file, 'latin1')
  } catch {
    // It has ended, or belongs to another user.
    return undefined
  }
}
