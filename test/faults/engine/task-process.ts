/** A process of the harness itself that runs on a host, and talks to this one by messages. */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { HostName, Network } from './network.ts'

export interface TaskProcessOptions {
  /** Of the file beside this one, without its ending. */
  readonly file: string
  readonly network: Network
  readonly host: HostName
  readonly folder: string
}

/** It ends with this process: its channel is gone then. */
export function startTask({ file, network, host, folder }: TaskProcessOptions): ChildProcess {
  mkdirSync(folder, { recursive: true })
  const ending = import.meta.url.slice(import.meta.url.lastIndexOf('.'))
  const script = fileURLToPath(new URL(`./${file}${ending}`, import.meta.url))
  // With the same loaders as this process, should it run from TypeScript.
  const [program, ...args] = network.commandOn(host, [process.execPath, ...process.execArgv, script])
  const log = openSync(join(folder, `${file}.log`), 'a')
  const child = spawn(program as string, args, { cwd: folder, detached: true, stdio: ['ignore', log, log, 'ipc'] })
  closeSync(log)
  child.on('error', () => undefined)
  return child
}
