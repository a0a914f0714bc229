/** A process that runs measured tasks, so that each side has one to itself, warm from round to round. */
import type { ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Processes } from './processes.ts'
import type { TaskReply, TaskRequest, Tasks } from './tasks/serve-tasks.ts'

export class TaskProcess<T extends Tasks> {
  readonly #child: ChildProcess
  readonly #name: string

  /** @param name of the file in tasks/ */
  constructor(processes: Processes, name: string) {
    this.#name = name
    this.#child = processes.fork(fileURLToPath(new URL(`./tasks/${name}.js`, import.meta.url)))
  }

  /**
   * Runs one task; not while another one runs.
   * @throws Error when the task fails, its process ends, or it takes longer than the time given
   */
  run<Name extends keyof T & string>(
    task: Name,
    params: Parameters<T[Name]>[0],
    withinMs = 60_000,
  ): Promise<Awaited<ReturnType<T[Name]>>> {
    const child = this.#child
    return new Promise((resolve, reject) => {
      const finish = (error: Error | undefined, result?: unknown): void => {
        clearTimeout(timer)
        child.off('message', onMessage).off('exit', onExit).off('error', onError)
        if (error === undefined) resolve(result as Awaited<ReturnType<T[Name]>>)
        else reject(new Error(`${this.#name}/${task}: ${error.message}`, { cause: error }))
      }
      const onMessage = (reply: TaskReply): void =>
        'error' in reply ? finish(new Error(reply.error)) : finish(undefined, reply.result)
      const onExit = (): void => finish(new Error('its process ended'))
      const onError = (error: Error): void => finish(error)
      const timer = setTimeout(() => finish(new Error(`not done within ${withinMs} ms`)), withinMs)
      if (child.exitCode !== null || child.signalCode !== null) return onExit()
      child.on('message', onMessage).on('exit', onExit).on('error', onError)
      child.send({ task, params } satisfies TaskRequest, error => error !== null && finish(error))
    })
  }
}
