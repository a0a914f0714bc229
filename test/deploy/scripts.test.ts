/** Every shell script by shellcheck; every unit by systemd's own checks. */
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { haveTool } from '../support/have-tool.ts'
import { patienceMs } from '../support/until.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const notOurs = /^(?:\.|node_modules$|dist|build$|coverage$)/

/** Scripts of the repository, by their end or their first line. */
function* shellScripts(folder = ''): Generator<string> {
  for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
    if (notOurs.test(entry.name)) continue
    const path = join(folder, entry.name)
    if (entry.isDirectory()) yield* shellScripts(path)
    else if (entry.isFile() && isShell(path)) yield path
  }
}

const isShell = (path: string): boolean =>
  path.endsWith('.sh') ||
  (!/\.\w+$/.test(path) && /^#!.*\b(?:ba|da)?sh\b/.test(readFileSync(join(root, path), 'latin1').slice(0, 80)))

t.test('shellcheck has nothing to say', async t => {
  const scripts = [...shellScripts()]
  for (const known of [
    'deploy/boot/node-boot.sh',
    'deploy/user-data/node.sh',
    'deploy/user-data/worker.sh',
    'scripts/start.sh',
  ])
    t.ok(scripts.includes(known), `${known} is among them`)
  if (!haveTool(t, 'shellcheck', 'apt-get install shellcheck')) return
  const check = (input: string | undefined, ...args: string[]) =>
    spawnSync('shellcheck', ['--external-sources', ...args], {
      cwd: root,
      encoding: 'utf8',
      input,
      timeout: patienceMs,
    })
  t.equal(check(undefined, ...scripts).stdout, '')
  t.match(check('#!/bin/bash\nrm -rf $1/*\n', '-').stdout, /SC2115|SC2086/, 'it does find what is wrong')
})

const units = readdirSync(join(root, 'deploy/systemd'))

t.test('systemd takes every unit, and finds it closed enough', async t => {
  t.same(units, [
    ...[
      'muster-backup.service',
      'muster-backup.timer',
      'muster-fleet.service',
      'muster-fleet.timer',
      'muster-node.service',
      'muster-redis.service',
    ],
    'muster-worker.service',
  ])
  if (!haveTool(t, 'systemd-analyze', 'apt-get install systemd')) return
  for (const unit of units) {
    const file = join(root, 'deploy/systemd', unit)
    const verified = spawnSync('systemd-analyze', ['verify', '--man=no', file], {
      encoding: 'utf8',
      timeout: patienceMs,
    })
    t.equal(`${verified.stdout}${verified.stderr}`, '', unit)
    t.equal(verified.status, 0, unit)
    if (!unit.endsWith('.service')) continue
    // 0 is closed, 10 is open; in tenths.
    const security = spawnSync(
      'systemd-analyze',
      ['security', '--offline=true', '--threshold=20', '--no-pager', file],
      {
        encoding: 'utf8',
        timeout: patienceMs,
      },
    )
    t.equal(security.status, 0, `${unit}: ${security.stdout.trim().split('\n').at(-1)}`)
  }
})

t.test('what units must have, whatever systemd thinks of it', async t => {
  const unit = (name: string): string => readFileSync(join(root, 'deploy/systemd', `muster-${name}.service`), 'utf8')
  for (const name of ['node', 'redis', 'worker']) {
    for (const line of [
      /^(?:User=muster|DynamicUser=yes)$/m,
      /^NoNewPrivileges=yes$/m,
      /^ProtectSystem=strict$/m,
      /^ProtectHome=yes$/m,
      /^PrivateTmp=yes$/m,
      /^CapabilityBoundingSet=$/m,
      /^Restart=always$/m,
      /^StartLimitIntervalSec=0$/m,
      /^LimitNOFILE=\d{5}$/m,
      /^KillMode=mixed$/m,
    ])
      t.match(unit(name), line, name)
    t.notMatch(
      unit(name),
      /^Environment=.*(?:SECRET|KEY|TOKEN|PASSWORD)=/m,
      `${name}: no secret in the environment of a unit`,
    )
  }
  const seconds = (name: string): number => Number(/^RestartSec=(\d+)$/m.exec(unit(name))?.[1])
  t.ok(seconds('redis') > 2 * 2, 'Redis comes back later than Sentinel takes to notice and to agree')
  t.match(unit('node'), /^After=.*\bmuster-redis\.service\b/m, 'a node is stopped before its Redis')
})
