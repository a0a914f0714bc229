/** A run from its set-up to its take-down: whatever happens, everything that was started is taken away. */
import { rm } from 'node:fs/promises'
import { removeNamespaces } from './namespaces.ts'
import { type Network, openNetwork } from './network.ts'
import { killAllUnder } from './process-table.ts'
import { keepRunFolder, makeRunFolder, removeStaleRuns } from './run-folder.ts'
import { runList } from './run-list.ts'
import { isSound, type RunOptions, type RunResult } from './run-result.ts'

/** @throws Error when the deployment cannot be started or healed; the logs are kept then, and their place is said */
export async function runAll(options: RunOptions): Promise<RunResult> {
  const { say, keepLogs } = options
  await removeStaleRuns(removeNamespaces)
  const run = await makeRunFolder()
  let network: Network | undefined
  let mayGo = false
  const over = new AbortController()
  const takeDown = async (): Promise<string | undefined> => {
    over.abort()
    await killAllUnder(run.path)
    await network?.remove()
    if (mayGo && !keepLogs) return void (await rm(run.path, { recursive: true, force: true }))
    const logs = await keepRunFolder(run)
    say(`logs: ${logs}`)
    return logs
  }
  let result: RunResult
  try {
    network = await openNetwork(run.name, options.network)
    result = await runList(network, run, options, over.signal)
    mayGo = isSound(result)
  } catch (error) {
    mayGo = options.signal.aborted
    await takeDown()
    throw error
  }
  const logs = await takeDown()
  return logs === undefined ? result : { ...result, logs }
}
