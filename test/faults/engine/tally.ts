/** The handler that counts its runs: each one adds its Work ID to a file of its process, before anything else. */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

const handlers = `import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import { defineHandler } from 'muster'

export const tally = defineHandler({
  type: 'tally',
  handle: (payload, { workId }) => {
    appendFileSync(join(process.env.FAULTS_TALLY_FOLDER, String(process.pid)), workId + '\\n')
    return 'tally of ' + payload
  },
})
`

export interface Tally {
  readonly handlersFile: string
  /** For the environment of workers. */
  readonly folder: string
}

export async function makeTally(runPath: string): Promise<Tally> {
  const tally = { handlersFile: join(runPath, 'tally.mjs'), folder: join(runPath, 'tally') }
  await mkdir(tally.folder)
  await writeFile(tally.handlersFile, handlers)
  return tally
}

/** How often each job was run so far. */
export async function readTally(folder: string): Promise<Map<string, number>> {
  const runs = new Map<string, number>()
  for (const file of await readdir(folder)) {
    const text = await readFile(join(folder, file), 'utf8')
    for (const workId of text.split('\n')) if (workId !== '') runs.set(workId, (runs.get(workId) ?? 0) + 1)
  }
  return runs
}
