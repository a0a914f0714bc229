/**
 * Undoes what a job leaves in its slot, as far as that is possible from inside: restores the environment and the
 * working directory and ends child processes. Code that runs on stays; its owner is known.
 */
import { AsyncLocalStorage } from 'node:async_hooks'
import type { ChildProcess } from 'node:child_process'
import { subscribe } from 'node:diagnostics_channel'

export class JobLeftovers<Owner extends object> {
  readonly #scope = new AsyncLocalStorage<Owner>()
  readonly #children = new Map<ChildProcess, Owner>()
  readonly #folder = process.cwd()
  readonly #environment = { ...process.env }
  #environmentChanged = false

  constructor() {
    // Thousands of jobs a second: the environment is compared only after it was written to.
    const noted = (hasChanged: boolean): boolean => {
      this.#environmentChanged ||= hasChanged
      return hasChanged
    }
    process.env = new Proxy(process.env, {
      set: (target, name, value) => noted(Reflect.set(target, name, value)),
      defineProperty: (target, name, descriptor) => noted(Reflect.defineProperty(target, name, descriptor)),
      deleteProperty: (target, name) => noted(Reflect.deleteProperty(target, name)),
    })
    subscribe('child_process', message => this.#note((message as { process: ChildProcess }).process))
  }

  /** Runs a handler; everything that it starts has this owner. */
  run<Result>(owner: Owner, handle: () => Result): Result {
    return this.#scope.run(owner, handle)
  }

  /** The owner of the code that runs now; undefined when it is unknown, or the code was started with the slot. */
  get owner(): Owner | undefined {
    return this.#scope.getStore()
  }

  /** The job is over. Never throws. */
  undo(owner: Owner): void {
    for (const [child, startedBy] of this.#children) if (startedBy === owner) endChild(child)
    if (this.#environmentChanged) this.#restoreEnvironment()
    try {
      if (process.cwd() !== this.#folder) process.chdir(this.#folder)
    } catch {
      // The folder that it changed to, or the first one, is gone: no process can be in it.
    }
  }

  #note(child: ChildProcess): void {
    const { owner } = this
    // One that the handlers' file starts as it is loaded is for all jobs.
    if (owner === undefined) return
    this.#children.set(child, owner)
    const forget = (): void => void this.#children.delete(child)
    child.once('exit', forget)
    child.once('error', forget)
  }

  #restoreEnvironment(): void {
    for (const name of Object.keys(process.env)) if (!(name in this.#environment)) delete process.env[name]
    for (const [name, value] of Object.entries(this.#environment))
      if (process.env[name] !== value) process.env[name] = value
    this.#environmentChanged = false
  }
}

function endChild(child: ChildProcess): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
  try {
    // One that was detached leads a group, and takes along what it started.
    process.kill(-child.pid, 'SIGKILL')
  } catch {
    child.kill('SIGKILL')
  }
}
