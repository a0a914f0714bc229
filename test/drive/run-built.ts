/** Builds the drive and runs it, as `npm run drive` does, for the tests of it. */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const root = fileURLToPath(new URL('../..', import.meta.url))
/** Without the loaders that the test runner gives to every process: what is started here is built code. */
const node = ['-u', 'NODE_OPTIONS', process.execPath]

export async function buildDrive(): Promise<void> {
  const tsc = [...node, 'node_modules/typescript/bin/tsc', '-p', 'test/drive/tsconfig.json']
  await promisify(execFile)('env', tsc, { cwd: root })
}

export async function runDrive(args: readonly string[]): Promise<{ code: number | null; output: string }> {
  const child = spawn('env', [...node, 'dist-drive/main.js', ...args], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', chunk => {
      output += chunk
    })
  const [code] = await once(child, 'close')
  return { code, output }
}
