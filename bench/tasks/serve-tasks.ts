/** The child's side of a task process: runs what the parent asks for, one task at a time, and ends with the parent. */

// biome-ignore lint/suspicious/noExplicitAny: the parent knows the parameters of each task from its type
export type Tasks = Record<string, (params: any) => Promise<unknown>>

export interface TaskRequest {
  readonly task: string
  readonly params: unknown
}

export type TaskReply = { readonly result: unknown } | { readonly error: string }

export function serveTasks(tasks: Tasks): void {
  const reply = (message: TaskReply): void => void process.send?.(message)
  process.on('message', ({ task, params }: TaskRequest) => {
    const run = tasks[task]
    if (run === undefined) return reply({ error: `There is no task ${task}` })
    run(params).then(
      result => reply({ result }),
      (error: unknown) => reply({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
    )
  })
  process.on('disconnect', () => process.exit())
}
