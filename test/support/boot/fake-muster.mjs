/**
 * In place of dist/cli.js of a bundle, for a dry run: `redis init` writes what the real one does, `redis status` what it is told,
 * `settings` refuses a file of the fleet with the word "bad".
 */
import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const args = process.argv.slice(2)
const state = process.env.STUB_STATE
const option = name => args[args.indexOf(name) + 1]
appendFileSync(join(state, 'calls'), `muster ${args.join(' ')}\n`)

if (args[1] === 'init') {
  const { passwords } = JSON.parse(readFileSync(option('--secrets'), 'utf8'))
  const copy = join(option('--out'), option('--only'))
  mkdirSync(copy, { recursive: true })
  for (const file of ['redis.conf', 'users.acl', 'sentinel-users.acl'])
    writeFileSync(join(copy, file), passwords.muster)
  writeFileSync(
    join(option('--out'), 'node.env'),
    `MUSTER_REDIS_URL=rediss+sentinel://muster:${passwords.muster}@x/y\n`,
  )
} else if (args[0] === 'settings') {
  if (readFileSync(process.env.MUSTER_FLEET_SETTINGS_FILE, 'utf8').includes('bad')) {
    process.stderr.write('muster: Invalid settings\n')
    process.exitCode = 1
  }
} else if (args[1] === 'status') {
  const file = join(state, 'status.json')
  process.stdout.write(existsSync(file) ? readFileSync(file, 'utf8') : '{"canFailOver":false,"hosts":[]}')
}
