/** The built-in handler `sha512` alone in a process, as a slot runs it: with its pauses, progress and cancellation. */
import type { HandlerContext, JsonValue } from '../../src/handlers/define-handler.ts'
import { sha512 } from '../../src/handlers/sha512/sha512.ts'
import { serveTasks } from './serve-tasks.ts'

export interface HashParams {
  /** The data in base64. */
  readonly data: string
  readonly iterations: number
}

export interface HashReply {
  readonly elapsedMs: number
  readonly digest: string
}

const tasks = {
  async hash({ data, iterations }: HashParams): Promise<HashReply> {
    const payload = Buffer.from(data, 'base64')
    const context = contextWith({ iterations })
    const startedMs = performance.now()
    const digest = String(await sha512.handle(payload, context))
    return { elapsedMs: performance.now() - startedMs, digest }
  },
}

export type HashTasks = typeof tasks

const contextWith = (params: Record<string, JsonValue>): HandlerContext => ({
  workId: 'bench',
  type: 'sha512',
  attempt: 1,
  attempts: 1,
  params,
  signal: new AbortController().signal,
  progress: () => undefined,
  log: () => undefined,
  checkpoint: () => Promise.resolve(),
  lastCheckpoint: undefined,
})

serveTasks(tasks)
