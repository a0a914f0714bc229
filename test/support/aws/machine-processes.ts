/**
 * The processes of simulated machines. They are found by a mark in their environment, which children inherit, so that also
 * those are found that left their process group. Needs /proc, so Linux.
 */
import { spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { until } from '../until.ts'

/** The variable that holds the folder of the machine. */
export const markVariable = 'SIMULATED_MACHINE'

/** Processes whose mark starts so: a machine's folder, or the one with all machines of a simulator. */
export function processesOf(folder: string): number[] {
  const mark = `${markVariable}=${folder}`
  return readdirSync('/proc').flatMap(entry => {
    if (!/^\d+$/.test(entry)) return []
    try {
      // The environment of a zombie is empty: it counts as gone.
      return readFileSync(`/proc/${entry}/environ`, 'latin1')
        .split('\0')
        .some(variable => variable.startsWith(mark))
        ? [Number(entry)]
        : []
    } catch {
      return [] // it has just ended, or belongs to somebody else
    }
  })
}

/** Sends a signal to all processes of a machine. @returns how many there were */
export function signalMachine(folder: string, signal: NodeJS.Signals): number {
  const pids = processesOf(folder)
  for (const pid of pids) {
    try {
      process.kill(pid, signal)
    } catch {
      // it has just ended
    }
  }
  return pids.length
}

/** SIGKILL until nobody is left, also of those that were being started meanwhile. */
export async function killMachine(folder: string): Promise<void> {
  await until(() => signalMachine(folder, 'SIGKILL') === 0)
}

/**
 * Watches over the machines in case that this process is killed: when its end of the pipe closes, all of them are killed.
 * @returns ends the watch
 */
export function startWarden(folder: string): () => void {
  const script = `
    cat >/dev/null
    for round in 1 2 3 4 5; do
      for environ in $(grep -lszZ -- "^$MARK" /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'); do
        pid=\${environ#/proc/}
        pid=\${pid%/environ}
        [ "$pid" = $$ ] || kill -KILL "$pid" 2>/dev/null
      done
      sleep 0.1
    done
    rm -rf -- "$FOLDER"`
  const warden = spawn('bash', ['-c', script], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
    env: { PATH: process.env.PATH, FOLDER: folder, MARK: `${markVariable}=${folder}/` },
  })
  warden.unref()
  return () => void warden.kill('SIGKILL')
}
