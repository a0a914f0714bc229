/**
 * The child process under a slot: starts it, passes frames to and fro, reads what it prints, and says how it ended.
 * It leads a process group of its own: a Ctrl-C in the terminal reaches only the agent, and a kill also ends what the
 * handler started.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import type { Duplex, Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import type { AttemptError } from '../../contract/worker-protocol.ts'
import { endMarked, newMark, slotMark } from '../../marked-processes.ts'
import { childEnvironment } from '../../settings/child-environment.ts'
import { removeAttemptFolder } from '../protocol/attempt-folder.ts'
import { BodyTooLarge, encodeFrame, type FrameBody, FrameReader, maxFrameBodyBytes } from '../protocol/frames.ts'
import { toLogLines } from '../protocol/log-lines.ts'
import type { ToSlot } from '../protocol/slot-protocol.ts'

/** After the process has ended: how long its pipes may stay open, held by what the handler started. */
const closeWithinMs = 500
const stderrTailLines = 20
/** Of one frame: the longest message of a slot is some hundred KiB of log. */
const maxHeaderBytes = 1024 * 1024

/** Child files are always built ones: Node does not run TypeScript. */
const slotMainFile = fileURLToPath(
  new URL(
    import.meta.url.endsWith('.ts') ? '../../../dist/worker/child/slot-main.js' : '../child/slot-main.js',
    import.meta.url,
  ),
)

export interface ProcessUser {
  readonly uid: number
  readonly gid: number
}

export interface SlotProcessOptions {
  readonly handlersFile: string | undefined
  readonly heapMb: number
  readonly maxBodyBytes: number
  /** Variables that the handlers may see besides the harmless ones. */
  readonly passEnv: readonly string[]
  /** The user that it runs as; unset: the user of its parent. */
  readonly user?: ProcessUser
  /** May throw: what the slot said is nonsense, and it is killed. */
  readonly onMessage: (header: unknown, body: Buffer) => void
  /** Lines that came by another way than frames: from native code, V8's last words, what a handler spawned. */
  readonly onOutput: (lines: string[]) => void
  /** Called once, after everything that it said was read. */
  readonly onEnd: (death: AttemptError) => void
}

export class SlotProcess {
  readonly #options: SlotProcessOptions
  readonly #child: ChildProcess
  readonly #pipe: Duplex
  readonly #stderrTail: string[] = []
  #ended = false
  /** Why the agent ended it, when that is more than an order. */
  #death: AttemptError | undefined
  /** It said nonsense: nothing more of it is read. */
  #isCorrupt = false
  /** Every process that its handlers start inherits it. */
  readonly #mark = newMark()
  readonly #oomKillsBefore = countOomKills()

