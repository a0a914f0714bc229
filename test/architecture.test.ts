import { readdir, readFile } from 'node:fs/promises'
import { dirname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const root = fileURLToPath(new URL('../src', import.meta.url))

/** A room, and those that it may look into; every room may look into itself and into the ground. */
const ground = [
  'disk-space',
  'errors',
  'marked-processes',
  'process-identity',
  'process-owner',
  'refusals',
  'settings',
  'stopped-process',
  'terminal',
  'trusted-authorities',
  'version',
  'within',
]
const rooms: Record<string, readonly string[]> = {
  errors: [],
  version: [],
  within: [],
  refusals: [],
  'disk-space': ['within'],
  'stopped-process': [],
  'process-identity': [],
  'process-owner': ['process-identity'],
  'marked-processes': ['process-owner'],
  terminal: [],
  'trusted-authorities': [],
  settings: [],
  'log-errors': [],
  index: ['handlers', 'contract'],
  cli: ['access', 'backup', 'handlers', 'jobs', 'log-errors', 'node', 'worker', 'fleet', 'doctor', 'redis'],
  backup: ['payloads', 'redis'],
  doctor: ['redis', 'fleet', 'contract'],
  node: ['access', 'api', 'fleet', 'metrics', 'jobs', 'payloads', 'redis', 'handlers', 'worker'],
  access: ['redis'],
  api: ['access', 'handlers', 'fleet', 'jobs', 'payloads', 'redis', 'contract'],
  fleet: ['jobs', 'payloads', 'redis', 'contract'],
  metrics: ['fleet', 'jobs', 'redis'],
  jobs: ['payloads', 'redis', 'contract'],
  payloads: ['redis'],
  redis: [],
  contract: [],
  worker: ['contract', 'handlers'],
  handlers: [],
}

/** These decide, and nothing else: no clock, no environment, no I/O. */
const pure = ['fleet/decide.ts', 'fleet/rules/', 'fleet/reasons.ts', 'fleet/boot-stages.ts', 'fleet/snapshot.ts']

const sourceFiles = async (): Promise<string[]> =>
  (await readdir(root, { recursive: true })).filter(file => file.endsWith('.ts') && !file.includes('/kernel/'))

const importsOf = (text: string): string[] =>
  [...text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map(match => match[1] as string)

const roomOf = (file: string): string => (file.split('/')[0] as string).replace(/\.ts$/, '')

t.test('arrows look down only', async t => {
  let arrows = 0
  for (const file of await sourceFiles()) {
    const room = roomOf(file)
    t.ok(rooms[room], `${file} is in a known room`)
    const allowed = [room, ...(ground.includes(room) ? ['errors'] : ground), ...(rooms[room] ?? [])]
    for (const target of importsOf(await readFile(join(root, file), 'utf8'))) {
      if (!target.startsWith('.')) continue
      arrows += 1
      const seen = roomOf(normalize(join(dirname(file), target)))
      if (!allowed.includes(seen)) t.fail(`${file} looks into ${seen}`)
    }
  }
  t.ok(arrows > 100, `${arrows} arrows were followed`)
})

t.test('what decides is pure', async t => {
  const files = (await sourceFiles()).filter(file => pure.some(path => file.startsWith(path)))
  t.ok(files.length > 10)
  for (const file of files) {
    const text = await readFile(join(root, file), 'utf8')
    t.notMatch(text, /Date\.now|new Date\(\)|Math\.random|process\.|setTimeout|performance\.now/, file)
    for (const target of importsOf(text))
      t.ok(target.startsWith('.') && !target.includes('registry'), `${file} imports ${target}`)
  }
})

t.test('only connections and checks are made in redis/, only files in payloads/', async t => {
  for (const file of await sourceFiles()) {
    const text = await readFile(join(root, file), 'utf8')
    if (!file.startsWith('redis/')) t.notMatch(text, /new Redis\(/, `${file} opens no connection of its own`)
  }
})
