/**
 * Everything that is started here, so that all of it ends here. Each child leads a process group of its own: a Ctrl-C in
 * the terminal is for the benchmark alone, which then ends its children in order, the last started first.
 */
import { type ChildProcess, type ForkOptions, fork, type SpawnOptions, spawn } from 'node:child_process'
import { once } from 'node:events'

const endWithinMs = 20_000

export class Processes {
  readonly #children: ChildProcess[] = []
  #stopping: Promise<void> | undefined

  spawn(command: readonly [string, ...string[]], options: SpawnOptions): ChildProcess {
    const [program, ...args] = command
    return this.#keep(() => spawn(program, args, { ...options, detached: true }))
  }

  fork(file: string, options: ForkOptions = {}): ChildProcess {
    return this.#keep(() => fork(file, { ...options, detached: true }))
  }

  /** Ends them one after the other. Safe to call again. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop()
    return this.#stopping
  }

  async #stop(): Promise<void> {
    for (let child = this.#children.pop(); child !== undefined; child = this.#children.pop()) await endProcess(child)
  }

  #keep(start: () => ChildProcess): ChildProcess {
    if (this.#stopping !== undefined) throw new Error('The benchmark is being stopped')
    const child = start()
    this.#children.push(child)
    return child
  }
}

/** SIGTERM, and SIGKILL to its group when it does not end within 20 s; returns when it is gone. */
export async function endProcess(child: ChildProcess): Promise<void> {
  const { pid } = child
  if (pid === undefined || child.exitCode !== null || child.signalCode !== null) return
  const gone = once(child, 'exit')
  child.kill('SIGTERM')
  const timer = setTimeout(() => {
    try {
      process.kill(-pid, 'SIGKILL')
    } catch {
      // gone by itself
    }
  }, endWithinMs)
  await gone
  clearTimeout(timer)
}
