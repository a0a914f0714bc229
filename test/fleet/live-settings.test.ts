/** The settings of the fleet in a file of their own: what may stand there, and what a running node takes over of it. */
import { writeFileSync } from 'node:fs'
import { rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { LiveSettings } from '../../src/fleet/live-settings.ts'
import { readSettings } from '../../src/settings/settings.ts'

const yaml = 'queues:\n  video: { maxWorkers: 20, slots: 2 }\n'

function setUp(t: Test, content: string) {
  const folder = t.testdir({ 'fleet.env': content, 'muster.yaml': yaml })
  const file = join(folder, 'fleet.env')
  const environment = {
    MUSTER_CONFIG_FILE: join(folder, 'muster.yaml'),
    MUSTER_FLEET_SETTINGS_FILE: file,
    MUSTER_MAX_WORKERS: '7',
    MUSTER_WORKER_SLOTS: '1',
  }
  const said: { level: string; fields: Record<string, unknown>; message: string }[] = []
  const log = {
    info: (fields: Record<string, unknown>, message: string) => said.push({ level: 'info', fields, message }),
    error: (fields: Record<string, unknown>, message: string) => said.push({ level: 'error', fields, message }),
  }
  const settings = readSettings(environment)
  const live = new LiveSettings({ settings, reread: () => readSettings(environment), log: log as never })
  return { file, settings, live, said, write: (text: string) => writeFileSync(file, text) }
}

t.test('what stands in the file goes before the environment, and muster.yaml before both', async t => {
  const { settings } = setUp(
    t,
    '# fleet\n\nMUSTER_MAX_WORKERS = 2\nMUSTER_IDLE_TIMEOUT_MS=30s\nMUSTER_EC2_INSTANCE_TYPES=\n',
  )
  t.match(settings.pools, { default: { maxWorkers: 2, idleTimeoutMs: 30_000 }, video: { maxWorkers: 20 } })
  t.equal(settings.maxWorkers, 2)
  t.same(settings.placements.default?.instanceTypes, [])
})

t.test('a change is taken over in place, and told: old and new', async t => {
  const { settings, live, said, write } = setUp(t, 'MUSTER_MAX_WORKERS=1\n')
  const { pools, placements } = settings
  t.same(live.look(), [], 'nothing has changed')
  write(
    'MUSTER_MIN_WORKERS=1\nMUSTER_MAX_WORKERS=3\nMUSTER_EC2_SPOT_PERCENT=80\nMUSTER_EC2_INSTANCE_TYPES=c7g.large,c6g.large\n',
  )
  t.same(live.look(), [
    { queue: 'default', setting: 'minWorkers', old: 0, new: 1 },
    { queue: 'default', setting: 'maxWorkers', old: 1, new: 3 },
    { queue: 'default', setting: 'instanceTypes', old: [], new: ['c7g.large', 'c6g.large'] },
    { queue: 'default', setting: 'spotPercent', old: 0, new: 80 },
    { queue: 'video', setting: 'minWorkers', old: 0, new: 1 },
    { queue: 'video', setting: 'instanceTypes', old: [], new: ['c7g.large', 'c6g.large'] },
    { queue: 'video', setting: 'spotPercent', old: 0, new: 80 },
  ])
  t.match(pools, { default: { minWorkers: 1, maxWorkers: 3, slots: 1 }, video: { maxWorkers: 20, slots: 2 } })
  t.match(placements, { default: { spotPercent: 80 } })
  t.equal(said.length, 7)
  t.match(said[1], { level: 'info', message: 'maxWorkers of the queue default: 1 -> 3' })
  t.same(live.look(), [], 'once')
})

t.test('a file that cannot be used changes nothing and is told of once; the next good one counts', async t => {
  const { file, settings, live, said, write } = setUp(t, 'MUSTER_MAX_WORKERS=1\n')
  live.look()
  const bad = {
    'MUSTER_MAX_WORKERS=many': /MUSTER_MAX_WORKERS must be/,
    'MUSTER_MAX_WORKERS=2\nMUSTER_MIN_WORKERS=3': /minWorkers \(3\) is above maxWorkers \(2\)/,
    'MUSTER_MAX_WORKERS=2\nMUSTER_PORT=1':
      /line 2 is no setting of a fleet \(MUSTER_PORT\); it takes MUSTER_MIN_WORKERS/,
    'MUSTER_MAX_WORKERS=2\nMUSTER_WORKER_SLOTS=9': /line 2 is no setting of a fleet \(MUSTER_WORKER_SLOTS\)/,
    'MUSTER_MAX_WORKERS: 2': /line 1 is no setting of a fleet \(NAME=value\)/,
  }
  for (const [text, reason] of Object.entries(bad)) {
    write(text)
    t.same([...live.look(), ...live.look()], [], text)
    t.equal(said.length, 1, text)
    t.match(said.pop(), { level: 'error', fields: { file, reason }, message: /those before stay/ }, text)
    t.equal(settings.pools.default?.maxWorkers, 1)
  }
  await rm(file)
  live.look()
  t.match(said.pop(), { level: 'error', fields: { reason: /MUSTER_FLEET_SETTINGS_FILE cannot be read/ } })
  writeFileSync(`${file}.new`, 'MUSTER_MAX_WORKERS=5\n')
  await rename(`${file}.new`, file)
  t.same(live.look(), [{ queue: 'default', setting: 'maxWorkers', old: 1, new: 5 }])
})

t.test('what is written while a node starts counts, too', async t => {
  const { live, write, settings } = setUp(t, 'MUSTER_MAX_WORKERS=1\n')
  write('MUSTER_MAX_WORKERS=2\n')
  live.look()
  t.equal(settings.pools.default?.maxWorkers, 2)
})

t.test('a node does not start with a file that cannot be used', async t => {
  t.throws(() => setUp(t, 'MUSTER_MAX_WORKERS=x'), /MUSTER_MAX_WORKERS must be/)
  t.throws(
    () => readSettings({ MUSTER_CONFIG_FILE: '/nonexistent', MUSTER_FLEET_SETTINGS_FILE: '/nonexistent/fleet.env' }),
    /MUSTER_FLEET_SETTINGS_FILE cannot be read/,
  )
})
