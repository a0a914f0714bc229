/** A node for the time of a run: `muster node` of this tree, with a Redis and workers of its own, on a free port. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const readyWithinMs = 60_000
const endWithinMs = 30_000

export interface OwnNode {
  readonly url: string
  stop(): Promise<void>
}

/** @param cli the built `cli.js` */
export async function startOwnNode(cli: string): Promise<OwnNode> {
  const dataDir = await mkdtemp(join(tmpdir(), 'muster-regression-'))
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('MUSTER_'))
  const own = {
    MUSTER_PORT: '0',
    MUSTER_DATA_DIR: dataDir,
    MUSTER_CONFIG_FILE: '/nonexistent',
    MUSTER_LOG_LEVEL: 'warn',
  }
  const child = spawn(process.execPath, [cli, 'node'], {
    env: { ...Object.fromEntries(inherited), ...own },
    // A pipe and no terminal: then it tells on standard error where it is, whatever ours is.
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  })
  child.stdout.pipe(process.stderr, { end: false })
  const gone = once(child, 'exit')
  const stop = async (): Promise<void> => {
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), endWithinMs)
    await gone
    clearTimeout(timer)
    await rm(dataDir, { recursive: true, force: true })
  }
  let said = ''
  const url = await new Promise<string | undefined>(resolve => {
    const timer = setTimeout(() => resolve(undefined), readyWithinMs)
    const settle = (found: string | undefined): void => {
      clearTimeout(timer)
      resolve(found)
    }
    child.stderr.on('data', (chunk: Buffer) => {
      said += chunk
      const found = /Muster is ready at (\S+)/.exec(said)?.[1]
      if (found !== undefined) settle(found)
    })
    gone.then(() => settle(undefined)).catch(() => settle(undefined))
  })
  if (url !== undefined) return { url, stop }
  await stop()
  throw new Error(`The node did not start. It said: ${said.slice(-2000)}`)
}
