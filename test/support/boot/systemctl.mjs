#!/usr/bin/env node
/**
 * In place of systemctl on a machine whose services really run: start, restart, is-active. A unit's program gets its settings and
 * its credentials, with paths that lie below MUSTER_ROOT; it ends by itself after four minutes at most, whatever becomes of the test.
 */
import { spawn } from 'node:child_process'
import { appendFileSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

const [verb, ...rest] = process.argv.slice(2)
const unit = rest.at(-1)
const { MUSTER_ROOT: root, STUB_STATE: state, PATH } = process.env
appendFileSync(join(state, 'calls'), `systemctl ${process.argv.slice(2).join(' ')}\n`)
const pidFile = join(state, `${unit}.pid`)

const rooted = text => text.replaceAll(/(^|[=\s])(\/(?:etc|opt|var\/lib|var\/log)\/muster)/g, `$1${root}$2`)
const below = path => (path.startsWith(root) ? path : join(root, path))

function isActive() {
  if (!existsSync(pidFile)) return false
  try {
    process.kill(Number(readFileSync(pidFile, 'utf8')), 0)
    return true
  } catch {
    return false
  }
}

function start() {
  const text = readFileSync(join(root, 'etc/systemd/system', unit), 'utf8')
  const values = key => [...text.matchAll(new RegExp(`^${key}=(.*)$`, 'gm'))].map(([, value]) => value)
  const credentials = join(state, 'credentials')
  mkdirSync(credentials, { recursive: true })
  for (const line of values('LoadCredential')) {
    const [name, file] = line.split(':')
    writeFileSync(join(credentials, name), readFileSync(below(file)), { mode: 0o600 })
  }
  const lines = [
    ...values('Environment').flatMap(line => line.replaceAll('%d', credentials).split(' ')),
    ...values('EnvironmentFile').flatMap(file =>
      rooted(readFileSync(below(file), 'utf8').replaceAll(/^(\w+=)'(.*)'$/gm, '$1$2')).split('\n'),
    ),
  ]
  const environment = Object.fromEntries(
    lines
      .filter(line => line.includes('='))
      .map(line => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
  )
  const command = rooted(values('ExecStart')[0]).replaceAll(/\$\{(\w+)\}/g, (_, name) => environment[name])
  const log = values('StandardOutput')[0].replace('append:', '')
  const folder = below(values('WorkingDirectory')[0])
  for (const path of [folder, dirname(below(log))]) mkdirSync(path, { recursive: true })
  const output = openSync(below(log), 'a')
  const child = spawn('timeout', ['--signal=TERM', '--kill-after=5', '240', ...command.split(' ')], {
    ...{ cwd: folder, detached: true, stdio: ['ignore', output, output], env: { PATH, ...environment } },
  })
  writeFileSync(pidFile, `${child.pid}`)
  child.unref()
}

if (verb === 'start' && !isActive()) start()
if (verb === 'restart') throw new Error('nothing here is restarted')
if (verb === 'is-active') process.exitCode = isActive() ? 0 : 3
