/** Finds the redis-server program of this machine, and how to run it so that it cannot outlive its parent. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { StartupError } from '../errors.ts'

const run = promisify(execFile)

export interface RedisBinary {
  /** The program and the arguments that come before redis-server's own. */
  readonly command: readonly [string, ...string[]]
  readonly majorVersion: number
}

const programs = ['redis-server', 'valkey-server']

const howToInstall =
  'Install it (Debian, Ubuntu: "apt install redis-server"; Fedora, Amazon Linux: "dnf install redis6" or "dnf install redis"; ' +
  'macOS: "brew install redis"), or set MUSTER_REDIS_URL to a Redis that runs elsewhere.'

/**
 * Looks for redis-server (or valkey-server, which speaks the same) on the PATH.
 * @throws StartupError when there is none, or it is older than 6.2
 */
export async function findRedisBinary(): Promise<RedisBinary> {
  for (const program of programs) {
    const version = await versionOf(program)
    if (version === undefined) continue
    const [major, minor] = version
    if (major < 6 || (major === 6 && minor < 2)) {
      throw new StartupError(
        `${program} ${major}.${minor} is too old: Muster needs 6.2 or newer. See https://redis.io/docs/latest/operate/oss_and_stack/install/ for a newer one, or set MUSTER_REDIS_URL to a Redis that runs elsewhere.`,
      )
    }
    return {
      command: (await canTieToParent()) ? ['setpriv', '--pdeathsig', 'TERM', program] : [program],
      majorVersion: major,
    }
  }
  throw new StartupError(`There is no redis-server on this machine. ${howToInstall}`)
}

async function versionOf(program: string): Promise<[number, number] | undefined> {
  const { stdout } = await run(program, ['--version'], { timeout: 5000 }).catch(() => ({ stdout: '' }))
  const match = /v=(\d+)\.(\d+)/.exec(stdout)
  return match === null ? undefined : [Number(match[1]), Number(match[2])]
}

/** setpriv comes with util-linux; the one of BusyBox does not know --pdeathsig. */
const canTieToParent = (): Promise<boolean> =>
  run('setpriv', ['--pdeathsig', 'TERM', 'true'], { timeout: 5000 }).then(
    () => true,
    () => false,
  )