  constructor(options: SlotProcessOptions) {
    this.#options = options
    const { handlersFile, heapMb } = options
    const args = [
      `--max-old-space-size=${heapMb}`,
      slotMainFile,
      String(process.pid),
      ...(handlersFile === undefined ? [] : [handlersFile]),
    ]
    this.#child = spawn(process.execPath, args, {
      detached: true,
      env: { ...childEnvironment(process.env, options.passEnv), [slotMark]: this.#mark },
      stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
      ...(options.user !== undefined && { ...options.user, cwd: '/' }),
    })
    goFirst(this.#child.pid)
    this.#child.on('error', error => {
      if (this.#child.pid === undefined)
        this.#end({ code: 'crash', message: `The slot's process could not be started: ${error.message}` })
    })
    if (this.#child.stdio?.[3] === undefined) {
      this.#ended = true
      throw new Error('The system has no room for another process')
    }
    this.#pipe = this.#child.stdio[3] as Duplex
    const bodyBytes = Math.min(options.maxBodyBytes, maxFrameBodyBytes)
    const reader = new FrameReader<unknown>(options.onMessage, { headerBytes: maxHeaderBytes, bodyBytes })
    this.#pipe.on('data', (chunk: Buffer) => this.#read(reader, chunk))
    this.#pipe.on('error', () => this.kill())
    this.#readOutput(this.#child.stdout as Readable, false)
    this.#readOutput(this.#child.stderr as Readable, true)
    this.#child.on('exit', (code, signal) => this.#onExit(code, signal))
  }

  get pid(): number | undefined {
    return this.#child.pid
  }

  send(message: ToSlot, body?: FrameBody): void {
    if (!this.#ended && this.#pipe.writable) this.#pipe.write(encodeFrame(message, body))
  }

  /** Sends bytes; resolves when they have left, also when the process has died. */
  async sendChunk(chunk: Uint8Array): Promise<void> {
    if (this.#ended || !this.#pipe.writable) return
    await new Promise<void>(resolve => {
      this.#pipe.write(encodeFrame({ k: 'chunk' } satisfies ToSlot, chunk), () => resolve())
    })
  }

  /**
   * Kills the process and all that it started. @param death what is to be said of it, if more than that it was killed
   */
  kill(death?: AttemptError): void {
    this.#death ??= death
    if (this.#child.pid === undefined || this.#ended) return
    try {
      process.kill(-this.#child.pid, 'SIGKILL')
    } catch {
      // The group is gone already, or not there yet: only the child is killed.
      this.#child.kill('SIGKILL')
    }
  }

  /** A faulty message ends only this slot, never the agent or another slot. */
  #read(reader: FrameReader<unknown>, chunk: Buffer): void {
    if (this.#isCorrupt) return
    try {
      reader.push(chunk)
    } catch (error) {
      this.#isCorrupt = true
      const message = `The slot said what it may not: ${(error as Error).message}`
      this.kill(
        error instanceof BodyTooLarge
          ? { code: 'result_too_large', message: `The handler made ${error.message}`, retryable: false }
          : { code: 'crash', message },
      )
    }
  }

  #readOutput(stream: Readable, isStderr: boolean): void {
    stream.on('error', () => undefined)
    stream.on('data', (chunk: Buffer) => {
      const lines = toLogLines(chunk.toString())
      this.#options.onOutput(lines)
      if (!isStderr) return
      this.#stderrTail.push(...lines)
      this.#stderrTail.splice(0, this.#stderrTail.length - stderrTailLines)
    })
  }

  #onExit(code: number | null, signal: NodeJS.Signals | null): void {
    this.kill()
    endMarked(this.#mark)
    void removeAttemptFolder(this.#mark)
    const oomKills = countOomKills() - this.#oomKillsBefore
    const { heapMb } = this.#options
    const finish = (): void => {
      clearTimeout(timer)
      this.#end(this.#death ?? describeDeath({ code, signal, heapMb, oomKills, stderrTail: this.#stderrTail }))
    }
    const timer = setTimeout(finish, closeWithinMs)
    // Not before all that it said was read: the last result may still lie in the pipe.
    this.#child.once('close', finish)
  }

  #end(death: AttemptError): void {
    if (this.#ended) return
    this.#ended = true
    for (const stream of [this.#pipe, this.#child.stdout, this.#child.stderr]) stream?.destroy()
    this.#options.onEnd(death)
  }
}

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

/**
 * @returns the error of the attempt: out_of_memory when V8 ran out of heap or, most likely, the kernel killed it; else
 * crash
 */
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
    return 'was killed by SIGKILL, not by its worker: by the system for lack of memory, or by another process on the machine'
  if (signal !== null) return `was killed by ${signal}`
  return `ended with exit code ${code ?? 'unknown'}`
}

/**
 * Short of memory, the kernel of Linux ends processes of its own choice. Slots come first there, before agent, node and
 * Redis. Nothing here throws: where there is no /proc, nothing is changed and nothing is known.
 */

/** Of 1000: half of the memory of the machine is added to what the process has. */
const slotScore = 500

/** Any user may raise the score of a process. What it starts inherits the score. */
export function goFirst(pid: number | undefined): void {
  if (pid === undefined) return
  try {
    const own = Number(readFileSync('/proc/self/oom_score_adj', 'latin1'))
    writeFileSync(`/proc/${pid}/oom_score_adj`, String(Math.max(own, slotScore)))
  } catch {
    // No Linux, or it has ended already.
  }
}

/**
 * How many processes this machine's kernel has killed for lack of memory, of the whole machine or of a cgroup; 0 when
 * unknown.
 */
export function countOomKills(): number {
  try {
    return Number(/^oom_kill (\d+)$/m.exec(readFileSync('/proc/vmstat', 'latin1'))?.[1] ?? 0)
  } catch {
    return 0
  }
}
